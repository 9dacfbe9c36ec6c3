"""The walk over SoftTriple's centres in blocks of classes: the loss, and its derivatives on the way."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Entries of a block of centres: on a CPU one that stays in a core's cache.
_BLOCK_ENTRIES = 1 << 18
_ACCELERATOR_BLOCK_ENTRIES = 1 << 26


class Shape(NamedTuple):
    """Settings of `compute_soft_triple_loss`."""

    scale: float
    gamma: float
    margin: float
    tau: float
    block_classes: int | None = None


class CentreWalk:
    """Centres (C, K, D) as they are, the reciprocals of their lengths, and the blocks of classes to go through.

    With ``sizes`` (C, K) each centre counts as so many that coincide, 0 of them where it was merged into another.
    """

    def __init__(self, centres: Tensor, shape: Shape, sizes: Tensor | None) -> None:
        self.centres, self._shape = centres, shape
        self._classes, self._per_class, dim = centres.shape
        entries = _BLOCK_ENTRIES if centres.device.type == "cpu" else _ACCELERATOR_BLOCK_ENTRIES
        size = shape.block_classes or max(1, entries // (self._per_class * dim))
        self._blocks = [slice(start, start + size) for start in range(0, self._classes, size)]
        self._inverses = centres.new_empty((self._classes, self._per_class, 1))
        self._slopes = centres.new_empty(0)
        self._sizes = None if sizes is None else sizes.to(centres.dtype)
        self._offsets = None if self._sizes is None else self._sizes.log().mul_(shape.gamma)[:, :, None]

    def compare(self, rows: Tensor, labels: Tensor, total_count: int) -> Tensor:
        """Sum of the cross-entropies of embeddings (b, D) over the count of all rows.

        Its derivative by every similarity, (C, K, b), is kept.
        """
        shape, count = self._shape, len(rows)
        if self._slopes.shape[-1:] != (count,):
            self._slopes = rows.new_empty((self._classes, self._per_class, count))
        relaxed = rows.new_empty((self._classes, count))
        for block in self._blocks:
            centres, similarities = self.centres[block], self._slopes[block]
            inverses = centres.norm(dim=2, keepdim=True).clamp_(min=1e-12).reciprocal_()
            self._inverses[block] = inverses
            torch.mm(centres.flatten(0, 1), rows.T, out=similarities.flatten(0, 1))
            similarities.mul_(inverses)
            _relax(similarities, shape.gamma, None if self._offsets is None else self._offsets[block], relaxed[block])
        logits = relaxed.mul_(shape.scale)
        true_class = labels.long()[None]
        logits.scatter_add_(0, true_class, logits.new_full(true_class.shape, -shape.scale * shape.margin))
        total = (logits.logsumexp(dim=0) - logits.gather(0, true_class)[0]).sum() / total_count
        wrong = logits.softmax(dim=0)
        wrong.scatter_add_(0, true_class, wrong.new_full(true_class.shape, -1.0))
        self._slopes.mul_(wrong.mul_(shape.scale / total_count)[:, None])
        return total

    def weigh(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities (b, C K) of embeddings (b, D) to all centres, and the derivative of each row's loss by them."""
        self.compare(rows, labels, 1)
        units = (self.centres * self._inverses).flatten(0, 1)
        return rows @ units.T, self._slopes.flatten(0, 1).T

    def finish(
        self, rows: Tensor, row_gradient: Tensor | None, gradient: Tensor | None, *, is_first: bool, is_last: bool
    ) -> Tensor:
        """Add the kept derivatives up to gradients by embeddings (b, D) and by centres (C, K, D); the regulariser last.

        The first call begins the gradient by centres, which is one by unit centres until the last.
        """
        total = self.centres.new_zeros(())
        for block in self._blocks:
            slopes = self._slopes[block].flatten(0, 1)
            if gradient is not None:
                gradient[block].flatten(0, 1).addmm_(slopes, rows, beta=0.0 if is_first else 1.0)
            if row_gradient is not None:
                slopes.mul_(self._inverses[block].flatten(0, 1))
                row_gradient.addmm_(slopes.T, self.centres[block].flatten(0, 1))
            if is_last:
                total += self._regularise(block, None if gradient is None else gradient[block])
        return total

    def _regularise(self, block: slice, gradient: Tensor | None) -> Tensor:
        """The regulariser of some classes; its gradient is added, and all that only lengthens a centre is taken off."""
        per_class, inverses = self._per_class, self._inverses[block]
        weight = self._shape.tau / (self._classes * per_class * (per_class - 1)) if per_class > 1 else 0.0
        total = self.centres.new_zeros(())
        if gradient is None and not weight:
            return total
        units = self.centres[block] * inverses
        if weight:
            distances, slopes = _measure_distances(units)
            if self._sizes is not None:
                sizes = self._sizes[block]
                times = sizes[:, :, None] * sizes[:, None]
                distances, slopes = distances.mul_(times), slopes.mul_(times)
            total = distances.sum() * (weight / 2)  # every pair stands twice in a class's table
            if gradient is not None:
                gradient.baddbmm_(slopes, units, alpha=weight)
        if gradient is not None:
            along = (gradient * units).sum(dim=2, keepdim=True)
            gradient.addcmul_(units, along, value=-1.0).mul_(inverses)
        return total


def _relax(similarities: Tensor, gamma: float, offsets: Tensor | None, relaxed: Tensor) -> None:
    """Relaxed similarities (c, b) of similarities (c, K, b), in whose place their derivative is written.

    ``offsets`` (c, K, 1): gamma times the logarithm of how many centres each stands for.
    """
    if similarities.shape[1] == 1:
        relaxed.copy_(similarities[:, 0])
        similarities.fill_(1.0)
        return
    logits = similarities if offsets is None else similarities + offsets
    shares = (logits - logits.amax(dim=1, keepdim=True)).mul_(math.log2(math.e) / gamma).exp2_()
    shares.div_(shares.sum(dim=1, keepdim=True))
    torch.sum(shares * similarities, dim=1, out=relaxed)
    similarities.sub_(relaxed[:, None]).div_(gamma).add_(1.0).mul_(shares)


def _measure_distances(units: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (c, K, K) between the unit centres (c, K, D) of a class, and their derivative by inner products."""
    # Per class, never (C K, C K): at 50,000 classes of 10 centres that would be a terabyte.
    squared = (units @ units.mT).mul_(-2.0).add_(2.0)
    apart = squared > 16.0 * torch.finfo(squared.dtype).eps
    distances = torch.where(apart, squared, 0.0).sqrt_()
    return distances, torch.where(apart, -1.0 / distances, 0.0)
