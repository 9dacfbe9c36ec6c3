"""The command line: parse, call a stage or the pipeline, print, map an error to its exit code."""

from productrec.cli.main import main

__all__ = ["main"]
