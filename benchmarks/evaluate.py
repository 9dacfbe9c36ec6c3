"""Benchmark of exact retrieval figures, beside two floors: the bare product with the nearest rows of each query.

"Product and top-k" is torch's product of 1,024 queries with all rows, and the k largest of each, k being what MAP@R
needs: the largest R and the query itself. "Product and top-1" is a product in our own tiles and a running top-1, the
least that any search does. Nothing of either is exact in ties, and no figure is made of what they find. All are
measured in turns in one run. Seconds of CPU (of all threads) hardly depend on what else the machine does, seconds on
the clock do. Memory is the highest beyond that of the inputs, in a process of its own. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sections.figures import (
    Row,
    compute_ratios,
    compute_spread,
    describe_machine,
    print_markdown,
    print_row,
    take_turns,
)
from threadpoolctl import threadpool_limits

from productrec.metrics.ranks import TILE_QUERIES, TILE_ROWS
from productrec.metrics.retrieval import compute_retrieval

_MB = 1e6


class Case(NamedTuple):
    """Rows, classes and noise of a drawn set; queries where they are fewer; what is asked of ratio and megabytes."""

    title: str
    rows: int
    classes: int
    noise: float
    queries: int | None
    ratio: float | None
    megabytes: float | None


_CASES = {
    "products": Case("60,000 x 128 of 11,316 classes", 60_000, 11_316, 1.4, None, 1.12, 60),
    "blurred": Case("the same, hardly a neighbour right", 60_000, 11_316, 2.5, None, None, 60),
    "r49": Case("10,000 x 128, R = 49", 10_000, 200, 2.2, None, 1.5, None),
    "million": Case("1,000,000 gallery rows", 1_000_000, 250_000, 1.4, 90_000, None, None),
}


def main() -> None:
    """Measure the cases and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=_CASES, action="append", help="cases (all but the million)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--queries", type=int, help="of the million's 90,000, for a shorter run")
    parser.add_argument("--memory", help=argparse.SUPPRESS)  # what a child process measures
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(_measure_memory(_CASES[options.memory], options)))
        return
    print(f"command: python benchmarks/evaluate.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}", flush=True)
    rows = []
    for name in options.case or [name for name in _CASES if name != "million"]:
        rows += _measure_million(name, options) if name == "million" else _measure(name, options)
    print_markdown(rows)


def _draw(case: Case, dim: int, queries: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gallery and queries with their labels: a point a class, and rows around it."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((case.classes, dim), dtype=np.float32)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.permutation(np.arange(count) % case.classes)
        embeddings = np.empty((count, dim), np.float32)
        for start in range(0, count, 50_000):
            part = labels[start : start + 50_000]
            some = centres[part] + case.noise * generator.standard_normal((len(part), dim), dtype=np.float32)
            embeddings[start : start + len(part)] = some / np.linalg.norm(some, axis=1, keepdims=True)
        return embeddings, labels

    gallery, gallery_labels = draw(case.rows)
    asked, labels = (gallery, gallery_labels) if queries is None else draw(queries)
    return gallery, gallery_labels, asked, labels


def _find_nearest(queries: np.ndarray, gallery: np.ndarray, threads: int) -> np.ndarray:
    """The lower floor."""

    def search(start: int) -> np.ndarray:
        asked = queries[start : start + TILE_QUERIES]
        every = np.arange(len(asked))
        nearest, highest = np.full(len(asked), -1), np.full(len(asked), -np.inf, np.float32)
        product = np.empty((len(asked), TILE_ROWS), np.float32)
        for first in range(0, len(gallery), TILE_ROWS):
            part = gallery[first : first + TILE_ROWS]
            out = product if len(part) == TILE_ROWS else np.empty((len(asked), len(part)), np.float32)
            np.matmul(asked, part.T, out=out)
            best = out.argmax(axis=1)
            found = out[every, best]
            closer = found > highest
            np.copyto(highest, found, where=closer)
            np.copyto(nearest, best + first, where=closer)
        return nearest

    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(search, range(0, len(queries), TILE_QUERIES))))


def _find_nearest_k(queries: np.ndarray, gallery: np.ndarray, k: int, threads: int) -> None:
    """The floor of a search for k neighbours."""
    torch.set_num_threads(threads)
    asked, every = torch.from_numpy(queries), torch.from_numpy(gallery).T
    product = torch.empty(1024, every.shape[1])
    for start in range(0, len(asked), 1024):
        some = asked[start : start + 1024]
        torch.mm(some, every, out=product[: len(some)])
        product[: len(some)].topk(k)


def _report(section: str, what: str, seen: str, asked: str = "", holds: bool | None = None) -> Row:
    row = Row(section, what, seen, asked, holds)
    print_row(row)
    return row


def _measure(name: str, options: argparse.Namespace) -> list[Row]:
    case = _CASES[name]
    gallery, labels, _, _ = _draw(case, options.dim, None)
    figures: dict[str, float] = {}
    most_relevant = int(np.bincount(labels).max())  # the largest R, and the query itself
    ways: dict[str, Callable[[], object]] = {
        "top-k": lambda: _find_nearest_k(gallery, gallery, most_relevant, options.threads),
        "top-1": lambda: _find_nearest(gallery, gallery, options.threads),
        "figures": lambda: figures.update(compute_retrieval(gallery, labels, threads=options.threads).measure()),
    }
    seen: dict[str, list[float]] = {which: [] for which in ways}

    def measure(which: str) -> float:
        wall, used = time.perf_counter(), time.process_time()
        ways[which]()
        seen[which].append(time.process_time() - used)
        return time.perf_counter() - wall

    walls = take_turns({which: partial(measure, which) for which in ways}, options.repeats)
    cpu, wall = compute_ratios(seen["figures"], seen["top-k"]), compute_ratios(walls["figures"], walls["top-k"])
    least = compute_ratios(seen["figures"], seen["top-1"])
    memory = _run_memory(name, options)
    asked = "" if case.ratio is None else f"at most {case.ratio}"
    holds = None if case.ratio is None else cpu.middle <= case.ratio
    quality = ", ".join(f"{key} {100 * figures[key]:.1f} %" for key in ("recall@1", "map@r"))
    most = case.megabytes
    return [
        _report(
            name, f"{case.title} ({quality}); CPU, times product and top-{most_relevant}", cpu.show(), asked, holds
        ),
        _report(name, "clock, times the same", wall.show()),
        _report(name, "CPU, times product and top-1", least.show()),
        _report(name, f"product and top-{most_relevant}, s on the clock", compute_spread(walls["top-k"]).show()),
        _report(
            name,
            "extra peak, MB",
            f"{memory['extra'] / _MB:.0f}",
            "" if most is None else f"at most {most:.0f}",
            None if most is None else memory["extra"] / _MB <= most,
        ),
    ]


def _measure_million(name: str, options: argparse.Namespace) -> list[Row]:
    case = _CASES[name]
    memory = _run_memory(name, options)
    asked = options.queries or case.queries or 0
    whole = memory["seconds"] * (case.queries or 0) / asked
    return [
        _report(name, f"{asked:,} queries by {case.title} x {options.dim}, s", f"{memory['seconds']:.0f}"),
        _report(
            name, f"of all {case.queries:,} queries, s", f"{whole:.0f}{'' if asked == case.queries else ' (scaled)'}"
        ),
        _report(name, "extra peak, MB", f"{memory['extra'] / _MB:.0f}"),
    ]


def _run_memory(name: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--memory", name, "--dim", str(options.dim), "--threads", str(options.threads)]
    if options.queries:
        command += ["--queries", str(options.queries)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _measure_memory(case: Case, options: argparse.Namespace) -> dict[str, float]:
    queries = None if case.queries is None else options.queries or case.queries
    gallery, gallery_labels, asked, labels = _draw(case, options.dim, queries)
    small = gallery[:64]
    compute_retrieval(small, gallery_labels[:64], threads=options.threads)  # libraries and threads are there
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest counts from here on
    held = _read_status("VmRSS")
    started = time.perf_counter()
    if queries is None:
        compute_retrieval(gallery, gallery_labels, threads=options.threads)
    else:
        compute_retrieval(asked, labels, gallery, gallery_labels, threads=options.threads)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "extra": _read_status("VmHWM") - held}


def _read_status(name: str) -> int:
    """Bytes."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return int(file.read().partition(f"{name}:")[2].split()[0]) << 10


if __name__ == "__main__":
    main()
