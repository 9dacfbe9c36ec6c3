"""Schedule: the share of its peak rate that each parameter group has at a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch

from productrec.errors import RecipeError
from productrec.settings.names import Schedule


def compute_rate_factor(
    step: int,
    *,
    warmup_steps: int,
    total_steps: int,
    schedule: Schedule = "cosine",
    cooldown: float = 0.25,
    drop_at: Sequence[float] = (0.6, 0.85),
    drop_factor: float = 0.1,
) -> float:
    """Share of the peak rate at ``step``: a linear warm-up that ends at 1, then a schedule.

    - ``cosine``: half a cosine from the end of the warm-up to zero at ``total_steps``;
    - ``flat``: 1, then linear to zero at ``total_steps`` (Hägele et al. 2024, arXiv 2405.18392, with a linear tail);
    - ``step``: 1, times ``drop_factor`` from each of ``drop_at`` on.

    The first two have no jumps. All stay where they end for steps past ``total_steps``.

    Args:
        step: from 0.
        warmup_steps: steps of the warm-up, part of the training; 0 for none.
        total_steps: steps of the training.
        schedule: which one.
        cooldown: share of the training that the tail of ``flat`` takes, at most what the warm-up leaves; 0 for none.
        drop_at: shares of the training, warm-up included, rounded to whole steps. One within the warm-up takes effect
            at its end.
        drop_factor: what the rate is multiplied with at each of them.

    Raises:
        RecipeError: no such schedule.
    """
    if schedule not in get_args(Schedule):
        raise RecipeError(f"train.schedule: must be one of {', '.join(get_args(Schedule))}; got {schedule!r}.")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "cosine":
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if schedule == "flat":
        tail_steps = min(cooldown * total_steps, total_steps - warmup_steps)
        return min(1.0, max(0.0, total_steps - step) / tail_steps) if tail_steps > 0 else 1.0
    drops = sum(step >= round(share * total_steps) for share in drop_at)
    return float(drop_factor**drops)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group ``factor`` times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
