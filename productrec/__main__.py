"""``python -m productrec``."""

from productrec.cli import main

main()
