"""Mining: which pairs of a batch a loss may weigh at all; rules of the pair-weighting engine, apart from losses."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import model_validator

from productrec.settings.choices import Choice
from productrec.settings.fields import Count, NonNegative, PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor

# Pairs up to which the count of operations costs more than their work.
_FEW_PAIRS = 1 << 14
_INF, _NAN = float("inf"), float("nan")


class MiningRule(Choice):
    """A rule with its settings, as a recipe chooses it by its ``name``; ``is_random``: whether it draws by chance."""

    name: ClassVar[str]
    is_random: ClassVar[bool] = False

    @classmethod
    def get_name(cls) -> str:
        """What a recipe calls it."""
        return cls.name

    @abstractmethod
    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""

    def for_dimensions(self, embedding_dim: int) -> MiningRule:
        """The rule for embeddings of so many dimensions, where it asks for them."""
        return self


class MultiSimilarityMining(MiningRule):
    r"""Keeps pairs that are hard relative to the anchor's others (Wang et al., CVPR 2019, equations (11) and (12)).

    A negative stays where :math:`S_{ij} > \min_{k \text{ positive}} S_{ik} - \epsilon`, a positive where
    :math:`S_{ij} < \max_{k \text{ negative}} S_{ik} + \epsilon`. An anchor without positives keeps no negatives, and
    the reverse.
    """

    name = "multi_similarity"

    epsilon: NonNegative = setting(0.1, "similarity by which a pair may be easier than the hardest of the other kind")

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        hardest_negative = negatives.amax(dim=1, keepdim=True)
        hardest_positive = positives.amin(dim=1, keepdim=True)
        # Written as "not dropped": a NaN compares as false, so it is kept and spoils the loss where everyone sees it.
        positives.masked_fill_(positives >= hardest_negative + self.epsilon, _INF)
        drop_up_to(negatives, hardest_positive - self.epsilon)


class HardestMining(MiningRule):
    """Keeps each anchor's least similar positive and most similar negative ("batch hard", Hermans et al. 2017)."""

    name = "hardest"

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        _keep_one(positives, positives.argmin(dim=1, keepdim=True), _INF)
        _keep_one(negatives, negatives.argmax(dim=1, keepdim=True), -_INF)


class EasyPositiveMining(MiningRule):
    """Keeps each anchor's most similar positive (Xuan et al., WACV 2020), and all negatives or the hardest one."""

    name = "easy_positive"

    hardest_negative: bool = setting(False, "keep the most similar negative alone, too")

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        present = positives.masked_fill(positives == _INF, -_INF)
        _keep_one(positives, present.argmax(dim=1, keepdim=True), _INF)
        if self.hardest_negative:
            _keep_one(negatives, negatives.argmax(dim=1, keepdim=True), -_INF)


class SemiHardMining(MiningRule):
    """Keeps negatives that are semi-hard for a positive: less similar than it by less than ``margin`` (FaceNet, 2015).

    A negative stays where this holds for any positive of the anchor; all positives stay.
    """

    name = "semi_hard"

    margin: PositiveFloat = setting(0.1, "similarity by which a semi-hard negative is below a positive at most")

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        kept = negatives.isnan()  # a NaN is kept and spoils the loss where everyone sees it
        for column in range(positives.shape[1]):
            positive = positives[:, column : column + 1]
            kept |= ~((negatives >= positive) | (negatives <= positive - self.margin))
        negatives.masked_fill_(~kept, -_INF)


class DistanceWeightedMining(MiningRule):
    r"""Draws negatives evenly over distances (Wu et al., ICCV 2017, section 4), as many as an anchor has positives.

    On the unit sphere in ``dimension`` dimensions a random pair has distance d with density
    :math:`q(d) \propto d^{D-2} (1 - d^2/4)^{(D-3)/2}`; a negative is drawn with weight :math:`1 / q(d)`, where d is at
    least ``nearest``, and never beyond ``farthest``. By torch's global generator.
    """

    name = "distance_weighted"
    is_random = True

    dimension: Count = setting(0, "dimensions of the sphere, at least 3; 0: those of the embeddings")
    nearest: PositiveFloat = setting(0.5, "distance below which a negative counts as this far")
    farthest: PositiveFloat = setting(1.4, "distance beyond which no negative is drawn, at most 2")

    @model_validator(mode="after")
    def _check_sphere(self) -> DistanceWeightedMining:
        if self.dimension in (1, 2) or not self.nearest < self.farthest <= 2:
            raise ValueError(
                "dimension must be 0 or at least 3 and nearest < farthest <= 2; "
                f"got {self.dimension}, {self.nearest} and {self.farthest}."
            )
        return self

    def for_dimensions(self, embedding_dim: int) -> DistanceWeightedMining:
        """See `MiningRule.for_dimensions`."""
        return self if self.dimension else self.model_copy(update={"dimension": max(3, embedding_dim)})

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        import torch

        squared = (2.0 - 2.0 * negatives).clamp_(min=self.nearest**2)
        # Twice the logarithm of q; where a pair is absent or too far there is no weight.
        density = (self.dimension - 2) * squared.log() + (self.dimension - 3) * (1.0 - squared / 4).clamp_(1e-6).log()
        weights = (-density / 2).masked_fill_(~(squared <= self.farthest**2), -_INF)
        count = (positives < _INF).sum(dim=1)
        most = min(int(count.max()), negatives.shape[1])
        if most == 0:
            negatives.fill_(-_INF)
            return
        # The largest of weights with Gumbel noise are a draw without replacement.
        noise = torch.rand_like(weights).clamp_(min=1e-30).log_().neg_().log_().neg_()
        chosen, columns = (weights + noise).topk(most, dim=1)
        wanted = (torch.arange(most, device=count.device) < count[:, None]) & (chosen > -_INF)
        kept = negatives.gather(1, columns).masked_fill_(~wanted, -_INF)
        spoilt = negatives.isnan().any(dim=1, keepdim=True)
        negatives.fill_(-_INF).scatter_(1, columns, kept).masked_fill_(spoilt, _NAN)


class BandMining(MiningRule):
    """Keeps negatives whose similarity lies in a band, for instance to leave out suspected wrong labels above it."""

    name = "band"

    low: float = setting(-1.0, "similarity up to which negatives are left out")
    high: float = setting(1.0, "similarity above which negatives are left out, as suspected wrong labels")

    @model_validator(mode="after")
    def _check_band(self) -> BandMining:
        if not self.low < self.high:
            raise ValueError(f"low must be below high; got {self.low} and {self.high}.")
        return self

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """See `Mining.drop`."""
        drop_up_to(negatives, negatives.new_full((len(negatives), 1), self.low))
        negatives.masked_fill_(negatives > self.high, -_INF)


def drop_up_to(negatives: Tensor, marks: Tensor) -> None:
    """Write -inf over the entries of (b, M) that are not above their row's mark (b, 1); NaN stays.

    Large ones by a shift and a threshold: on a CPU a comparison and a masked fill cost several times as much.
    """
    if negatives.numel() <= _FEW_PAIRS:
        negatives.masked_fill_(negatives <= marks, -_INF)
        return
    import torch

    limit = torch.finfo(negatives.dtype).max / 4  # an infinite mark would make NaN on the way back
    marks = marks.clamp(-limit, limit)
    negatives.sub_(marks)
    torch.threshold_(negatives, 0.0, -_INF)
    negatives.add_(marks)


def _keep_one(similarities: Tensor, columns: Tensor, absent: float) -> None:
    kept = similarities.gather(1, columns)
    similarities.fill_(absent).scatter_(1, columns, kept)


MINING_RULES: dict[str, type[MiningRule]] = {
    rule.name: rule
    for rule in (
        MultiSimilarityMining,
        SemiHardMining,
        HardestMining,
        EasyPositiveMining,
        DistanceWeightedMining,
        BandMining,
    )
}
