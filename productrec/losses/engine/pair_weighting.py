"""The pair-weighting engine: value and gradient of any loss over pairs, block by block, never the whole (N, M) matrix.

General Pair Weighting (Wang et al., CVPR 2019, section 3) reads every pair-based loss as a way to weigh pairs: its
gradient is the sum over pairs of ``dL/dS_ij`` times the gradient of the similarity ``S_ij``. So a loss is written here
as what it does with the similarities of a few anchors (`PairWeighting`), and the engine does the rest.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from productrec.losses.engine.batch import choose_computing_dtype, leave_autocast
from productrec.losses.engine.comparison import Comparison, fit_comparison, refuse_not_finite
from productrec.losses.engine.gradient import hand_over_gradients, keep_gradients
from productrec.losses.engine.pairs import find_pairs
from productrec.losses.engine.weighing import Mining, PairWeighting, RelatedPairWeighting, ThresholdWeighting, Weighed

# Entries of a block of similarities: on a CPU one that stays in a core's cache is worth twice one that does not, while
# an accelerator wants enough to fill all its cores.
_BLOCK_ENTRIES = 1 << 20
_ACCELERATOR_BLOCK_ENTRIES = 1 << 26
_LEAST_BLOCK_ROWS = 64


def compute_pair_loss(
    comparison: Comparison,
    loss: PairWeighting,
    *,
    mining: Mining | None = None,
    both_ways: bool = False,
    block_rows: int | None = None,
) -> Tensor:
    r"""Mean over the anchors of a loss over pairs, with its gradient, in linear memory.

    The gradient is made in the forward pass, because a row's loss depends on its own row alone: with
    :math:`W_{ij} = \partial L / \partial S_{ij}` it is :math:`W r` for the anchors and :math:`W^\top e` for the
    references; a threshold's comes from its anchor alone. Memory is O((N + M) D) and one block of similarities.
    Computed in float32 whatever autocast says (float64 stays float64). There is no second derivative: asking for one
    raises.

    Args:
        comparison: anchors, and what they are compared with.
        loss: how pairs are weighed.
        mining: which pairs are weighed at all; None for every one.
        both_ways: add the loss of the references against the anchors (image to text and text to image, VSE++), a mean
            over the references. Where all similarities are one block, they are computed once for both ways.
        block_rows: anchors at a time; None chooses.

    Returns:
        Scalar, float32 or float64: the sum over anchors divided by N, or by the sum of the counts where the loss
        counts (then 0 where nothing counts).

    Raises:
        TrainingError: the loss cannot take this comparison or mining, or has no other way (`Comparison.swap`), or, on
            the CPU, an embedding is not finite.
    """
    if both_ways:
        return _compute_both_ways(comparison, loss, mining, block_rows)
    with leave_autocast(comparison.embeddings.device.type):
        comparison = fit_comparison(comparison, loss, mining)
        value: Tensor = _PairLossFunction.apply(
            comparison.embeddings, comparison.references, comparison.thresholds, comparison, loss, mining, block_rows
        )
    return value


def _compute_both_ways(
    comparison: Comparison, loss: PairWeighting, mining: Mining | None, block_rows: int | None
) -> Tensor:
    swapped = comparison.swap()
    if loss.is_symmetric and mining is None:  # the same sum, as a mean over the references
        there = compute_pair_loss(comparison, loss, block_rows=block_rows)
        return there * (1 + len(comparison.labels) / len(swapped.labels))
    ways = (comparison, swapped)
    with leave_autocast(comparison.embeddings.device.type):
        # What a loss finds in the whole batch (thresholds) has a gradient of its own.
        if all(_is_one_block(way, block_rows) and fit_comparison(way, loss, mining) is way for way in ways):
            walks = [PairWalk(way, loss, mining, block_rows) for way in ways]
            value: Tensor = _BothWaysFunction.apply(comparison.embeddings, comparison.references, comparison, walks)
            return value
    there, back = (compute_pair_loss(way, loss, mining=mining, block_rows=block_rows) for way in ways)
    return there + back


def _is_one_block(comparison: Comparison, block_rows: int | None) -> bool:
    count, compared = len(comparison.labels), len(comparison.compared_labels)
    return count <= _choose_block_rows(compared, comparison.embeddings.device, block_rows)


def _choose_block_rows(compared: int, device: torch.device, block_rows: int | None) -> int:
    """Anchors at a time, for so many references."""
    entries = _BLOCK_ENTRIES if device.type == "cpu" else _ACCELERATOR_BLOCK_ENTRIES
    return block_rows or max(_LEAST_BLOCK_ROWS, entries // max(1, compared))


def compute_pair_weights(comparison: Comparison, loss: PairWeighting, *, mining: Mining | None = None) -> Tensor:
    """The signed weight of every pair, dL/dS (N, M): what `compute_pair_loss` multiplies embeddings with.

    Arguments and errors as for `compute_pair_loss`. For looking at a batch: it holds the whole matrix.
    """
    with torch.no_grad(), leave_autocast(comparison.embeddings.device.type):
        comparison = fit_comparison(comparison, loss, mining)
        walk = PairWalk(comparison, loss, mining)
        rows = []
        for start, stop in walk.blocks:
            block = walk.weigh(start, stop)
            rows.append(block.weights.clone() if block.scales is None else block.weights * block.scales)
        return torch.cat(rows) / walk.get_divisor()


class _PairLossFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        references: Tensor | None,
        thresholds: Tensor | None,
        comparison: Comparison,
        loss: PairWeighting,
        mining: Mining | None,
        block_rows: int | None,
    ) -> Tensor:
        """``embeddings``, ``references`` and ``thresholds`` are the comparison's: autograd sees arguments alone."""
        walk = PairWalk(comparison, loss, mining, block_rows)
        wants_anchors, wants_references, wants_thresholds = ctx.needs_input_grad[:3]
        anchors, compared = walk.anchors, walk.references
        gradient = torch.zeros_like(anchors) if wants_anchors else None
        reference_gradient = torch.zeros_like(compared) if wants_references else None
        slopes = anchors.new_zeros(len(anchors)) if wants_thresholds else None
        total = anchors.new_zeros(())
        for start, stop in walk.blocks:
            losses, weights, scales, moved = walk.weigh(start, stop)
            total += losses.sum()
            if gradient is not None:
                mine = weights @ compared
                gradient[start:stop] += mine if scales is None else mine.mul_(scales)
            theirs = gradient if references is None else reference_gradient
            if theirs is not None:
                block = anchors[start:stop]
                theirs.addmm_(weights.T, block if scales is None else block * scales)
            if slopes is not None:
                if moved is None:
                    raise ValueError(f"{type(loss).__name__} gave no derivative by thresholds, which learn")
                slopes[start:stop] = moved
        divisor = walk.get_divisor()
        total /= divisor
        for made in (gradient, reference_gradient, slopes):
            if made is not None:
                made /= divisor
        # Reading the number costs a tenth of asking the tensor.
        if total.device.type == "cpu" and not math.isfinite(total.item()):
            refuse_not_finite(comparison)
        keep_gradients(ctx, total, (gradient, reference_gradient, slopes), (embeddings, references, thresholds))
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_over_gradients(ctx, outer), None, None, None, None)


class _BothWaysFunction(torch.autograd.Function):
    """Both ways of a comparison whose similarities are one block: one product of them, and two for the gradients."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, references: Tensor, comparison: Comparison, walks: list[PairWalk]
    ) -> Tensor:
        """``embeddings`` and ``references`` are the comparison's: autograd sees arguments alone."""
        anchors, compared = walks[0].anchors, walks[0].references
        similarities = anchors @ compared.T
        total, weights = anchors.new_zeros(()), similarities
        for walk, seen in zip(walks, (similarities, similarities.T), strict=True):
            losses, weighed, scales, _ = walk.weigh(0, len(walk.anchors), seen)
            divisor = walk.get_divisor()
            total += losses.sum() / divisor
            weighed.mul_(1 / divisor if scales is None else scales / divisor)
            weights = weighed if walk is walks[0] else weights.add_(weighed.T)
        wants_anchors, wants_references = ctx.needs_input_grad[:2]
        gradient = weights @ compared if wants_anchors else None
        reference_gradient = weights.T @ anchors if wants_references else None
        if total.device.type == "cpu" and not math.isfinite(total.item()):
            refuse_not_finite(comparison)
        keep_gradients(ctx, total, (gradient, reference_gradient), (embeddings, references))
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_over_gradients(ctx, outer), None, None)


class BlockWeights(NamedTuple):
    """A block of b anchors: their ``losses`` (b,), the ``weights`` (b, M) of their pairs, and what these are short of.

    ``scales``: (b, 1), what to multiply the weights with; ``thresholds``: (b,), derivatives by the anchors' thresholds.
    """

    losses: Tensor
    weights: Tensor
    scales: Tensor | None
    thresholds: Tensor | None


class PairWalk:
    """Anchors and references in the computing type, the blocks to go through, and each block's pairs.

    Arguments as for `compute_pair_loss`; the fit of loss and comparison has been checked.
    """

    def __init__(
        self, comparison: Comparison, loss: PairWeighting, mining: Mining | None, block_rows: int | None = None
    ) -> None:
        embeddings, references = comparison.embeddings, comparison.references
        dtype = choose_computing_dtype(*(rows for rows in (embeddings, references) if rows is not None))
        self.anchors = embeddings.detach().to(dtype).contiguous()
        self.references = self.anchors if references is None else references.detach().to(dtype).contiguous()
        self._thresholds = None if comparison.thresholds is None else comparison.thresholds.detach().to(dtype)
        count, compared = len(self.anchors), len(self.references)
        rows = min(count, _choose_block_rows(compared, self.anchors.device, block_rows))
        self.blocks = [(start, min(start + rows, count)) for start in range(0, count, rows)]
        self._scratch = self.anchors.new_empty(rows * compared + 1)
        self._pairs = find_pairs(comparison, rows, few_columns=loss.few_columns)
        self._loss, self._mining = loss, mining
        self._related = loss if isinstance(loss, RelatedPairWeighting) else None
        self._counted: Tensor | None = None
        self._taken: tuple[Tensor, Tensor] | None = None  # what the scratch still holds
        self._summaries = None if self._related is None else self._summarise(self._related)

    def weigh(self, start: int, stop: int, known: Tensor | None = None) -> BlockWeights:
        """What the loss says of a block of anchors; the weights live in a scratch. ``known``: as for `take`."""
        near, similarities = self._taken or self.take(start, stop, known=known)
        self._taken = None
        weighed = self._weigh(start, stop, near, similarities)
        if weighed.negatives.data_ptr() != similarities.data_ptr():
            similarities.copy_(weighed.negatives)
        self._pairs.put(start, stop, self._scratch, weighed.positives.to(similarities.dtype))
        if weighed.counts is not None:
            counted = weighed.counts.sum()
            self._counted = counted if self._counted is None else self._counted + counted
        return BlockWeights(weighed.losses, similarities, weighed.scales, weighed.thresholds)

    def take(self, start: int, stop: int, *, mined: bool = True, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Similarities of a block's positives (b, P) and negatives (b, M), in a scratch, after mining or before it.

        ``known``: (b, M), the similarities, where somebody has them.
        """
        self._taken = None
        similarities = self._scratch[: (stop - start) * len(self.references)].view(stop - start, -1)
        if known is None:
            torch.mm(self.anchors[start:stop], self.references.T, out=similarities)
        else:
            similarities.copy_(known)
        near = self._pairs.take(start, stop, self._scratch)
        if mined and self._mining is not None:
            self._mining.drop(near, similarities)
        return near, similarities

    def find_columns(self, start: int, stop: int) -> Tensor:
        """The rows of the references that are a block's positives, (b, P); anything where there is none."""
        return self._pairs.look_up(start, stop, torch.arange(len(self.references), device=self.references.device))

    def _weigh(self, start: int, stop: int, near: Tensor, similarities: Tensor) -> Weighed:
        if self._related is not None and self._summaries is not None:
            others = self._pairs.look_up(start, stop, self._summaries)
            return self._related.weigh_related(near, similarities, self._summaries[start:stop], others)
        if self._thresholds is not None and isinstance(self._loss, ThresholdWeighting):
            return self._loss.weigh(near, similarities, self._thresholds[start:stop])
        return self._loss.weigh(near, similarities)

    def _summarise(self, related: RelatedPairWeighting) -> Tensor:
        if len(self.blocks) > 1:
            return torch.cat([related.summarise(*self.take(start, stop)) for start, stop in self.blocks])
        taken = self.take(*self.blocks[0])
        summaries = related.summarise(*taken)
        self._taken = taken  # a summary writes over nothing: a lone block is weighed as it lies there
        return summaries

    def get_divisor(self) -> Tensor | int:
        """What sums over anchors are divided by."""
        return len(self.anchors) if self._counted is None else self._counted.clamp(min=1)
