"""Gradients that were made in the forward pass, and how the backward pass hands them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Private, and there since torch 2.6; without it every graph counts as kept, which costs a copy and nothing else.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def keep_gradients(ctx: Any, gradients: Sequence[Tensor | None]) -> None:
    """Keep gradients of a scalar by each input on the context of an autograd function, for `hand_over_gradients`."""
    ctx.made = list(gradients)


def hand_over_gradients(ctx: Any, outer: Tensor) -> list[Tensor | None]:
    """The kept gradients times the gradient of the scalar; in place, where nobody will ask again.

    Raises:
        RuntimeError: they were handed over already, as autograd says it of a graph that was freed.
    """
    if ctx.made is None:
        raise RuntimeError("backward through this loss a second time: say retain_graph=True the first time.")
    if _keeps_graph():
        return [None if one is None else one * outer.to(one.dtype) for one in ctx.made]
    made, ctx.made = ctx.made, None
    is_one = outer.device.type == "cpu" and bool(outer == 1)  # elsewhere reading it would wait for the device
    return made if is_one else [None if one is None else one.mul_(outer.to(one.dtype)) for one in made]
