"""The choice of an index: which kind suits a gallery, and how hard it has to look to find what exact search finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from productrec.retrieval.engine import (
    Kind,
    count_codes,
    count_lists,
    draw_training_rows,
    has_kind,
    leave_out_own,
    search_flat,
)
from productrec.retrieval.searcher import Effort, Searcher

Wanted = Literal["auto", "exact", "hnsw", "ivf", "rabitq"]
EXACT_UP_TO = 200_000  # rows, where nothing else is asked for
LEAST_ROWS = 1_000  # that a structure is worth, and can be trained on
RECALL_K = 10
_SAMPLE = 400
_SEED = 7
_NUMBER_BYTES = 4
_ROW_ID_BYTES = 8
_LINK_BYTES = 16 * 2 * 4 + 16  # of a row in a graph: two links on its lowest level for each on the others
_GRAPH_EFFORTS = (16, 32, 64, 128, 256, 512)
_FIRST_LISTS = 4
_MOST_CANDIDATES = 32
_NO_GAIN = 0.002


class Tuned(NamedTuple):
    """How hard a kind of index has to look, and the recall@10 measured then: its mean and its standard error."""

    kind: Kind
    effort: Effort
    recall: float
    error: float


def choose_kinds(wanted: Wanted, *, rows: int, dim: int, memory_bytes: int | None) -> tuple[Kind, ...]:
    """The kinds of index to try, in this order; the first that reaches the recall at less cost than exact is taken.

    Exact search up to `EXACT_UP_TO` rows that fit half of the memory. Beyond, inverted lists with product quantisation,
    or, where these codes would fill more than a quarter of the memory or the numbers of a row are odd, with a bit a
    number; then a graph, where it and the rows fit half of the memory; then exact search.

    Args:
        wanted: the kind that is asked for, or ``auto``.
        rows: M.
        dim: D.
        memory_bytes: of this machine that are free; None where that is not known.
    """
    if wanted == "exact" or rows < LEAST_ROWS:
        return ("exact",)
    if wanted != "auto":
        return (wanted,)
    memory = memory_bytes if memory_bytes is not None else 1 << 62
    row_bytes = rows * dim * _NUMBER_BYTES
    if rows <= EXACT_UP_TO and row_bytes <= memory // 2:
        return ("exact",)
    fits = dim % 2 == 0 and rows * (count_codes(dim) // 2 + _ROW_ID_BYTES) <= memory // 4
    kinds: list[Kind] = ["ivf" if fits or not has_kind("rabitq") else "rabitq"]
    if row_bytes + rows * _LINK_BYTES <= memory // 2:
        kinds.append("hnsw")
    return (*kinds, "exact")


def describe_wanted(wanted: Wanted, target: float, *, rows: int) -> str:
    """What decides how a gallery is searched, as text; the same for all that comes to exact search by its size."""
    if wanted == "exact" or rows < LEAST_ROWS or (wanted == "auto" and rows <= EXACT_UP_TO):
        return "exact"
    return f"{wanted}, recall {target:g}"


def describe_built(tuned: Tuned | None, target: float) -> str:
    """How an index searches, and the recall that was measured, as a person reads it."""
    if tuned is None:
        return f"exact search, which costs no more here than an approximate one with a recall of {target:g}"
    looks = "open candidates" if tuned.kind == "hnsw" else "lists"
    return (
        f"{tuned.kind}, {tuned.effort.lists} {looks} a query: recall@{RECALL_K} {tuned.recall:.3f} against exact "
        f"search, measured on {_SAMPLE} rows of the gallery (standard error {tuned.error:.3f})"
    )


def tune_effort(searcher: Searcher, target: float) -> Tuned | None:
    """The least effort with which a structure finds a share ``target`` of what exact search finds.

    Rows of the gallery itself are searched for, drawn with a fixed seed, each left out of its own answer; the recall@10
    less one standard error must reach the target. Rows that lists were trained on are not asked for, since their
    centres lie nearer to these than to any new query. A graph finds a row's neighbours from that row's own place in it,
    and misses about half as many as of a new query (benchmarks/search.py), so it may miss half as many. More lists are
    looked into, and more candidates compared where lists alone no longer help, until then or until exact search costs
    less.

    Returns:
        None where it is not reached.
    """
    embeddings = searcher.get_embeddings()
    own = _draw_sample(searcher)
    least = 1 - (1 - target) / 2 if searcher.kind == "hnsw" else target
    queries = np.array(embeddings[own])
    k = min(RECALL_K + 1, len(embeddings))
    exact = search_flat(searcher.flat, queries, k)
    truth, _ = leave_out_own(exact.rows, exact.similarities, own)
    before = 0.0
    candidates = Effort(0).candidates
    for lists in _list_efforts(searcher):
        while True:
            effort = Effort(lists, candidates)
            found = searcher.search(queries, k, effort=effort)
            rows, _ = leave_out_own(found.rows, found.similarities, own)
            shares = np.array([len(np.intersect1d(*pair)) / len(pair[0]) for pair in zip(truth, rows, strict=True)])
            tuned = Tuned(searcher.kind, effort, float(shares.mean()), float(shares.std() / np.sqrt(len(shares))))
            if tuned.recall - tuned.error >= least:
                return tuned
            is_stuck = tuned.recall - before < _NO_GAIN
            before = tuned.recall
            if searcher.kind == "hnsw" or not is_stuck or candidates >= _MOST_CANDIDATES:
                break
            candidates *= 2
    return None


def _draw_sample(searcher: Searcher) -> np.ndarray:
    rows = np.arange(searcher.rows)
    if searcher.kind != "hnsw":
        rows = np.setdiff1d(rows, draw_training_rows(searcher.rows), assume_unique=True)
    return np.sort(np.random.default_rng(_SEED).choice(rows, min(_SAMPLE, len(rows)), replace=False))


def _list_efforts(searcher: Searcher) -> Iterator[int]:
    if searcher.kind == "hnsw":
        yield from _GRAPH_EFFORTS
        return
    most = count_lists(searcher.rows) // 2  # in half of the lists exact search costs as little
    steps = range(int(2 * np.log2(most)) + 1)
    yield from dict.fromkeys(lists for step in steps if (lists := round(2 ** (step / 2))) >= _FIRST_LISTS)
