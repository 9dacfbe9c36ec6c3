"""Benchmark of losses between images and titles: both directions beside one, in one run, with the memory they take.

Forward and backward by image and title embeddings, one direction (images as anchors) and both in turns; printed are
their ratios (median, lowest, highest), the time of both, and the memory taken beyond the inputs. On an accelerator
(``--device cuda``) the peak is that of the device.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from sections.figures import compute_ratios, compute_spread, describe_machine, take_turns
from torch import Tensor
from torch.nn import functional

from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.build import build_cross_modal_loss
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.declared import PairLoss
from productrec.losses.engine.mining import MiningRule, MultiSimilarityMining
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.norm_of_hinges import NormOfHinges
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.pair_logistic import PairLogistic
from productrec.losses.pair.sum_of_hinges import SumOfHinges

_LOSSES: dict[str, tuple[PairLoss, MiningRule | None]] = {
    "sum of hinges": (SumOfHinges(), None),
    "max of hinges": (MaxOfHinges(), None),
    "norm of hinges": (NormOfHinges(), None),
    "InfoNCE": (NTXent(), None),
    "InfoNCE, learned temperature": (NTXent(learn_temperature=True), None),
    "pairwise sigmoid": (PairLogistic(), None),
    "Multi-Similarity + mining": (MultiSimilarity(), MultiSimilarityMining()),
    "Circle": (Circle(), None),
}
_ASKED = 2.2  # times one direction, at most
_MIB = 1 << 20


def main() -> None:
    """Measure every loss that was asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096, help="images, and as many titles")
    parser.add_argument("--dim", type=int, default=512, help="dimensions of an embedding")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="losses whose name holds this text")
    parser.add_argument("--memory", action="store_true", help="also peaks of twice and four times the batch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"command: python benchmarks/cross_modal.py {' '.join(sys.argv[1:])}".rstrip())
    device = torch.cuda.get_device_name() if options.device == "cuda" else describe_machine()
    print(f"machine: {device}; {options.threads} threads, float32")
    print(f"batch: {options.batch:,} images and titles of {options.dim} dimensions, every fourth title twice\n")
    print("| loss | both directions: times one | asked at most | both, ms | extra peak, MB: one | both |")
    print("|---|---|---|---|---|---|", flush=True)
    batch = _draw(options.batch, options.dim, options.device)
    for name, (loss, mining) in _LOSSES.items():
        if options.only in name:
            print(_measure(name, CrossModalLoss(loss, mining).to(options.device), batch, options.repeats), flush=True)
    if not options.only or options.only in _WHOLE:
        print(_measure_whole(batch, options.dim, options.repeats), flush=True)
    if options.memory:
        _print_growth(options.batch, options.dim, options.device)


def _measure(name: str, loss: CrossModalLoss, batch: CrossModalBatch, repeats: int) -> str:
    turns = {"one": partial(_run, loss, batch, _compare_one), "both": partial(_run, loss, batch, _compare_both)}
    for turn in turns.values():
        turn()
    seen = take_turns({key: partial(_time, turn, batch) for key, turn in turns.items()}, repeats)
    peaks = {key: f"{_measure_peak(turn, batch):.0f}" for key, turn in turns.items()}
    ratio = compute_ratios(seen["both"], seen["one"])
    milliseconds = compute_spread(seen["both"]).middle * 1e3
    return f"| {name} | {ratio.show()} | {_ASKED} | {milliseconds:.4g} | {peaks['one']} | {peaks['both']} |"


_WHOLE = "objective: max of hinges, bound"


def _measure_whole(batch: CrossModalBatch, dim: int, repeats: int) -> str:
    """The whole objective beside both directions alone: what the logged bound adds."""
    objective = build_cross_modal_loss(MaxOfHinges(), embedding_dim=dim)
    objective.to(batch.images.device)
    turns = {
        "both": partial(_run, objective.loss, batch, _compare_both),
        "all": partial(_run, objective.loss, batch, lambda _, leaves: objective(*vars(leaves).values()).total),
    }
    for turn in turns.values():
        turn()
    seen = take_turns({key: partial(_time, turn, batch) for key, turn in turns.items()}, repeats)
    peaks = {key: f"{_measure_peak(turn, batch):.0f}" for key, turn in turns.items()}
    ratio = compute_ratios(seen["all"], seen["both"])
    milliseconds = compute_spread(seen["all"]).middle * 1e3
    return f"| {_WHOLE} | {ratio.show()} of both | | {milliseconds:.4g} | | {peaks['all']} |"


def _print_growth(count: int, dim: int, device: str) -> None:
    """Peaks at growing batches, inputs and their gradients taken off: linear memory doubles with the batch."""
    print("\n| images and titles | extra peak of both directions, MB | all similarities would be, MB |")
    print("|---|---|---|")
    for rows in (count, 2 * count, 4 * count):
        batch = _draw(rows, dim, device)
        turn = partial(_run, CrossModalLoss(MaxOfHinges()).to(device), batch, _compare_both)
        print(f"| {rows:,} | {_measure_peak(turn, batch):.0f} | {rows * rows * 4 / _MIB:,.0f} |", flush=True)


def _draw(count: int, dim: int, device: str) -> CrossModalBatch:
    """Titles near their images; the titles of every fourth product and of the next are equal."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(count)
    groups = torch.where(numbers % 4 == 1, numbers - 1, numbers)
    centres = torch.randn(count, dim, generator=generator)[groups]
    images, titles = (
        functional.normalize(centres + noise * torch.randn(count, dim, generator=generator), dim=1).to(device)
        for noise in (1.0, 0.5)
    )
    groups = groups.to(device)
    return CrossModalBatch(images, titles, groups, groups)


def _run(
    loss: CrossModalLoss, batch: CrossModalBatch, compare: Callable[[CrossModalLoss, CrossModalBatch], Tensor]
) -> None:
    images, titles = batch.images.detach().requires_grad_(), batch.titles.detach().requires_grad_()
    torch.autograd.backward(compare(loss, CrossModalBatch(images, titles, batch.image_groups, batch.title_groups)))


def _compare_one(loss: CrossModalLoss, batch: CrossModalBatch) -> Tensor:
    return loss.compare_one_way(batch.compare())


def _compare_both(loss: CrossModalLoss, batch: CrossModalBatch) -> Tensor:
    return loss.compare(batch)


def _time(turn: Callable[[], None], batch: CrossModalBatch) -> float:
    _wait(batch)
    started = time.perf_counter()
    turn()
    _wait(batch)
    return time.perf_counter() - started


def _wait(batch: CrossModalBatch) -> None:
    if batch.images.is_cuda:
        torch.cuda.synchronize()


def _measure_peak(turn: Callable[[], None], batch: CrossModalBatch) -> float:
    """Megabytes at the highest, beyond what was there before: of the device, or resident memory."""
    gc.collect()
    if batch.images.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        turn()
        return (torch.cuda.max_memory_allocated() - before) / _MIB
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # else what the warm-up freed is used again and nothing seems to be taken
    Path("/proc/self/clear_refs").write_text("5")
    kilobytes = _read_kilobytes(status, "VmRSS")
    turn()
    return (_read_kilobytes(status, "VmHWM") - kilobytes) / 1024


def _read_kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
