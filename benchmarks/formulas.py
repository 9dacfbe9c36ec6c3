"""Benchmark of derivatives written by hand: each loss's `weigh` beside its formula, differentiated inside the block.

Both in turns in one run, forward and backward, for every pair loss that has both; ratios are formula over hand.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

import torch
from sections.figures import compute_ratios, describe_machine, take_turns
from torch import Tensor
from torch.nn import functional

from productrec.losses.catalogue import list_pair_losses
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import Mining, PairWeighting, RelatedPairWeighting

_PK, _DIM = 4, 128  # images a class, dimensions


class _Formula(PairWeighting):
    """A loss by its formula alone."""

    def __init__(self, loss: PairWeighting) -> None:
        self._loss = loss
        self.few_columns = loss.few_columns  # type: ignore[misc]
        self.needs_unit_norm = loss.needs_unit_norm  # type: ignore[misc]

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self._loss.compute(positives, negatives)


def main() -> None:
    """Measure every loss at every size and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default="256,1024,4096", help="batches, by their embeddings")
    parser.add_argument("--only", default="", help="losses whose name holds this text")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = [int(size) for size in options.sizes.split(",")]
    print(f"command: python benchmarks/formulas.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; {options.threads} threads, float32, D {_DIM}, {_PK} images a class\n")
    print(f"| loss | {' | '.join(f'N {size:,}' for size in sizes)} |")
    print("|---|" + "---|" * len(sizes), flush=True)
    for name, (loss, mining) in list_pair_losses().items():
        has_both = type(loss).weigh.__module__.startswith("productrec.losses.pair.")  # by hand, beside the formula
        if options.only in name and has_both and not isinstance(loss, RelatedPairWeighting):
            cells = [_compare(loss, mining, size, options.repeats) for size in sizes]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _compare(loss: PairWeighting, mining: Mining | None, count: int, repeats: int) -> str:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) // _PK
    rows = functional.normalize(torch.randn(count, _DIM, generator=generator), dim=1)
    times = max(1, 2048 // count)
    turns = {
        "hand": partial(_time, rows, labels, loss, mining, times),
        "formula": partial(_time, rows, labels, _Formula(loss), mining, times),
    }
    for turn in turns.values():
        turn()
    seen = take_turns(turns, repeats)
    return compute_ratios(seen["formula"], seen["hand"]).show(2)


def _time(rows: Tensor, labels: Tensor, loss: PairWeighting, mining: Mining | None, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        leaf = rows.detach().requires_grad_()
        torch.autograd.backward(compute_pair_loss(Comparison(leaf, labels), loss, mining=mining))
    return (time.perf_counter() - started) / times


if __name__ == "__main__":
    main()
