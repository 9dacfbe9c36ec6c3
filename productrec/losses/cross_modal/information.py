"""What InfoNCE says of the mutual information between images and titles."""

from __future__ import annotations

from torch import Tensor

from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import PairWeighting, Weighed


class InformationGap(PairWeighting):
    r"""The InfoNCE loss of each positive pair minus the logarithm of its candidates, the mean over positive pairs.

    .. math:: -\log \frac{e^{p / \tau}}{e^{p / \tau} + \sum_n e^{n / \tau}} - \log(1 + |n|)
    """

    def __init__(self, temperature: float | Tensor) -> None:
        self.temperature = temperature

    def compute(self, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairWeighting.compute`."""
        from torch.nn.functional import softplus

        present = positives < float("inf")
        candidates = 1.0 + (negatives > -float("inf")).sum(dim=1, keepdim=True)
        against = (negatives / self.temperature).logsumexp(dim=1, keepdim=True)
        gaps = softplus(against - positives / self.temperature) - candidates.log()
        return gaps.masked_fill(~present, 0.0).sum(dim=1), present.sum(dim=1)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`; without derivatives, which nobody asks for."""
        losses, counts = self.compute(positives, negatives)
        return Weighed(losses, positives.zero_(), negatives, counts)


def compute_information_bound(batch: CrossModalBatch, *, temperature: float | Tensor = 0.07) -> Tensor:
    r"""A lower bound on the mutual information between images and titles, as this batch estimates it, in nats.

    .. math:: I \ge \log N - L

    with the InfoNCE loss L of one positive among N candidates (van den Oord et al. 2018, section 2.3), for any
    temperature: the better it fits, the tighter the bound. It never passes :math:`\log N`, however much the towers
    know, so only a large batch can show much. Between one and the other direction, both of which are bounds, it is the
    mean.

    Where an anchor has several positives, each pair is looked at alone: its candidates are the positive and the
    anchor's negatives, the other positives left out, so that N may differ from pair to pair; the mean is over pairs.
    Negatives of other groups are drawn from all titles but the anchor's own, which is what the bound asks for only as
    far as equal titles are rare.

    Args:
        batch: with at least one image and one title.
        temperature: similarities are divided by it.

    Returns:
        Scalar without a graph; 0 where there is no positive pair.
    """
    there = batch.compare()
    gaps = [compute_pair_loss(_detach(way), InformationGap(temperature)) for way in (there, there.swap())]
    return -(gaps[0] + gaps[1]) / 2


def _detach(way: Comparison) -> Comparison:
    references = None if way.references is None else way.references.detach()
    return Comparison(way.embeddings.detach(), way.labels, references, way.reference_labels)
