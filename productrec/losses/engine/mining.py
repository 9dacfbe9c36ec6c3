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
class SemiHardMining:
    """Keeps negatives that are semi-hard for a positive: less similar than it by less than ``margin`` (FaceNet, 2015).

    A negative stays where this holds for any positive of the anchor; all positives stay.
    """

    margin: float = 0.1

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        kept = torch.zeros_like(negatives, dtype=torch.bool)
        for place in range(positives.shape[1]):
            positive = positives[:, place : place + 1]
            # Written so that a NaN is kept and spoils the loss where everyone sees it.
            kept |= ~((negatives >= positive) | (negatives <= positive - self.margin))
        negatives.masked_fill_(~kept, -torch.inf)


@dataclass(frozen=True)
class DistanceWeightedMining:
    r"""Draws negatives evenly over distances (Wu et al., ICCV 2017, section 4), as many as an anchor has positives.

    On the unit sphere in ``dimension`` dimensions a random pair has distance d with density
    :math:`q(d) \propto d^{D-2} (1 - d^2/4)^{(D-3)/2}`; a negative is drawn with weight :math:`1 / q(d)`, where d is at
    least ``nearest``, and never beyond ``farthest``. By torch's global generator.
    """

    dimension: int
    nearest: float = 0.5
    farthest: float = 1.4

    def __post_init__(self) -> None:
        """Refuse a sphere without directions and an empty range."""
        if self.dimension < 3 or not 0 < self.nearest < self.farthest <= 2:
            raise RecipeError(
                "distance-weighted mining: dimension must be at least 3 and 0 < nearest < farthest <= 2; "
                f"got {self.dimension}, {self.nearest} and {self.farthest}."
            )

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        squared = (2.0 - 2.0 * negatives).clamp_(min=self.nearest**2)
        # Twice the logarithm of q; where a pair is absent or too far there is no weight.
        density = (self.dimension - 2) * squared.log() + (self.dimension - 3) * (1.0 - squared / 4).clamp_(1e-6).log()
        weights = (-density / 2).masked_fill_(~(squared <= self.farthest**2), -torch.inf)
        count = (positives < torch.inf).sum(dim=1)
        most = min(int(count.max()), negatives.shape[1])
        if most == 0:
            negatives.fill_(-torch.inf)
            return
        # The largest of weights with Gumbel noise are a draw without replacement.
        noise = torch.rand_like(weights).clamp_(min=1e-30).log_().neg_().log_().neg_()
        chosen, columns = (weights + noise).topk(most, dim=1)
        wanted = (torch.arange(most, device=count.device) < count[:, None]) & (chosen > -torch.inf)
        kept = negatives.gather(1, columns).masked_fill_(~wanted, -torch.inf)
        spoilt = negatives.isnan().any(dim=1, keepdim=True)
        negatives.fill_(-torch.inf).scatter_(1, columns, kept).masked_fill_(spoilt, torch.nan)


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
