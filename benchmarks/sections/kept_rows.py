"""Rows of a benchmark in a file, a line each as soon as it is measured, so that the same command goes on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FIGURES = {
    "recall@1": "Recall@1",
    "recall@2": "@2",
    "recall@4": "@4",
    "recall@8": "@8",
    "map@r": "MAP@R",
    "nmi": "NMI",
}
_DECISIVE = "map@r"  # of single queries' luck it knows least


@dataclass(frozen=True)
class Task:
    """What a row is of: a data set, a method, a seed, which half is trained on (``fold``), and the budget."""

    kind: str
    dataset: str
    method: str
    seed: int
    fold: int
    budget: dict[str, Any]

    @property
    def key(self) -> str:
        """Equal for equal tasks alone."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Row:
    """A measured task: its figures by name (empty where it failed), how long it took, and what else is to be told."""

    task: Task
    figures: dict[str, float]
    seconds: float
    note: str = ""


class KeptRows:
    """The rows in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Row]:
        """Every row by its task's key, the newest where there are several; half a line that a kill left is none."""
        rows = {}
        for line in self._read().splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            row = Row(Task(**fields.pop("task")), **fields)
            rows[row.task.key] = row
        return rows

    def add(self, row: Row) -> None:
        """Append a row."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        earlier = self._read()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("\n" if earlier and not earlier.endswith("\n") else "") + json.dumps(asdict(row)) + "\n")

    def _read(self) -> str:
        return self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""


def describe_rows(rows: Iterable[Row], *, beside: str) -> str:
    """A Markdown table for each kind, data set and budget, the best MAP@R first, in percent.

    A seed's figure is the mean of its folds; shown are mean and standard deviation over the seeds. One more column
    compares MAP@R with that of the method ``beside`` on the same halves, pair by pair, so that halves that are harder
    than others do not count.
    """
    tables: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{row.task.kind}, {row.task.dataset}: " + ", ".join(f"{k} {v}" for k, v in row.task.budget.items())
        tables.setdefault(title, []).append(row)
    return "\n".join(f"{title}\n\n{_draw_table(some, beside)}\n" for title, some in tables.items())


def _draw_table(rows: Sequence[Row], beside: str) -> str:
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.task.method, []).append(row)
    base = {(row.task.seed, row.task.fold): row.figures for row in by_method.get(beside, []) if row.figures}
    heads = ["method", *FIGURES.values(), f"{FIGURES[_DECISIVE]} beside {beside}", "runs", "note"]
    drawn = []
    for method, own in by_method.items():
        measured = [row for row in own if row.figures]
        cells = [_show(_by_seed(measured, name)) for name in FIGURES]
        pairs = [
            (row.task.seed, row.figures[_DECISIVE] - base[row.task.seed, row.task.fold][_DECISIVE])
            for row in measured
            if (row.task.seed, row.task.fold) in base and method != beside
        ]
        notes = ", ".join(dict.fromkeys(row.note for row in own if row.note))
        cells += [_show(_average(pairs), sign="+"), str(len(measured)), notes]
        first = statistics.mean(_by_seed(measured, _DECISIVE)) if measured else -1.0
        drawn.append((first, f"| {' | '.join([method, *cells])} |"))
    lines = [line for _, line in sorted(drawn, key=lambda entry: -entry[0])]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines])


def _by_seed(rows: Sequence[Row], name: str) -> list[float]:
    return _average([(row.task.seed, row.figures[name]) for row in rows])


def _average(values: Iterable[tuple[int, float]]) -> list[float]:
    """The mean of each seed's values."""
    seeds: dict[int, list[float]] = {}
    for seed, value in values:
        seeds.setdefault(seed, []).append(value)
    return [statistics.mean(own) for own in seeds.values()]


def _show(shares: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation, in percent; empty where there is nothing."""
    if not shares:
        return ""
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):{sign}.1f}{spread}"
