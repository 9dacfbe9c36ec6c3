"""What a metric loss is to a recipe: its settings, formula and source, declared once, in the loss's own file.

Nothing heavy is imported here or at the head of a loss's file: a recipe and the command line know every loss without
torch. A file in `losses.pair` or `losses.proxy` holds one class; its name is the loss's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from productrec.losses.engine.weighing import Mining, PairWeighting, RelatedPairWeighting
from productrec.settings.choices import Choice

if TYPE_CHECKING:
    from productrec.losses.engine.module import MetricModule
    from productrec.losses.engine.pair_module import PairModule


class MetricLoss(Choice):
    """A metric loss with its settings.

    ``formula``: what it computes for an anchor (p: its positives, n: its negatives); ``source``: where it is from;
    ``kind``: whether it compares images with images or with learned centres of classes.
    """

    kind: ClassVar[Literal["pair", "proxy"]]
    formula: ClassVar[str]
    source: ClassVar[str]


class PairLoss(MetricLoss, PairWeighting):
    """A loss over the pairs of a batch; ``mined_by``: the mining that ``auto`` means for it."""

    kind = "pair"
    few_columns: ClassVar[bool] = False
    needs_unit_norm: ClassVar[bool] = False
    is_symmetric: ClassVar[bool] = False
    mined_by: ClassVar[str | None] = None

    def build(self, mining: Mining | None, class_count: int) -> PairModule:
        """The module that computes it.

        Args:
            mining: which pairs are weighed at all.
            class_count: C, for what is learned of each class.
        """
        from productrec.losses.engine.pair_module import PairModule

        return PairModule(self, mining)


class RelatedPairLoss(PairLoss, RelatedPairWeighting):
    """A loss in which a pair also looks at the other row's pairs: it takes no mining and no memory."""


class ProxyLoss(MetricLoss):
    """A loss between embeddings and learned centres of classes."""

    kind = "proxy"

    @abstractmethod
    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> MetricModule:
        """The module that computes it and holds the centres.

        Args:
            embedding_dim: D.
            class_count: C.
            class_sizes: (C,) training images of each class, for margins that depend on them.
        """
