"""What a loss over pairs, and a rule that mines them, are to the pair-weighting engine."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple, Protocol

from torch import Tensor

from productrec.errors import RecipeError


class Weighed(NamedTuple):
    """What a loss says of a block of anchors.

    ``losses``: (b,), one an anchor; ``positives``: (b, P) and ``negatives``: (b, M), the derivative of an anchor's loss
    by each similarity; ``counts``: (b,), where the loss is a mean over counted pairs or triplets and not over anchors.
    """

    losses: Tensor
    positives: Tensor
    negatives: Tensor
    counts: Tensor | None = None
    scales: Tensor | None = None


class PairLoss(Protocol):
    """A loss over pairs, told by what it does with a block of anchors.

    Optional class attributes: with ``goes_by_positive = True`` it is handed as few columns of positives as there can
    be, with ``needs_unit_norm = True`` embeddings of another length are refused (on the CPU). An optional method
    ``for_anchors(start, stop)`` gives the loss of a block, where its settings differ by anchor.
    """

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """Weigh the pairs of b anchors.

        Args:
            positives: (b, P) similarities; +inf where an anchor has fewer than P.
            negatives: (b, M) similarities; -inf in the places of positives and of the anchor itself.

        Both may be written over. What is absent or not mined is infinitely right, so that exponentials and hinges
        give it no weight by themselves; a derivative there must be 0 and finite.
        """
        ...


class RelatedPairLoss(Protocol):
    """A loss in which a pair also looks at the other row's pairs; among the anchors themselves only."""

    def summarise(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """What other rows need of an anchor, (b,), of its pairs as in `PairLoss.weigh`; writes over nothing."""
        ...

    def weigh_related(self, positives: Tensor, negatives: Tensor, own: Tensor, others: Tensor) -> Weighed:
        """As `PairLoss.weigh`, with the anchors' summaries (b,), and those of their positives (b, P)."""
        ...


class Mining(Protocol):
    """A rule that drops pairs of a block before they are weighed."""

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        """Write +inf over positives (b, P), and -inf over negatives (b, M), that are not to be weighed."""
        ...


def check_above_zero(loss: object, *names: str) -> None:
    """Refuse a loss, a dataclass, whose named settings are not above 0.

    Raises:
        RecipeError: with the name and the value.
    """
    for field in fields(loss):  # type: ignore[arg-type]
        value = getattr(loss, field.name)
        if field.name in names and not value > 0:
            raise RecipeError(f"{type(loss).__name__}: {field.name} must be above 0; got {value}.")
