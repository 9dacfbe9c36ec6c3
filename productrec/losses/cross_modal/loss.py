"""Any loss over pairs between images and titles, both directions as one objective."""

from __future__ import annotations

from torch import Tensor, nn

from productrec.errors import RecipeError
from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.declared import PairLoss, RelatedPairLoss
from productrec.losses.engine.affine_module import AffinePairModule
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.threshold_module import ThresholdPairModule
from productrec.losses.engine.weighing import Mining

# Asked of a loss to see whether it learns a number for each class.
_CLASSES = 2


class CrossModalLoss(nn.Module):
    """A loss over pairs with images as anchors and titles as references, plus the same with their parts exchanged.

    Each direction is a mean over its anchors (or over pairs, where the loss says so), and the two are added up, as in
    VSE++ (Faghri et al., BMVC 2018); CLIP and SigLIP take half of that. Images are never compared with images, nor
    titles with titles. An anchor without a positive on the other side does what the loss does with it: hinges, NT-Xent
    and Circle have no loss there, Multi-Similarity without its mining and the pairwise sigmoid still push its negatives
    away; it counts among the anchors.

    Args:
        loss: with its settings; what it learns (a temperature, a bias) both directions share.
        mining: which pairs of either direction are weighed at all.

    Raises:
        RecipeError: a loss that weighs a pair by both rows of it, or that learns a number for each class.
    """

    def __init__(self, loss: PairLoss, mining: Mining | None = None) -> None:
        super().__init__()
        name = loss.get_name()
        if isinstance(loss, RelatedPairLoss):
            raise RecipeError(f"{name}: compares a batch with itself only, not images with titles. Choose another.")
        self.pairs = loss.build(mining, _CLASSES)
        if isinstance(self.pairs, ThresholdPairModule) and len(self.pairs.thresholds) == _CLASSES:
            raise RecipeError(
                f"{name}: learns a number for each class, and titles have none. Choose one number for all of them "
                "(beta_of=all), or another loss."
            )

    def forward(self, images: Tensor, titles: Tensor, image_groups: Tensor, title_groups: Tensor) -> Tensor:
        """Scalar loss, float32 or float64; 0 where there is no image or no title. Arguments as `CrossModalBatch`.

        Raises:
            TrainingError: the batch does not fit together.
        """
        return self.compare(CrossModalBatch(images, titles, image_groups, title_groups))

    def compare(self, batch: CrossModalBatch) -> Tensor:
        """Scalar loss of a batch."""
        if not batch.has_both:
            return batch.make_zero()
        return self.pairs.compare(batch.compare(), both_ways=True)

    @property
    def temperature(self) -> float | Tensor | None:
        """What similarities are divided by, for a loss that has such a number; a tensor where it is learned."""
        if isinstance(self.pairs, AffinePairModule):
            return (-self.pairs.log_scale.detach()).exp()
        temperature: float | None = getattr(self.pairs.loss, "temperature", None)
        return temperature

    def compare_one_way(self, comparison: Comparison) -> Tensor:
        """Scalar loss of one direction, as against a memory."""
        return self.pairs.compare(comparison)
