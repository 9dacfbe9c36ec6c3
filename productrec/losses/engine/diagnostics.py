"""Diagnostics: which pairs of a batch drive a loss, and how far its classes stand apart."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from productrec.losses.engine.comparison import Comparison, fit_comparison
from productrec.losses.engine.pair_weighting import PairWalk
from productrec.losses.engine.weighing import Mining, PairWeighting

# A pair is active if its weight is more than this share of its anchor's largest, and more than nothing.
_ACTIVE_SHARE, _NOTHING = 1e-3, 1e-6


class Pair(NamedTuple):
    """A pair by its rows; ``weight``: its dL/dS, below 0 where it is pulled together, above 0 where it is pushed apart.

    Where only similarity decided (the hardest pairs), ``weight`` is NaN.
    """

    anchor: int
    reference: int
    is_positive: bool
    similarity: float
    weight: float


class PairDiagnostics(NamedTuple):
    """What the pairs of a batch look like.

    ``active_share``: of all pairs, those that have a weight (more than a thousandth of their anchor's largest); the
    mean similarities are NaN, and the hardest None, where there is no such pair.
    """

    active_share: float
    positive_similarity: float
    negative_similarity: float
    hardest_positive: Pair | None
    hardest_negative: Pair | None


def diagnose_pairs(comparison: Comparison, loss: PairWeighting, *, mining: Mining | None = None) -> PairDiagnostics:
    """Look at the pairs of a batch, in blocks; arguments and errors as for `compute_pair_loss`.

    It goes through the batch again and reads numbers from the device: for once in a while, not for every step.
    """
    with torch.no_grad(), torch.autocast(comparison.embeddings.device.type, enabled=False):
        walk = PairWalk(fit_comparison(comparison, loss, mining), loss, mining)
        tally = PairTally()
        for start, stop in walk.blocks:
            near, far = walk.take(start, stop, mined=False)
            columns = walk.find_columns(start, stop)
            tally.look(start, near, far, columns)
            block = walk.weigh(start, stop)
            tally.weigh(block.weights if block.scales is None else block.weights * block.scales)
        return tally.finish()


def list_driving_pairs(
    comparison: Comparison, loss: PairWeighting, *, count: int = 20, mining: Mining | None = None
) -> list[Pair]:
    """The ``count`` pairs of largest weight, largest first; other arguments and errors as for `compute_pair_loss`."""
    labels, classes = comparison.labels, comparison.compared_labels
    with torch.no_grad(), torch.autocast(comparison.embeddings.device.type, enabled=False):
        walk = PairWalk(fit_comparison(comparison, loss, mining), loss, mining)
        pairs: list[Pair] = []
        for start, stop in walk.blocks:
            block = walk.weigh(start, stop)
            scaled = block.weights if block.scales is None else block.weights * block.scales
            largest = scaled.abs().flatten().topk(min(count, scaled.numel()))
            rows, columns = largest.indices // scaled.shape[1], largest.indices % scaled.shape[1]
            similarities = (walk.anchors[start + rows] * walk.references[columns]).sum(dim=1)
            for row, column, similarity in zip(rows.tolist(), columns.tolist(), similarities.tolist(), strict=True):
                weight = float(scaled[row, column])
                if weight:
                    alike = bool(labels[start + row] == classes[column])
                    pairs.append(Pair(start + row, column, alike, similarity, weight))
            pairs = heapq.nlargest(count, pairs, key=lambda pair: abs(pair.weight))
        divisor = float(walk.get_divisor())
        return [pair._replace(weight=pair.weight / divisor) for pair in pairs]


class PairTally:
    """Adds up what blocks of pairs look like."""

    def __init__(self) -> None:
        self._positives, self._negatives, self._active = _Side(is_positive=True), _Side(is_positive=False), 0

    def look(self, start: int, near: Tensor, far: Tensor, columns: Tensor) -> None:
        """A block of anchors from row ``start``.

        Args:
            start: first anchor.
            near: (b, P) similarities of positives, +inf where there is none.
            far: (b, M) similarities of negatives, -inf where there is none.
            columns: (b, P), which of the M references the positives are.
        """
        self._positives.add(start, near, columns)
        self._negatives.add(start, far, None)

    def weigh(self, weights: Tensor) -> None:
        """Weights (b, M) of the block's pairs, dL/dS of an anchor's loss."""
        sizes = weights.abs()
        marks = (sizes.amax(dim=1, keepdim=True) * _ACTIVE_SHARE).clamp(min=_NOTHING)
        self._active += int((sizes > marks).sum())

    def finish(self) -> PairDiagnostics:
        """What all blocks together look like."""
        positives, negatives = self._positives, self._negatives
        pairs = positives.count + negatives.count
        share = self._active / pairs if pairs else 0.0
        return PairDiagnostics(share, positives.mean, negatives.mean, positives.hardest, negatives.hardest)


class _Side:
    """Mean and hardest of the similarities of the positives, or of the negatives, block by block."""

    def __init__(self, *, is_positive: bool) -> None:
        self._is_positive = is_positive
        self._sum, self.count = 0.0, 0
        self.hardest: Pair | None = None

    @property
    def mean(self) -> float:
        return self._sum / self.count if self.count else float("nan")

    def add(self, start: int, table: Tensor, columns: Tensor | None) -> None:
        present = table != (torch.inf if self._is_positive else -torch.inf)
        self.count += int(present.sum())
        self._sum += float(table.masked_fill(~present, 0.0).sum())
        position = int(table.argmin() if self._is_positive else table.argmax())
        row, column = divmod(position, table.shape[1])
        similarity = float(table[row, column])
        sign = 1.0 if self._is_positive else -1.0
        is_harder = self.hardest is None or similarity * sign < self.hardest.similarity * sign
        if bool(present[row, column]) and is_harder:
            reference = column if columns is None else int(columns[row, column])
            self.hardest = Pair(start + row, reference, self._is_positive, similarity, float("nan"))
