"""How long the command line takes to answer ``--help``, beside a Python that does nothing, and what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from sections.figures import Row, compute_ratios, compute_spread, print_row, take_turns

HEAVY = ("torch", "timm", "faiss", "albumentations", "pandas")
MOST_SECONDS = 0.5
_COMMANDS = (["--help"], ["train", "--help"])
_LIST_IMPORTS = """
import json, sys
from productrec.cli import main
try:
    main(sys.argv[2:])
except SystemExit as stopped:
    assert not stopped.code, f"exit code {stopped.code}"
print(json.dumps(sorted(set(sys.argv[1].split(",")) & set(sys.modules))), file=sys.stderr)
"""


def measure_start(repeats: int) -> list[Row]:
    """Time ``productrec --help`` and ``productrec train --help`` as subprocesses, and list their heavy imports."""
    rows = []
    for arguments in _COMMANDS:
        name = f"`productrec {' '.join(arguments)}`"
        turns: dict[str, Callable[[], float]] = {
            "ours": partial(_time_run, [sys.executable, "-m", "productrec", *arguments]),
            "bare": partial(_time_run, [sys.executable, "-c", "pass"]),
        }
        take_turns(turns, 1)  # byte code and file cache
        seen = take_turns(turns, repeats)
        spread = compute_spread(seen["ours"])
        rows += [
            Row("start", name, spread.show(2, " s"), f"< {MOST_SECONDS} s", spread.middle < MOST_SECONDS),
            Row("start", f"{name} / `python -c pass`", compute_ratios(seen["ours"], seen["bare"]).show(1)),
        ]
        imported = find_heavy_imports(_LIST_IMPORTS, arguments)
        rows.append(Row("start", f"heavy imports of {name}", ", ".join(imported) or "none", "none", holds=not imported))
        for row in rows[-3:]:
            print_row(row)
    return rows


def find_heavy_imports(script: str, arguments: Sequence[str]) -> list[str]:
    """Which of `HEAVY` a script has imported; its last line on standard error must be a JSON list of them."""
    command = [sys.executable, "-c", script, ",".join(HEAVY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"listing the imports of {arguments} failed:\n{done.stderr}")
    imported: list[str] = json.loads(done.stderr.splitlines()[-1])
    return imported


def _time_run(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
