"""Freezing: the backbone, its first stages, or the statistics of its norms stay as they are while the rest learns."""

from __future__ import annotations

from torch import nn

from productrec.errors import RecipeError
from productrec.models.backbone import find_stages
from productrec.models.recognizer import Recognizer

_THAWS = "_thaws"  # set on parameters that learned before they were frozen
_STAYS = "_stays"  # set on norms that keep their statistics for good


def freeze_stages(recognizer: Recognizer, count: int) -> None:
    """Have the backbone's first ``count`` stages, the stem among them, never learn; nothing thaws them.

    Their parameters require no gradient, so that nothing is kept nor computed for the way back through them, and their
    norms keep the statistics they have, once `set_norms_frozen` has been called after ``train()``. Call it before the
    optimiser is built.

    Raises:
        RecipeError: the backbone tells no stages, or has no more than ``count``.
    """
    network = recognizer.backbone.network
    stages = find_stages(network, needed_for="train.freeze_stages")
    total = max(stages.values()) + 1
    if count >= total:
        raise RecipeError(
            f"train.freeze_stages: must be below the {total} stages of the backbone; got {count}. "
            "To train the heads alone give train.freeze_epochs as many as train.epochs."
        )
    fixed = {name for name, stage in stages.items() if stage < count}
    for name, parameter in network.named_parameters():
        if name in fixed:
            parameter.requires_grad_(False)
    for prefix, module in network.named_modules():
        own = [f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if _keeps_statistics(module) and own and fixed.issuperset(own):
            setattr(module, _STAYS, True)


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
            module.train(recognizer.backbone.training and not frozen and not hasattr(module, _STAYS))


def _keeps_statistics(module: nn.Module) -> bool:
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))
