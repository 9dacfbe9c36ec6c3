"""The pair-weighting engine: value and gradient of any loss over pairs, block by block, never the whole (N, M) matrix.

General Pair Weighting (Wang et al., CVPR 2019, section 3) reads every pair-based loss as a way to weigh pairs: its
gradient is the sum over pairs of ``dL/dS_ij`` times the gradient of the similarity ``S_ij``. So a loss is written here
as what it does with the similarities of a few anchors (`PairLoss.weigh`), and the engine does the rest.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from productrec.losses.engine.batch import choose_computing_dtype, leave_autocast
from productrec.losses.engine.gradient import hand_over_gradients, keep_gradients
from productrec.losses.engine.pair_checks import check_pairs, explain_not_finite
from productrec.losses.engine.pair_loss import Mining, PairLoss, RelatedPairLoss, Weighed
from productrec.losses.engine.pairs import find_pairs

# Entries of a block of similarities: on a CPU one that stays in a core's cache is worth twice one that does not, while
# an accelerator wants enough to fill all its cores.
_BLOCK_ENTRIES = 1 << 20
_ACCELERATOR_BLOCK_ENTRIES = 1 << 26
_LEAST_BLOCK_ROWS = 64


def compute_pair_loss(
    embeddings: Tensor,
    labels: Tensor,
    loss: PairLoss | RelatedPairLoss,
    *,
    mining: Mining | None = None,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    own_rows: Tensor | None = None,
    block_rows: int | None = None,
) -> Tensor:
    r"""Mean over the anchors of a loss over pairs, with its gradient, in linear memory.

    With :math:`S_{ij} = e_i \cdot r_j`, anchor i has the positives of its own class and the negatives of every other
    class among the references; itself it never meets. The gradient is made in the forward pass, because a row's loss
    depends on its own row alone: with :math:`W_{ij} = \partial L / \partial S_{ij}` it is :math:`W r` for the anchors
    and :math:`W^\top e` for the references. Memory is O((N + M) D) and one block of similarities. Computed in float32
    whatever autocast says (float64 stays float64). There is no second
    derivative: asking for one raises.

    Args:
        embeddings: (N, D) anchors.
        labels: (N,) integers; only equality matters.
        loss: how pairs are weighed.
        mining: which pairs are weighed at all; None for every one.
        references: (M, D) that anchors are compared with: a gathered batch, a memory, the other modality; None for the
            anchors themselves.
        reference_labels: (M,), with ``references``.
        own_rows: (N,) integers, with ``references``: the row of each anchor among them, -1 where it is not there.
        block_rows: anchors at a time; None chooses.

    Returns:
        Scalar, float32 or float64: the sum over anchors divided by N, or by the sum of the counts where the loss
        counts (then 0 where nothing counts).

    Raises:
        TrainingError: shapes, types or devices do not fit, or, on the CPU, an embedding is not finite or a row of
            ``own_rows`` is not among the references.
    """
    check_pairs("pair loss", embeddings, labels, loss, mining, references, reference_labels, own_rows)
    with leave_autocast(embeddings.device.type):
        value: Tensor = _PairLossFunction.apply(
            embeddings, references, labels, reference_labels, own_rows, loss, mining, block_rows
        )
    return value


def compute_pair_weights(
    embeddings: Tensor,
    labels: Tensor,
    loss: PairLoss | RelatedPairLoss,
    *,
    mining: Mining | None = None,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    own_rows: Tensor | None = None,
) -> Tensor:
    """The signed weight of every pair, dL/dS (N, M): what `compute_pair_loss` multiplies embeddings with.

    Arguments and errors as for `compute_pair_loss`. For looking at a batch: it holds the whole matrix.
    """
    check_pairs("pair weights", embeddings, labels, loss, mining, references, reference_labels, own_rows)
    with torch.no_grad(), leave_autocast(embeddings.device.type):
        walk = PairWalk(embeddings, references, labels, reference_labels, own_rows, loss, mining, None)
        rows = []
        for start, stop in walk.blocks:
            _, weights, scales = walk.weigh(start, stop)
            rows.append(weights.clone() if scales is None else weights * scales)
        return torch.cat(rows) / walk.get_divisor()


class _PairLossFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        references: Tensor | None,
        labels: Tensor,
        reference_labels: Tensor | None,
        own_rows: Tensor | None,
        loss: PairLoss | RelatedPairLoss,
        mining: Mining | None,
        block_rows: int | None,
    ) -> Tensor:
        walk = PairWalk(embeddings, references, labels, reference_labels, own_rows, loss, mining, block_rows)
        wants_anchors, wants_references = ctx.needs_input_grad[:2]
        anchors, compared = walk.anchors, walk.references
        gradient = torch.zeros_like(anchors) if wants_anchors else None
        reference_gradient = torch.zeros_like(compared) if wants_references else None
        total = anchors.new_zeros(())
        for start, stop in walk.blocks:
            losses, weights, scales = walk.weigh(start, stop)
            total += losses.sum()
            if gradient is not None:
                mine = weights @ compared
                gradient[start:stop] += mine if scales is None else mine.mul_(scales)
            theirs = gradient if references is None else reference_gradient
            if theirs is not None:
                block = anchors[start:stop]
                theirs.addmm_(weights.T, block if scales is None else block * scales)
        divisor = walk.get_divisor()
        total /= divisor
        for one in (gradient, reference_gradient):
            if one is not None:
                one /= divisor
        # Reading the number costs a tenth of asking the tensor.
        if total.device.type == "cpu" and not math.isfinite(total.item()):
            explain_not_finite(embeddings, references)
        keep_gradients(ctx, total, (gradient, reference_gradient), (embeddings, references))
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_over_gradients(ctx, outer), None, None, None, None, None, None)


class PairWalk:
    """Anchors and references in the computing type, the blocks to go through, and each block's pairs.

    Arguments as for `compute_pair_loss`, which have been checked.
    """

    def __init__(
        self,
        embeddings: Tensor,
        references: Tensor | None,
        labels: Tensor,
        reference_labels: Tensor | None,
        own_rows: Tensor | None,
        loss: PairLoss | RelatedPairLoss,
        mining: Mining | None,
        block_rows: int | None,
    ) -> None:
        dtype = choose_computing_dtype(*(one for one in (embeddings, references) if one is not None))
        self.anchors = embeddings.detach().to(dtype).contiguous()
        self.references = self.anchors if references is None else references.detach().to(dtype).contiguous()
        count, compared = len(self.anchors), len(self.references)
        entries = _BLOCK_ENTRIES if self.anchors.device.type == "cpu" else _ACCELERATOR_BLOCK_ENTRIES
        rows = min(count, block_rows or max(_LEAST_BLOCK_ROWS, entries // max(1, compared)))
        self.blocks = [(start, min(start + rows, count)) for start in range(0, count, rows)]
        self._scratch = self.anchors.new_empty(rows * compared + 1)
        few_columns = getattr(loss, "goes_by_positive", False)
        self._pairs = find_pairs(labels, reference_labels, own_rows, rows, few_columns=few_columns)
        self._loss, self._mining = loss, mining
        self._counted: Tensor | None = None
        self._taken: tuple[Tensor, Tensor] | None = None  # what the scratch still holds
        self._summaries = self._summarise()

    def weigh(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Losses (b,) of a block of anchors, the weights (b, M) of its pairs, and what to multiply them with (b, 1).

        The weights live in a scratch.
        """
        near, similarities = self._taken or self.take(start, stop)
        self._taken = None
        weighed = self._weigh(start, stop, near, similarities)
        if weighed.negatives.data_ptr() != similarities.data_ptr():
            similarities.copy_(weighed.negatives)
        self._pairs.put(start, stop, self._scratch, weighed.positives.to(similarities.dtype))
        if weighed.counts is not None:
            counted = weighed.counts.sum()
            self._counted = counted if self._counted is None else self._counted + counted
        return weighed.losses, similarities, weighed.scales

    def take(self, start: int, stop: int, *, mined: bool = True) -> tuple[Tensor, Tensor]:
        """Similarities of a block's positives (b, P) and negatives (b, M), in a scratch, after mining or before it."""
        self._taken = None
        similarities = self._scratch[: (stop - start) * len(self.references)].view(stop - start, -1)
        torch.mm(self.anchors[start:stop], self.references.T, out=similarities)
        near = self._pairs.take(start, stop, self._scratch)
        if mined and self._mining is not None:
            self._mining.drop(near, similarities)
        return near, similarities

    def find_columns(self, start: int, stop: int) -> Tensor:
        """The rows of the references that are a block's positives, (b, P); anything where there is none."""
        return self._pairs.look_up(start, stop, torch.arange(len(self.references), device=self.references.device))

    def _weigh(self, start: int, stop: int, near: Tensor, similarities: Tensor) -> Weighed:
        if self._summaries is not None:
            related = cast(RelatedPairLoss, self._loss)
            others = self._pairs.look_up(start, stop, self._summaries)
            return related.weigh_related(near, similarities, self._summaries[start:stop], others)
        loss = cast(PairLoss, self._loss)
        if hasattr(loss, "for_anchors"):
            loss = cast(PairLoss, loss.for_anchors(start, stop))
        return loss.weigh(near, similarities)

    def _summarise(self) -> Tensor | None:
        if not hasattr(self._loss, "summarise"):
            return None
        related = cast(RelatedPairLoss, self._loss)
        if len(self.blocks) > 1:
            return torch.cat([related.summarise(*self.take(start, stop)) for start, stop in self.blocks])
        taken = self.take(*self.blocks[0])
        summaries = related.summarise(*taken)
        self._taken = taken  # a summary writes over nothing: a lone block is weighed as it lies there
        return summaries

    def get_divisor(self) -> Tensor | int:
        """What sums over anchors are divided by."""
        return len(self.anchors) if self._counted is None else self._counted.clamp(min=1)
