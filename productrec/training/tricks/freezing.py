"""Freezing: the backbone, or the statistics of its norms alone, stay as they are while the rest learns."""

from __future__ import annotations

from torch import nn

from productrec.models.recognizer import Recognizer

_THAWS = "_thaws"  # set on parameters that learned before they were frozen


def set_backbone_frozen(recognizer: Recognizer, frozen: bool) -> None:
    """Freeze the backbone, or thaw it.

    Frozen, its parameters require no gradient, and the norms in it that keep running statistics are in eval mode.
    Thawed, what learned before learns again, and those norms are in the backbone's mode. Any call may be repeated.

    ``recognizer.train()`` puts norms back into training mode: call this after it, each time. Build the optimiser before
    the first freeze; it passes over parameters without a gradient, and does not decay them. What gradients were left
    from before the freeze are dropped.
    """
    backbone = recognizer.backbone
    for parameter in backbone.parameters():
        if frozen and parameter.requires_grad:
            parameter.requires_grad_(False)
            parameter.grad = None
            setattr(parameter, _THAWS, True)
        elif not frozen and hasattr(parameter, _THAWS):
            parameter.requires_grad_(True)
            delattr(parameter, _THAWS)
    set_norms_frozen(recognizer, frozen)


def set_norms_frozen(recognizer: Recognizer, frozen: bool) -> None:
    """Have the backbone's norms use and keep the statistics they have, or go by their batches; scales still learn.

    What one image gives then depends on no other, so that a batch's chunks give what the whole batch does.
    ``recognizer.train()`` undoes it, as above.
    """
    for module in recognizer.backbone.modules():
        if _keeps_statistics(module):
            module.train(recognizer.backbone.training and not frozen)


def _keeps_statistics(module: nn.Module) -> bool:
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))
