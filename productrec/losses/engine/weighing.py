"""What a loss over pairs, and a rule that mines them, are to the pair-weighting engine.

Nothing heavy is imported here: a recipe knows the losses without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from productrec.losses.engine.comparison import Comparison


class Weighed(NamedTuple):
    """What a loss says of a block of anchors.

    ``losses``: (b,), one an anchor; ``positives``: (b, P) and ``negatives``: (b, M), the derivative of an anchor's loss
    by each similarity; ``counts``: (b,), where the loss is a mean over counted pairs or triplets and not over anchors;
    ``scales``: (b, 1), a factor of both derivatives, which costs less here than a pass over (b, M); ``thresholds``:
    (b,), the derivative of an anchor's loss by its threshold, where it has one (``scales`` are no factor of it).
    """

    losses: Tensor
    positives: Tensor
    negatives: Tensor
    counts: Tensor | None = None
    scales: Tensor | None = None
    thresholds: Tensor | None = None


class PairWeighting:
    """A loss over pairs, told by what it does with a block of anchors.

    It says so by `weigh`, with derivatives written by hand, or by `compute`, its formula, which is then differentiated
    inside the block. ``few_columns``: it goes through the positives one by one and is handed as few columns of them as
    there can be; ``needs_unit_norm``: embeddings of another length are refused (on the CPU); ``is_symmetric``: it is a
    mean over anchors of a sum over pairs, each by its own similarity alone, so that both ways of a comparison are one.
    """

    few_columns: ClassVar[bool] = False
    needs_unit_norm: ClassVar[bool] = False
    is_symmetric: ClassVar[bool] = False

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The losses (b,) of b anchors, and their counts (b,) where it is a mean over counted pairs or triplets.

        Args:
            positives: (b, P) similarities; +inf where an anchor has fewer than P.
            negatives: (b, M) similarities; -inf in the places of positives and of the anchor itself.

        What is absent or not mined is infinitely right, so that exponentials and hinges leave it out by themselves.
        """
        raise TypeError(f"{type(self).__name__} must have a method compute(positives, negatives) or weigh.")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """The losses of b anchors with their derivatives; arguments as for `compute`.

        Both may be written over. A derivative by what is absent must be 0 and finite.
        """
        from productrec.losses.engine.formula import differentiate

        return differentiate(self.compute, positives, negatives)

    def complete(self, comparison: Comparison, mining: Mining | None) -> Comparison:
        """The comparison with what the loss finds in the whole batch before it is weighed, block by block."""
        return comparison


class ThresholdWeighting(PairWeighting):
    """A loss with one more number an anchor than its pairs: `Comparison.thresholds`, learned or found in the batch.

    Where there are none it is computed as the loss says of itself.
    """

    def compute(
        self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `PairWeighting.compute`, with the anchors' thresholds (b,)."""
        raise TypeError(f"{type(self).__name__} must have a method compute with thresholds, or weigh.")

    def weigh(self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> Weighed:
        """As `PairWeighting.weigh`, with the anchors' thresholds (b,)."""
        from productrec.losses.engine.formula import differentiate

        return differentiate(self.compute, positives, negatives, thresholds)


class RelatedPairWeighting(PairWeighting, ABC):
    """A loss in which a pair also looks at the other row's pairs; among the anchors themselves only."""

    @abstractmethod
    def summarise(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """What other rows need of an anchor, (b,), of its pairs as in `PairWeighting.compute`; writes over nothing."""

    @abstractmethod
    def weigh_related(self, positives: Tensor, negatives: Tensor, own: Tensor, others: Tensor) -> Weighed:
        """As `PairWeighting.weigh`, with the anchors' summaries (b,), and those of their positives (b, P)."""


class Mining(Protocol):
    """A rule that drops pairs of a block before they are weighed."""

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """Write +inf over positives (b, P), and -inf over negatives (b, M), that are not to be weighed."""
        ...
