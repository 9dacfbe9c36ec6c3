"""Figures of a benchmark: measurements taken in turns, their spread, and what was asked of them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some measurements."""

    middle: float
    low: float
    high: float
    count: int

    def show(self, digits: int = 2, unit: str = "") -> str:
        """For instance ``1.04 (0.99 to 1.10, 7 times)``."""
        low, middle, high = (f"{value:,.{digits}f}" for value in (self.low, self.middle, self.high))
        return f"{middle}{unit} ({low} to {high}, {self.count} times)"


@dataclass(frozen=True)
class Row:
    """One figure: what it is of, what is asked (empty where nothing is), what was seen, and whether the ask holds."""

    section: str
    what: str
    seen: str
    asked: str = ""
    holds: bool | None = None

    @property
    def verdict(self) -> str:
        """``holds``, ``misses``, or empty where nothing was asked."""
        return "" if self.holds is None else "holds" if self.holds else "misses"


def compute_spread(values: Sequence[float]) -> Spread:
    """The spread of at least one measurement."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def take_turns(turns: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure each of ``turns`` in turn, A B A B ..., so that whatever else the machine does touches all alike."""
    seen: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeats):
        for name, measure in turns.items():
            seen[name].append(measure())
    return seen


def compute_ratios(upper: Sequence[float], lower: Sequence[float]) -> Spread:
    """The spread of the ratios of measurements that were taken beside each other."""
    return compute_spread([one / other for one, other in zip(upper, lower, strict=True)])


def print_row(row: Row) -> None:
    """Say one figure as soon as it is known."""
    asked = f"ask {row.asked}, " if row.asked else ""
    verdict = f", {row.verdict}" if row.verdict else ""
    print(f"{row.section}: {row.what}: {asked}seen {row.seen}{verdict}", flush=True)


def print_markdown(rows: Sequence[Row]) -> None:
    """All figures as a Markdown table."""
    print("\n| section | what | asked | seen | |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.section} | {row.what} | {row.asked} | {row.seen} | {row.verdict} |")


def describe_machine() -> str:
    """Processor, cores, memory, Python, and how busy the machine was, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = [f"{_read_processor()}, {cores} cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        words.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    words.append(f"{platform.system()}, Python {platform.python_version()}")
    words.append(f"OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'unset')}")
    if hasattr(os, "getloadavg"):
        words.append(f"load average {os.getloadavg()[0]:.1f}")
    return ", ".join(words)


def _read_processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
