"""Benchmark of twin classes and close pairs: one product under two names, and copies, among N clustered embeddings.

N x D unit vectors lie around a direction a class, with noise of 0.7 of their length. Some classes are parted in two by
chance: these pairs are to be told, and no others. One row of a hundred is replaced by a copy of the row before it with
a similarity of about 0.99. Printed: seconds of each step, the recall of the neighbours that were found against exact
search on a sample, twins and copies found, and the highest memory of the process, in which the vectors themselves are.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from sections.figures import Row, describe_machine, print_markdown, print_row

from productrec.recognition.twins import find_twins
from productrec.retrieval.choice import RECALL_K
from productrec.retrieval.engine import search_rows, use_threads
from productrec.retrieval.large_search import list_close_pairs, search_large

_NOISE = 0.7
_NEIGHBOURS = 20  # as the audit has them
_CLOSE = 0.97
_COPIED = 100  # every so many rows one is a copy
_COPY_NOISE = 0.14
_SAMPLE = 1000
_DRAWN_AT_A_TIME = 65_536
_ASKED_MINUTES, _ASKED_GIB, _ASKED_RECALL = 10, 4, 0.99
Result = TypeVar("Result")


def main() -> None:
    """Draw, search, find twins and copies; print the figures and a Markdown table of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--classes", type=int, default=50_000, help="before some are parted")
    parser.add_argument("--twins", type=int, default=500, help="classes that are parted in two by chance")
    parser.add_argument("--exact-up-to", type=int, default=200_000, help="rows that are searched exactly (200000)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"command: python benchmarks/twins.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; {options.threads} threads", flush=True)
    rows, labels, class_count = _draw(options)
    drawn = _find_highest()
    own = np.arange(len(rows))
    with use_threads(options.threads):
        searching, found = _time(
            lambda: search_large(rows, rows, _NEIGHBOURS, own_rows=own, exact_up_to=options.exact_up_to)
        )
        searched = _find_highest()
        naming, twins = _time(lambda: find_twins(labels, labels[found.rows], class_count))
        pairing, close = _time(lambda: list_close_pairs(found.rows, found.similarities, _CLOSE, most=5 * len(rows)))
        highest = _find_highest()
        sample = np.sort(np.random.default_rng(options.seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False))
        truth, _ = search_rows(rows[sample], rows, RECALL_K, own_rows=sample)
    pairs = zip(truth, found.rows[sample, :RECALL_K], strict=True)
    recall = float(np.mean([len(np.intersect1d(*pair)) / RECALL_K for pair in pairs]))
    minutes = (searching + naming + pairing) / 60
    planted = {(name, options.classes + name) for name in range(options.twins)}
    told = {(pair.one, pair.other) for pair in twins}
    copies = {(row - 1, row) for row in range(_COPIED - 1, len(rows), _COPIED)}
    copied = {(int(one), int(other)) for one, other in close}
    how = "exact" if found.tuned is None else f"{found.tuned.kind}, {found.tuned.effort.lists} lists"
    section = f"{len(rows):,} x {options.dim}"
    shown = [
        Row(section, f"neighbours ({how}), s", f"{searching:.1f}"),
        Row(section, "twin classes, s", f"{naming:.1f}"),
        Row(section, "close pairs, s", f"{pairing:.1f}"),
        Row(section, "all, minutes", f"{minutes:.2f}", f"at most {_ASKED_MINUTES}", minutes <= _ASKED_MINUTES),
        Row(section, "highest memory, GiB", f"{highest:.2f}", f"at most {_ASKED_GIB}", highest <= _ASKED_GIB),
        Row(section, "highest memory once drawn, and once searched, GiB", f"{drawn:.2f}, {searched:.2f}"),
        Row(
            section,
            f"recall@{RECALL_K} against exact on {len(sample):,} rows",
            f"{recall:.4f}",
            f"at least {_ASKED_RECALL}",
            recall >= _ASKED_RECALL,
        ),
        Row(
            section,
            f"of {len(planted):,} twins found; others told",
            f"{len(planted & told):,}; {len(told - planted):,}",
        ),
        Row(
            section,
            f"of {len(copies):,} copies found; others told",
            f"{len(copies & copied):,}; {len(copied - copies):,}",
        ),
    ]
    for row in shown:
        print_row(row)
    print_markdown(shown)


def _draw(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, int]:
    """Unit rows, the class of each, and how many classes: class c of the first is parted from class C + c."""
    generator = np.random.default_rng(options.seed)
    centres = generator.standard_normal((options.classes, options.dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = generator.permutation(np.arange(options.rows) % options.classes)
    rows = np.empty((options.rows, options.dim), dtype=np.float32)
    for start in range(0, len(rows), _DRAWN_AT_A_TIME):
        part = rows[start : start + _DRAWN_AT_A_TIME]
        generator.standard_normal(dtype=np.float32, out=part)
        part *= np.float32(_NOISE / np.sqrt(options.dim))
        part += centres[labels[start : start + len(part)]]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    copies = np.arange(_COPIED - 1, len(rows), _COPIED)
    noise = generator.standard_normal((len(copies), options.dim), dtype=np.float32)
    noise *= np.float32(_COPY_NOISE / np.sqrt(options.dim))
    noise += rows[copies - 1]
    rows[copies], labels[copies] = noise / np.linalg.norm(noise, axis=1, keepdims=True), labels[copies - 1]
    is_parted = (labels < options.twins) & (generator.random(len(labels)) < 0.5)
    return rows, np.where(is_parted, labels + options.classes, labels), options.classes + options.twins


def _time(work: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _find_highest() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
