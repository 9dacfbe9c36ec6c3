"""Benchmark of the index over N clustered unit vectors: building, recall and speed beside exact search and bare FAISS.

Sections: kinds (build, recall@10, queries a second of each kind as a ratio to exact search), bare (our interface beside
FAISS itself with the same parameters), growing (a product more in a process that stays, until it is found), memory (of
a process that opens the index and searches).

The vectors lie around N / 20 random directions, with noise of 0.7 of their length (--noise); queries are drawn as rows
are, and are none of them. Ratios are of turns that alternate in one process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from sections.figures import compute_ratios, compute_spread, describe_machine, take_turns

from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.choice import RECALL_K, Wanted
from productrec.retrieval.embedding_set import EmbeddingSet
from productrec.retrieval.engine import read_structure, use_threads
from productrec.retrieval.index import Index, load_index, save_index, search_index
from productrec.retrieval.segments import GrownRows

faiss: Any = _faiss
_SECTIONS = ("kinds", "bare", "growing", "memory")
_KINDS: tuple[Wanted, ...] = ("exact", "auto", "hnsw", "rabitq")
_NOISE = 0.7
_ROWS_A_CLASS = 20


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(_SECTIONS)} (all)")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--noise", type=float, default=_NOISE, help="of a class, beside its direction's length (0.7)")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--recall", type=float, default=0.97, help="predict.index_recall")
    parser.add_argument("--kinds", nargs="+", choices=[*_KINDS, "ivf"], default=["exact", "auto", "hnsw"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        _print_memory(options.open, options.dim)
        return
    sections = options.sections or list(_SECTIONS)
    if set(sections) - set(_SECTIONS):
        parser.error(f"sections must be of {', '.join(_SECTIONS)}")
    print(f"command: python benchmarks/search.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; FAISS {faiss.__version__}, {options.threads} threads")
    print(f"{options.rows:,} x {options.dim} clustered unit vectors, {options.queries:,} queries, k {RECALL_K}\n")
    rows, queries = draw_vectors(options.rows, options.dim, options.queries, options.seed, options.noise)
    with tempfile.TemporaryDirectory() as folder, use_threads(options.threads):
        place = Path(folder)
        kinds = [kind for kind in _KINDS if kind in options.kinds or kind == "exact"]
        kinds += [kind for kind in options.kinds if kind not in kinds]
        indexes = _build(place, rows, queries, kinds, options)
        if "bare" in sections:
            _compare_bare(place, indexes, queries, options.repeats)
        if "growing" in sections:
            _grow(place / "auto", options.dim, options.seed)
        if "memory" in sections:
            _measure_memory(place, list(indexes), options)


def draw_vectors(rows: int, dim: int, queries: int, seed: int, noise: float = _NOISE) -> tuple[np.ndarray, np.ndarray]:
    """Clustered unit vectors (``rows``, ``dim``), and queries that are drawn as they are; float32."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, rows // _ROWS_A_CLASS), dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    parts = []
    for count in (rows, queries):
        part = generator.standard_normal((count, dim), dtype=np.float32)
        part *= np.float32(noise / np.sqrt(dim))
        part += centres[generator.integers(0, len(centres), count)]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        parts.append(part)
    return parts[0], parts[1]


def gather_vectors(embeddings: np.ndarray) -> EmbeddingSet:
    """Embeddings with ids i0, i1, ..."""
    ids = [f"i{row}" for row in range(len(embeddings))]
    return EmbeddingSet(ids, embeddings, None, [], ["plain"], "weights", {}, "")


def _build(
    place: Path, rows: np.ndarray, queries: np.ndarray, kinds: Sequence[Wanted], options: argparse.Namespace
) -> dict[str, Index]:
    indexes: dict[str, Index] = {}
    built: dict[str, tuple[str, float, float]] = {}
    labels = [row // _ROWS_A_CLASS for row in range(len(rows))]
    keys = {label: f"class {label}" for label in sorted(set(labels))}
    for kind in dict.fromkeys((*kinds, "auto")):
        wanted = "ivf" if kind == "auto" and len(rows) <= 200_000 else kind  # what the rule takes where there are more
        started, processor = time.perf_counter(), time.process_time()
        tuned = save_index(
            place / kind,
            gather_vectors(rows),
            labels,
            inputs={},
            settings={},
            keys=keys,
            kind=wanted,
            recall=options.recall,
        )
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        how = "exact" if tuned is None else f"{tuned.kind}, effort {tuned.effort.lists}, {tuned.effort.candidates}"
        if tuned is not None:
            how += f", recall said {tuned.recall:.3f}"
        built[kind] = (how, seconds, processor)
        indexes[kind] = load_index(place / kind)
    asked = gather_vectors(queries)
    truth, _ = search_index(indexes["exact"], asked, RECALL_K)

    def time_search(index: Index) -> Callable[[], float]:
        def turn() -> float:
            started = time.perf_counter()
            search_index(index, asked, RECALL_K)
            return len(queries) / (time.perf_counter() - started)

        return turn

    print("| kind | how | build, s | build, CPU s | recall@10 | queries/s | times exact |")
    print("|---|---|---|---|---|---|---|")
    for index in indexes.values():
        search_index(index, asked, RECALL_K)  # its blocks are checked once
    rates = take_turns({kind: time_search(index) for kind, index in indexes.items()}, options.repeats)
    for name, index in indexes.items():
        found, _ = search_index(index, asked, RECALL_K)
        recall = np.mean([len(np.intersect1d(*pair)) / RECALL_K for pair in zip(truth, found, strict=True)])
        how, seconds, processor = built[name]
        print(
            f"| {name} | {how} | {seconds:.1f} | {processor:.1f} | {recall:.4f} | "
            f"{compute_spread(rates[name]).show(0)} | {compute_ratios(rates[name], rates['exact']).show(1)} |",
            flush=True,
        )
    return indexes


def _compare_bare(place: Path, indexes: dict[str, Index], queries: np.ndarray, repeats: int) -> None:
    """Queries a second through our interface as a ratio to FAISS with the same structure and parameters."""
    print("\n| kind | bare FAISS, queries/s | ours as a ratio |\n|---|---|---|")
    asked = gather_vectors(queries)
    for kind, index in indexes.items():
        flat = faiss.read_index(str(place / kind / "index.faiss"))
        searcher = index.searcher
        bare, parameters = flat, None
        if searcher.kind != "exact":
            structure = read_structure(place / kind / "structure.faiss", flat)
            if searcher.kind == "hnsw":
                bare, parameters = structure, faiss.SearchParametersHNSW(efSearch=searcher.effort.lists)
            else:
                structure.nprobe = searcher.effort.lists
                bare = faiss.IndexRefine(structure, flat)
                bare.k_factor = searcher.effort.count_candidates(RECALL_K) / RECALL_K

        def search_bare(bare: Any = bare, parameters: Any = parameters) -> float:
            started = time.perf_counter()
            bare.search(queries, RECALL_K, params=parameters)
            return len(queries) / (time.perf_counter() - started)

        def search_ours(index: Index = index) -> float:
            started = time.perf_counter()
            search_index(index, asked, RECALL_K)
            return len(queries) / (time.perf_counter() - started)

        search_bare(), search_ours()
        rates = take_turns({"bare": search_bare, "ours": search_ours}, repeats)
        ratios = compute_ratios(rates["ours"], rates["bare"])
        print(f"| {kind} | {compute_spread(rates['bare']).show(0)} | {ratios.show()} |", flush=True)


def _grow(folder: Path, dim: int, seed: int) -> None:
    """Seconds from the embedding of a new product to an answer that finds it, in a process that stays."""
    started = time.perf_counter()
    catalogue = Catalogue(folder)
    opened = time.perf_counter() - started
    photos, _ = draw_vectors(20, dim, 1, seed + 1)
    catalogue.search(gather_vectors(photos[:1]), RECALL_K)
    seconds = []
    for number, photo in enumerate(photos):
        rows = GrownRows([f"new {number}"], [f"product {number}"], {}, [""], photo[None])
        started = time.perf_counter()
        catalogue.grow(rows, views=["plain"], side_px=None, weights_digest="weights")
        found, _ = catalogue.search(gather_vectors(photo[None]), RECALL_K)
        seconds.append(time.perf_counter() - started)
        assert catalogue.keys[catalogue.get_classes(found)[0, 0]] == f"product {number}"
    started = time.perf_counter()
    catalogue.remove(["product 0"])
    removed = time.perf_counter() - started
    print(
        f"\ngrowing: opened in {opened:.2f} s; the first product was kept and found in {seconds[0]:.2f} s, "
        f"the others in {statistics.median(seconds[1:]):.3f} s, at most {max(seconds[1:]):.3f} s; one "
        f"removed in {removed:.3f} s",
        flush=True,
    )


def _measure_memory(place: Path, kinds: Sequence[str], options: argparse.Namespace) -> None:
    print("\n| kind | opened: own memory, mapped pages, MB | after 100 queries, MB |\n|---|---|---|")
    for kind in kinds:
        command = [sys.executable, __file__, "--open", str(place / kind), "--dim", str(options.dim)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {kind} | {done.stdout.strip()} |", flush=True)


def _print_memory(folder: Path, dim: int) -> None:
    before = _read_memory()
    index = load_index(folder)
    opened = _read_memory()
    search_index(index, gather_vectors(draw_vectors(100, dim, 1, 5)[0]), RECALL_K)
    searched = _read_memory()
    shown = [", ".join(f"{now[name] - before[name]:,}" for name in now) for now in (opened, searched)]
    print(" | ".join(shown))


def _read_memory() -> dict[str, int]:
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    sizes = {words[0].rstrip(":"): int(words[1]) // 1024 for words in lines if words[0].startswith("Rss")}
    return {name: sizes[name] for name in ("RssAnon", "RssFile")}


if __name__ == "__main__":
    main()
