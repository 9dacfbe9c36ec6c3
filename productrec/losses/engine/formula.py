"""A loss by its formula: torch differentiates it inside the block, by the similarities alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from productrec.losses.engine.weighing import Weighed

Formula = Callable[..., Tensor | tuple[Tensor, Tensor]]


def differentiate(compute: Formula, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> Weighed:
    """What a formula says of a block of anchors, with its derivative by every similarity.

    Memory is that of the formula's own steps for one block, whatever the batch. A derivative by an absent pair is 0,
    whatever the formula makes of infinity there.

    Args:
        compute: see `PairWeighting.compute`.
        positives: (b, P) similarities, +inf where there is none.
        negatives: (b, M) similarities, -inf where there is none.
        thresholds: (b,) of the anchors, the formula's third argument where they are given.

    Raises:
        ValueError: the formula gives no loss (b,).
    """
    with torch.enable_grad():
        near, far = positives.detach().requires_grad_(), negatives.detach().requires_grad_()
        marks = None if thresholds is None else thresholds.detach().requires_grad_()
        computed = compute(near, far) if marks is None else compute(near, far, marks)
        losses, counts = computed if isinstance(computed, tuple) else (computed, None)
        if not isinstance(losses, Tensor) or losses.shape != near.shape[:1]:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"compute must give one loss an anchor, shape ({len(near)},); it gave {shape}")
        pulled: Tensor | None = None
        pushed: Tensor | None = None
        moved: Tensor | None = None
        if losses.requires_grad:
            inputs = (near, far) if marks is None else (near, far, marks)
            pulled, pushed, *rest = torch.autograd.grad(losses.sum(), inputs, allow_unused=True)
            moved = rest[0] if rest else None
    return Weighed(
        losses.detach(),
        _leave_out_absent(pulled, positives, torch.inf),
        _leave_out_absent(pushed, negatives, -torch.inf),
        None if counts is None else counts.detach(),
        thresholds=torch.zeros_like(thresholds) if moved is None and thresholds is not None else moved,
    )


def _leave_out_absent(slopes: Tensor | None, similarities: Tensor, absent: float) -> Tensor:
    if slopes is None:
        return torch.zeros_like(similarities)
    return slopes.masked_fill(similarities == absent, 0.0)
