"""Benchmark of re-ranking: k-reciprocal's time and memory beside the dense algorithm, and what each method does.

The first table times k-reciprocal re-ranking beyond the search and the dense algorithm of the paper at a size that it
can do, beyond its distances and their order, in turns. The second gives the highest memory of whole processes. The
third plants classes in drawn unit vectors and gives Recall@1 and MAP@R of every method; settings are each method's
defaults unless told, and nothing was fitted to anything.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sections.dense_k_reciprocal import rerank_densely
from sections.figures import compute_ratios, compute_spread, describe_machine, take_turns

from productrec.metrics.retrieval import compute_map_at_r, compute_recall_at_k
from productrec.retrieval.reranking.catalogue import list_rerankings
from productrec.retrieval.reranking.declared import Reranking
from productrec.retrieval.reranking.first_search import FirstSearch, NeighbourLists, search_first
from productrec.retrieval.reranking.methods.database_augmentation import DatabaseAugmentation
from productrec.retrieval.reranking.methods.diffusion import Diffusion
from productrec.retrieval.reranking.methods.k_reciprocal import KReciprocal, rerank_k_reciprocal, search_jointly
from productrec.retrieval.reranking.methods.neighbourhood_blending import NeighbourhoodBlending
from productrec.runtime import count_cores

K1, K2, WEIGHT = 20, 6, 0.3
_QUERY_SHARE = 3368 / 19281  # of Market-1501's rows, where the method was published
_ROWS_A_GROUP = 1000
_MEMORY = {"sparse": 2.0, "dense": 0.0, "million": 8.0}  # GiB that are asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="queries and gallery together")
    parser.add_argument("--dense-rows", type=int, default=4000, help="of the dense algorithm; 0 leaves it out")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--per-class", type=int, default=20, help="images of a class")
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 2.0], help="length of what is added to centres")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=count_cores())
    parser.add_argument("--million", action="store_true", help="memory at --million-rows too, 1,000 of them queries")
    parser.add_argument("--million-rows", type=int, default=1_000_000, help="rows that --million takes (1000000)")
    parser.add_argument("--seeds", type=int, default=3, help="of the planted classes")
    parser.add_argument("--only", choices=["times", "memory", "methods"], nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", choices=list(_MEMORY), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(options)))
        return
    wanted = options.only or ["times", "memory", "methods"]
    print(f"command: python benchmarks/reranking.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; {options.threads} threads", flush=True)
    for name, report in (("times", _report_times), ("memory", _report_memory), ("methods", _report_methods)):
        if name in wanted:
            report(options)


def draw_clustered(rows: int, dim: int, per_class: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows about a centre a class, and their labels; ``noise`` is the length of what is added to a centre."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, rows // per_class), dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = generator.permutation(np.arange(rows) % len(centres))
    values = centres[labels]
    values += np.float32(noise / np.sqrt(dim)) * generator.standard_normal((rows, dim), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values, labels


def _search(rows: int, noise: float, options: argparse.Namespace) -> tuple[FirstSearch, np.ndarray]:
    values, labels = draw_clustered(rows, options.dim, options.per_class, noise, options.seed)
    queries = round(rows * _QUERY_SHARE)
    first = search_first(values[:queries], values[queries:], k=100, labels=labels[queries:])
    return first, search_jointly(first, k1=K1, k2=K2)


def _build_dense(first: FirstSearch) -> Callable[[], np.ndarray]:
    values = np.concatenate([first.queries, first.gallery])
    distances = np.maximum(2.0 - 2.0 * (values @ values.T), 0.0)
    np.fill_diagonal(distances, -1.0)  # a row is its own first neighbour, whatever its copies
    order = np.argsort(distances, axis=1)
    np.fill_diagonal(distances, 0.0)
    return lambda: rerank_densely(distances, order, len(first.queries), k1=K1, k2=K2, weight=WEIGHT)


def _rerank(first: FirstSearch, joint: np.ndarray, threads: int) -> NeighbourLists:
    return rerank_k_reciprocal(first, k1=K1, k2=K2, original_weight=WEIGHT, joint=joint, threads=threads)


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _report_times(options: argparse.Namespace) -> None:
    print("\n| rows | queries | noise | sparse, s | its processor s | dense, s | dense / sparse | largest difference |")
    print("|---|---|---|---|---|---|---|---|")
    sizes = sorted({options.rows, options.dense_rows} - {0})
    for noise in options.noise:
        for rows in sizes:
            first, joint = _search(rows, noise, options)

            rerank = partial(_rerank, first, joint, options.threads)

            turns = {"sparse": partial(_time, rerank)}
            difference = ""
            if rows == options.dense_rows:
                dense = _build_dense(first)
                turns["dense"] = partial(_time, dense)
                found = rerank()
                told = 1.0 - np.take_along_axis(dense(), found.rows, axis=1)
                difference = f"{np.abs(told - found.similarities).max():.1e}"
            seen = take_turns(turns, options.repeats)
            cells = [f"{rows:,}", f"{len(first.queries):,}", f"{noise:g}", compute_spread(seen["sparse"]).show()]
            started = time.process_time()
            rerank()
            cells.append(f"{time.process_time() - started:.2f}")
            if "dense" in seen:
                cells += [
                    compute_spread(seen["dense"]).show(1),
                    compute_ratios(seen["dense"], seen["sparse"]).show(0),
                ]
            else:
                cells += ["", ""]
            print(f"| {' | '.join([*cells, difference])} |", flush=True)


def _report_memory(options: argparse.Namespace) -> None:
    print("\n| what | rows | queries | before, GiB | highest, GiB | asked | s |")
    print("|---|---|---|---|---|---|---|")
    for kind, asked in _MEMORY.items():
        if (kind == "million" and not options.million) or (kind == "dense" and not options.dense_rows):
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", kind]
        told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        limit = f"at most {asked:g}" if asked else ""
        print(
            f"| {kind} | {told['rows']:,} | {told['queries']:,} | {told['before']:.2f} | "
            f"{told['highest']:.2f} | {limit} | {told['seconds']:.1f} |",
            flush=True,
        )


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """What one process holds at most; the search's own memory is in it."""
    noise = options.noise[0]
    if options.measure == "million":
        first, joint = _search_million(noise, options)
    else:
        first, joint = _search(options.dense_rows if options.measure == "dense" else options.rows, noise, options)
    before = _find_highest()

    def rerank() -> object:
        if options.measure == "dense":
            return _build_dense(first)()
        return _rerank(first, joint, options.threads)

    seconds = _time(rerank)
    return {
        "rows": len(joint),
        "queries": len(first.queries),
        "before": before,
        "highest": _find_highest(),
        "seconds": seconds,
    }


def _search_million(noise: float, options: argparse.Namespace) -> tuple[FirstSearch, np.ndarray]:
    """Very many rows whose neighbours are sought among 1,000 that hold whole classes: a search is not measured."""
    rows, queries = options.million_rows, 1000
    values, labels = draw_clustered(rows, options.dim, options.per_class, noise, options.seed)
    order = np.argsort(labels, kind="stable")
    joint = np.empty((rows, K1), dtype=np.int64)
    for start in range(0, rows, _ROWS_A_GROUP):
        group = order[start : start + _ROWS_A_GROUP]
        near = values[group] @ values[group].T
        np.fill_diagonal(near, -np.inf)
        best = np.argpartition(-near, K1, axis=1)[:, :K1]
        ranked = np.argsort(-np.take_along_axis(near, best, axis=1), axis=1)
        joint[group] = group[np.take_along_axis(best, ranked, axis=1)]
    return search_first(values[:queries], values[queries:], k=100), joint


def _find_highest() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def draw_products(seed: int, *, noise: float, dim: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """300 classes of 4 to 24 images that show one of two sides of a product, the second not much like the first."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(4, 25, 300)
    labels = generator.permutation(np.repeat(np.arange(300), sizes))
    fronts, backs = generator.standard_normal((2, 300, dim))
    backs += 0.8 * fronts
    sides = np.stack([side / np.linalg.norm(side, axis=1, keepdims=True) for side in (fronts, backs)])
    values = sides[(generator.random(len(labels)) < 0.4).astype(int), labels]
    values = values + noise / np.sqrt(dim) * generator.standard_normal(values.shape)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32), labels


def _list_tried() -> dict[str, Reranking]:
    """Every method with its defaults, and what else may suit such classes; nothing was searched for."""
    return {
        **{name: method() for name, method in list_rerankings().items()},
        "database_augmentation, by rank, k 5": DatabaseAugmentation(k=5, weights="rank"),
        "database_augmentation, own class": DatabaseAugmentation(same_class=True),
        "diffusion, k 15, query_k 3": Diffusion(k=15, query_k=3),
        "k_reciprocal, k1 10, k2 3": KReciprocal(k1=10, k2=3),
        "neighbourhood_blending, threshold 0.4": NeighbourhoodBlending(threshold=0.4, least_similarity=0.3),
    }


def _report_methods(options: argparse.Namespace) -> None:
    print(
        f"\nPlanted products, {options.seeds} seeds, a fifth of the images ask the rest; %, mean (lowest to highest)\n"
    )
    print("| method | noise | Recall@1 | MAP@R | s a search of about 800 queries, beyond the first |")
    print("|---|---|---|---|---|")
    for noise in (1.0, 1.6, 2.2):
        seen: dict[str, list[tuple[float, float, float]]] = {}
        tried: dict[str, Reranking | None] = {"first search": None, **_list_tried()}
        for seed in range(options.seeds):
            values, labels = draw_products(seed, noise=noise)
            queries = len(labels) // 5
            first = search_first(values[:queries], values[queries:], k=50, labels=labels[queries:])
            positives = np.bincount(labels[queries:], minlength=300)[labels[:queries]]
            for name, method in tried.items():
                started = time.perf_counter()
                lists = first.lists if method is None else method.rerank(first)
                seconds = time.perf_counter() - started
                found = labels[queries:][lists.rows]
                recall = 100 * compute_recall_at_k(found, labels[:queries], 1)
                precision = 100 * compute_map_at_r(found, labels[:queries], positives)
                seen.setdefault(name, []).append((recall, precision, seconds))
        for name, figures in seen.items():
            recalls, precisions, times = zip(*figures, strict=True)
            print(
                f"| {name} | {noise:g} | {_show(recalls)} | {_show(precisions)} | {np.median(times):.2f} |", flush=True
            )


def _show(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
