"""Gradients that were made in the forward pass, and how the backward pass hands them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Private, and there since torch 2.6; without it every graph counts as kept, which costs a copy and nothing else.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def keep_gradients(
    ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], inputs: Sequence[Tensor | None]
) -> None:
    """Keep gradients of a scalar on the context of an autograd function, for `hand_over_gradients`.

    Args:
        ctx: of the function.
        value: the scalar that its forward returns.
        gradients: of the scalar, by each input, in the type they were computed in; None for one that wants none.
        inputs: whose types the handed-over gradients have.
    """
    ctx.made = list(gradients)
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
    ctx.save_for_backward(value)  # the function's own output: what depends on it depends on all inputs


def hand_over_gradients(ctx: Any, outer: Tensor) -> list[Tensor | None]:
    """The kept gradients times the gradient of the scalar; in place, where nobody will ask again.

    They are multiplied in the type they were computed in, and cast to the inputs' types last: a loss scale of 65,536 is
    more than float16 holds. Under ``create_graph`` they are right, but refuse to be differentiated again.

    Raises:
        RuntimeError: they were handed over already, as autograd says it of a graph that was freed.
    """
    if ctx.made is None:
        raise RuntimeError("backward through this loss a second time: say retain_graph=True the first time.")
    if torch.is_grad_enabled():  # create_graph
        with torch.no_grad():
            made = _cast(
                [None if gradient is None else gradient * outer.to(gradient.dtype) for gradient in ctx.made], ctx.dtypes
            )
        return [
            None if gradient is None else refuse_second_derivative(gradient, outer, *ctx.saved_tensors)
            for gradient in made
        ]
    if _keeps_graph():
        return _cast(
            [None if gradient is None else gradient * outer.to(gradient.dtype) for gradient in ctx.made], ctx.dtypes
        )
    made, ctx.made = ctx.made, None
    is_one = outer.device.type == "cpu" and bool(outer == 1)  # elsewhere reading it would wait for the device
    if not is_one:
        made = [None if gradient is None else gradient.mul_(outer.to(gradient.dtype)) for gradient in made]
    return _cast(made, ctx.dtypes)


def refuse_second_derivative(gradient: Tensor, *causes: Tensor) -> Tensor:
    """A gradient made by hand, which raises where it is differentiated by anything that a cause depends on."""
    guarded: Tensor = _Refusal.apply(gradient, *causes)
    return guarded


def _cast(gradients: Sequence[Tensor | None], dtypes: Sequence[torch.dtype | None]) -> list[Tensor | None]:
    return [None if gradient is None else gradient.to(dtype) for gradient, dtype in zip(gradients, dtypes, strict=True)]


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *causes: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> None:
        raise RuntimeError(
            "this loss has no second derivative: its gradient is made in the forward pass. Leave out the gradient "
            "penalty or the Hessian, or take them of a loss that torch differentiates itself."
        )
