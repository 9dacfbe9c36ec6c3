"""Optimiser: parameter groups with their own rates and decay, and what updates them, of PyTorch or timm."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from productrec.errors import RecipeError
from productrec.models.backbone import Backbone, find_stages

_Named = Iterable[tuple[str, nn.Parameter]]

# Numbers that an optimiser keeps of each learned one, by the name of its class.
_MOMENTS = {"adam": 2, "adamw": 2, "nadam": 2, "nadamw": 2, "lamb": 2, "sgd": 1, "lion": 1, "rmsprop": 1}


def build_optimizer(
    name: str,
    *,
    backbone: nn.Module,
    heads: _Named,
    centres: Iterable[nn.Parameter],
    learning_rate: float,
    head_rate_factor: float,
    centre_rate_factor: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    encoder: _Named = (),
    encoder_rate_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimiser over groups: backbone, heads and text encoder, each with and without decay, and centres.

    Norms, biases and other vectors are not decayed, nor what timm's ``no_weight_decay`` of the backbone lists (position
    embeddings, class tokens), nor centres, whose length means nothing. Each group keeps its rate as ``peak_lr``, for
    `set_rate`. Groups stand in the order of the stages, so that a state loads into an optimiser built alike. Parameters
    that do not require a gradient are left out.

    Args:
        name: ``adamw`` (fused on CUDA), ``sgd`` (Nesterov momentum 0.9), or any that timm lists, with timm's own
            settings for it: ``lamb`` clips the gradient's norm at 1, for instance.
        backbone: the module; timm's tells its stages and what is spared of decay.
        heads: named parameters of everything else but centres.
        centres: of the metric loss.
        learning_rate: peak rate of the backbone (of its last stage).
        head_rate_factor: rate of the heads, times that.
        centre_rate_factor: rate of the centres, times that.
        weight_decay: of what is decayed.
        layer_decay: in (0, 1]; each earlier stage of the backbone has its rate times this once more. Stages are those
            of timm's coarse ``group_matcher``: of a transformer its blocks, and the stem is the first. What it leaves
            over, such as a final norm, belongs to the last.
        encoder: named parameters of a pretrained text encoder.
        encoder_rate_factor: rate of these, times that of the backbone.

    Raises:
        RecipeError: no such optimiser (the nearest names are given), it cannot be built here or wants second-order
            gradients, or ``layer_decay`` is under 1 and the backbone tells no stages.
    """
    network = backbone.network if isinstance(backbone, Backbone) else backbone
    stages = find_stages(network, needed_for="train.layer_decay below 1") if layer_decay < 1 else {}
    last = max(stages.values(), default=0)
    by_stage: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for key, parameter in network.named_parameters():
        by_stage.setdefault(stages.get(key, last), []).append((key, parameter))
    spared = _list_spared(network)
    groups: list[dict[str, Any]] = []
    for stage, members in sorted(by_stage.items()):
        groups += _split_by_decay(members, learning_rate * layer_decay ** (last - stage), weight_decay, spared)
    groups += _split_by_decay(heads, learning_rate * head_rate_factor, weight_decay, ())
    groups += _split_by_decay(encoder, learning_rate * encoder_rate_factor, weight_decay, ())
    groups.append({"params": list(centres), "lr": learning_rate * centre_rate_factor, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    for group in groups:
        group["peak_lr"] = group["lr"]
    if name == "adamw":
        on_cuda = all(parameter.is_cuda for group in groups for parameter in group["params"])
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True if on_cuda else None)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    return _build_timm_optimizer(name, groups, learning_rate)


def count_moments(optimizer: torch.optim.Optimizer, *, unknown: int) -> int:
    """How many numbers an optimiser keeps of each learned one, at least; ``unknown`` of one that is not known here."""
    return _MOMENTS.get(type(optimizer).__name__.lower(), unknown)


def _split_by_decay(
    named: _Named, rate: float, weight_decay: float, spared: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for key, parameter in named:
        if parameter.requires_grad:
            is_spared = parameter.ndim < 2 or any(fnmatch(key, pattern) for pattern in spared)
            (plain if is_spared else decayed).append(parameter)
    return (
        {"params": decayed, "lr": rate, "weight_decay": weight_decay},
        {"params": plain, "lr": rate, "weight_decay": 0.0},
    )


def _list_spared(network: nn.Module) -> list[str]:
    """Names of parameters, or patterns of them, that timm does not decay."""
    no_weight_decay = getattr(network, "no_weight_decay", None)
    return sorted(no_weight_decay()) if callable(no_weight_decay) else []


def _build_timm_optimizer(name: str, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers  # type: ignore[attr-defined]

    known = [str(optimizer) for optimizer in list_optimizers()]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise RecipeError(
            f"train.optimizer: must be adamw, sgd, lamb or another that timm lists; got {name!r}."
            + (f" Did you mean {' or '.join(near)}?" if near else "")
        )
    if get_optimizer_info(name).second_order:
        raise RecipeError(f"train.optimizer: must do with first-order gradients; got {name}. Choose another.")
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(groups, opt=name, lr=learning_rate)
    except (AssertionError, ImportError) as error:  # some stand on CUDA, apex or bitsandbytes
        raise RecipeError(f"train.optimizer: {name} cannot be built here ({error}). Choose another.") from None
    return optimizer
