"""Mining: which pairs of a batch a loss may weigh at all; rules of the pair-weighting engine, apart from losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from productrec.errors import RecipeError

# Pairs up to which the count of operations costs more than their work.
_FEW_PAIRS = 1 << 14


@dataclass(frozen=True)
class MultiSimilarityMining:
    r"""Keeps pairs that are hard relative to the anchor's others (Wang et al., CVPR 2019, equations (11) and (12)).

    A negative stays where :math:`S_{ij} > \min_{k \text{ positive}} S_{ik} - \epsilon`, a positive where
    :math:`S_{ij} < \max_{k \text{ negative}} S_{ik} + \epsilon`. An anchor without positives keeps no negatives, and
    the reverse.
    """

    epsilon: float = 0.1

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        hardest_negative = negatives.amax(dim=1, keepdim=True)
        hardest_positive = positives.amin(dim=1, keepdim=True)
        # Written as "not dropped": a NaN compares as false, so it is kept and spoils the loss where everyone sees it.
        positives.masked_fill_(positives >= hardest_negative + self.epsilon, torch.inf)
        drop_up_to(negatives, hardest_positive - self.epsilon)


@dataclass(frozen=True)
class HardestMining:
    """Keeps each anchor's least similar positive and most similar negative ("batch hard", Hermans et al. 2017)."""

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        _keep_one(positives, positives.argmin(dim=1, keepdim=True), torch.inf)
        _keep_one(negatives, negatives.argmax(dim=1, keepdim=True), -torch.inf)


@dataclass(frozen=True)
class EasyPositiveMining:
    """Keeps each anchor's most similar positive (Xuan et al., WACV 2020), and all negatives or the hardest one."""

    hardest_negative: bool = False

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        present = positives.masked_fill(positives == torch.inf, -torch.inf)
        _keep_one(positives, present.argmax(dim=1, keepdim=True), torch.inf)
        if self.hardest_negative:
            _keep_one(negatives, negatives.argmax(dim=1, keepdim=True), -torch.inf)


@dataclass(frozen=True)
class BandMining:
    """Keeps negatives whose similarity lies in a band, for instance to leave out suspected wrong labels above it."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a band that is empty."""
        if not self.low < self.high:
            raise RecipeError(f"band mining: low must be below high; got {self.low} and {self.high}.")

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        drop_up_to(negatives, negatives.new_full((len(negatives), 1), self.low))
        negatives.masked_fill_(negatives > self.high, -torch.inf)


def drop_up_to(negatives: Tensor, marks: Tensor) -> None:
    """Write -inf over the entries of (b, M) that are not above their row's mark (b, 1); NaN stays.

    Large ones by a shift and a threshold: on a CPU a comparison and a masked fill cost several times as much.
    """
    if negatives.numel() <= _FEW_PAIRS:
        negatives.masked_fill_(negatives <= marks, -torch.inf)
        return
    limit = torch.finfo(negatives.dtype).max / 4  # an infinite mark would make NaN on the way back
    marks = marks.clamp(-limit, limit)
    negatives.sub_(marks)
    torch.threshold_(negatives, 0.0, -torch.inf)
    negatives.add_(marks)


def _keep_one(similarities: Tensor, columns: Tensor, absent: float) -> None:
    kept = similarities.gather(1, columns)
    similarities.fill_(absent).scatter_(1, columns, kept)
