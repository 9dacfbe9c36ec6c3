"""Optimiser and schedule: parameter groups with their own rates and decay, warm-up then cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def build_optimizer(
    name: str,
    *,
    backbone: Iterable[tuple[str, nn.Parameter]],
    heads: Iterable[tuple[str, nn.Parameter]],
    centres: Iterable[nn.Parameter],
    learning_rate: float,
    head_rate_factor: float,
    centre_rate_factor: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """AdamW or SGD over five groups: backbone and heads, each with and without decay, and centres.

    Norms, biases and other vectors are not decayed, nor are centres, whose length means nothing.
    """
    groups = []
    for named, factor in ((backbone, 1.0), (heads, head_rate_factor)):
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for _, parameter in named:
            if parameter.requires_grad:
                (decayed if parameter.ndim > 1 else plain).append(parameter)
        rate = learning_rate * factor
        groups.append({"params": decayed, "lr": rate, "weight_decay": weight_decay})
        groups.append({"params": plain, "lr": rate, "weight_decay": 0.0})
    groups.append({"params": list(centres), "lr": learning_rate * centre_rate_factor, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    for group in groups:
        group["peak_lr"] = group["lr"]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)


def compute_rate_factor(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Share of the peak rate at ``step``: linear warm-up, then half a cosine to zero at ``total_steps``."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group ``factor`` times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
