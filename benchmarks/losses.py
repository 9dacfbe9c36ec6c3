"""Benchmark of the pair-weighting engine: each loss beside the floor, and beside pytorch-metric-learning where it is.

The floor is what no loss over pairs can do without: one N x M by D product forward and two backward. Everything is
measured in turns in one run, forward and backward, and printed as ratios (median, lowest, highest), with the memory a
loss takes beyond its inputs. ``pip install pytorch-metric-learning`` adds the comparison.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sections.figures import compute_ratios, compute_spread, describe_machine, take_turns
from torch import Tensor
from torch.nn import functional

from productrec.losses.mining import MultiSimilarityMining
from productrec.losses.pair_weighting import compute_pair_loss
from productrec.losses.pairwise import Circle, Contrastive, LiftedStructure, MultiSimilarity, NTXent, SupCon
from productrec.losses.ranking import Triplet

_PK = 4  # images a class
_LOSSES: dict[str, tuple[Any, Any]] = {
    "Multi-Similarity + mining": (MultiSimilarity(), MultiSimilarityMining()),
    "Circle": (Circle(), None),
    "triplet, all": (Triplet(0.1), None),
    "triplet, semi-hard": (Triplet(0.1, negatives="semi_hard"), None),
    "contrastive": (Contrastive(1.0, 0.5), None),
    "lifted structure": (LiftedStructure(), None),
    "NT-Xent": (NTXent(0.07), None),
    "SupCon": (SupCon(0.1), None),
}
# What a case of the issue asks: times the floor, times faster than the library.
_ASKED = {
    ("Multi-Similarity + mining", 64, 128): (7.0, 3.0),
    ("Multi-Similarity + mining", 1024, 128): (1.5, 12.0),
    ("Multi-Similarity + mining", 4096, 128): (1.35, 18.0),
    ("Multi-Similarity + mining", 4096, 512): (1.25, 7.0),
    ("Circle", 4096, 128): (1.7, 14.0),
    ("triplet, all", 1024, 128): (4.0, 55.0),
    ("triplet, semi-hard", 1024, 128): (4.0, 55.0),
    ("contrastive", 4096, 128): (1.4, 3.5),
    ("lifted structure", 4096, 128): (2.0, None),
    ("NT-Xent", 256, 128): (4.0, 700.0),
    ("NT-Xent", 1024, 128): (1.4, None),
    ("NT-Xent", 4096, 128): (1.4, None),
    ("SupCon", 4096, 128): (None, None),
}


def main() -> None:
    """Run the cases that were asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--library", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    library = options.library and importlib.util.find_spec("pytorch_metric_learning") is not None
    print(f"command: python benchmarks/losses.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; {options.threads} threads, float32, {_PK} images a class\n", flush=True)
    print("| loss | N | D | times the floor | asked | library: times ours | asked | extra peak, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, count, dim), (asked, asked_library) in _ASKED.items():
        if options.only in name:
            print(_measure(name, count, dim, asked, asked_library, options.repeats, library), flush=True)


def _measure(
    name: str, count: int, dim: int, asked: float | None, asked_library: float | None, repeats: int, library: bool
) -> str:
    embeddings, labels = _draw(count, dim)
    loss, mining = _LOSSES[name]
    turns: dict[str, Callable[[], float]] = {
        "floor": lambda: _time(lambda: _run_floor(embeddings), count),
        "ours": lambda: _time(lambda: _run(compute_pair_loss, embeddings, labels, loss, mining), count),
    }
    other = _build_library(name) if library and not (count > 1024 and name in ("lifted structure", "NT-Xent")) else None
    if other is not None:
        turns["library"] = lambda: _time(lambda: _backward(other, embeddings, labels), count, most=1)
    for turn in turns.values():
        turn()
    seen = take_turns(turns, repeats)
    ratio = compute_ratios(seen["ours"], seen["floor"])
    against = compute_ratios(seen["library"], seen["ours"]).show(1) if other is not None else ""
    peak = _measure_peak(lambda: _run(compute_pair_loss, embeddings, labels, loss, mining))
    middle = compute_spread(seen["ours"]).middle * 1e3
    return (
        f"| {name} | {count:,} | {dim} | {ratio.show()}, {middle:.2f} ms | {asked or ''} | {against} | "
        f"{asked_library or ''} | {peak:.0f} |"
    )


def _draw(count: int, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) // _PK
    centres = torch.randn(int(labels.max()) + 1, dim, generator=generator)
    noise = torch.randn(count, dim, generator=generator)
    order = torch.randperm(count, generator=generator)
    return functional.normalize(centres[labels] + noise, dim=1)[order].contiguous(), labels[order]


def _run_floor(embeddings: Tensor) -> None:
    similarities = embeddings @ embeddings.T
    similarities @ embeddings  # the products are the work
    similarities.T @ embeddings


def _run(compute: Callable[..., Tensor], embeddings: Tensor, labels: Tensor, loss: Any, mining: Any) -> None:
    leaf = embeddings.detach().requires_grad_()
    torch.autograd.backward(compute(leaf, labels, loss, mining=mining))


def _backward(loss_of: Callable[[Tensor, Tensor], Tensor], embeddings: Tensor, labels: Tensor) -> None:
    leaf = embeddings.detach().requires_grad_()
    torch.autograd.backward(loss_of(leaf, labels))


def _build_library(name: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    from pytorch_metric_learning import distances, losses, miners

    cosine = distances.CosineSimilarity()
    if name == "Multi-Similarity + mining":
        loss, miner = losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)
        return lambda rows, labels: loss(rows, labels, miner(rows, labels))
    if name == "triplet, semi-hard":
        triplet = losses.TripletMarginLoss(0.1, distance=cosine)
        semi_hard = miners.TripletMarginMiner(0.1, type_of_triplets="semihard", distance=cosine)
        return lambda rows, labels: triplet(rows, labels, semi_hard(rows, labels))
    built = {
        "Circle": lambda: losses.CircleLoss(0.4, 80),
        "triplet, all": lambda: losses.TripletMarginLoss(0.1, distance=cosine),
        "contrastive": lambda: losses.ContrastiveLoss(1.0, 0.5, distance=cosine),
        "NT-Xent": lambda: losses.NTXentLoss(0.07),
        "SupCon": lambda: losses.SupConLoss(0.1),
    }
    return built[name]() if name in built else None


def _time(work: Callable[[], None], count: int, most: int = 50) -> float:
    times = max(1, min(most, 2048 // count))
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def _measure_peak(work: Callable[[], None]) -> float:
    """Megabytes of resident memory at the highest, beyond what was there before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else what the warm-up freed is used again and nothing seems to be taken
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")
    before = _read_kilobytes(status, "VmRSS")
    work()
    return (_read_kilobytes(status, "VmHWM") - before) / 1024


def _read_kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
