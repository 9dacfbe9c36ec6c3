"""Training on a device: images a second beside timm's way to train, and the batch that is named where memory ends."""

from __future__ import annotations

import re
from functools import partial

import timm
import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import Tensor
from torch.nn import functional

from productrec.data.dataset import TrainingBatch
from productrec.errors import TrainingError
from productrec.recipe import Recipe, build_recipe
from productrec.training.run.loop import take_step
from productrec.training.run.plan import Plan
from sections.figures import Row, compute_ratios, compute_spread, take_turns
from sections.step import Step, build_ready_trainer, build_turn, draw_batch

_LEAST_RATIO = 0.97
_CLASSES = 1000
_SMALL_GIB = 4.0


def measure_device_training(device: torch.device, dtype: torch.dtype, *, quick: bool) -> list[Row]:
    """resnet50 at 224 px: our step beside timm's, with its loss alone and with the joint one; then frozen stages, and
    a small memory.
    """
    backbone, side, size = ("resnet18", 64, 16) if quick else ("resnet50", 224, 256)
    plain = _load(backbone, side, size, metric="none")
    joint = _load(backbone, side, size, metric="multi_similarity")
    images, labels = (one.to(device) for one in draw_batch(joint, _CLASSES))
    steps: dict[str, Step] = {"timm": _build_timm_step(backbone, images, labels, device, dtype)}
    for name, recipe in (("ours", plain), ("ours, joint loss", joint)):
        trainer = build_ready_trainer(recipe, _CLASSES, device, dtype)
        steps[name] = lambda trainer=trainer: trainer.run_step(images, labels)["loss"]  # type: ignore[misc]
    peaks = {name: _measure_peak(step, device) for name, step in steps.items()}  # also the warm-up
    count = 2 if quick else 20
    seen = take_turns({name: build_turn(step, count, device) for name, step in steps.items()}, 2 if quick else 7)
    setting = f"{backbone}, {side} px, batch {size}, {device.type} {str(dtype).removeprefix('torch.')}"
    rows = []
    for name, seconds in seen.items():
        rate = compute_spread([size / one for one in seconds])
        peak = f", peak {peaks[name]:.2f} GiB" if peaks[name] else ""
        rows.append(Row("training", f"{name}, images a second ({setting})", rate.show(0) + peak))
    for name in ("ours", "ours, joint loss"):
        ratio = compute_ratios(seen["timm"], seen[name])  # of times, and so of rates the other way
        asked = name == "ours"
        holds = ratio.middle >= _LEAST_RATIO if asked else None
        rows.append(Row("training", f"{name} / timm's step", ratio.show(3), ">= 0.97" if asked else "", holds))
    rows += _measure_frozen(device, dtype, quick=quick)
    if device.type == "cuda":
        del steps
        rows.append(_check_advice(_load(backbone, side, 2048, metric="multi_similarity"), device, dtype))
    return rows


def _measure_frozen(device: torch.device, dtype: torch.dtype, *, quick: bool) -> list[Row]:
    """What the first three stages of EfficientNet-Lite0, frozen, save of a step."""
    backbone, side, size = "tf_efficientnet_lite0", 64 if quick else 192, 16 if quick else 256
    turns = {}
    for frozen in (0, 3):
        recipe = _load(backbone, side, size, metric="multi_similarity", frozen=frozen)
        images, labels = (one.to(device) for one in draw_batch(recipe, _CLASSES))
        trainer = build_ready_trainer(recipe, _CLASSES, device, dtype)
        step = partial(trainer.run_step, images, labels)
        step()
        turns[str(frozen)] = build_turn(step, 2 if quick else 20, device)  # type: ignore[arg-type]
    seen = take_turns(turns, 2 if quick else 5)
    setting = f"{backbone}, {side} px, batch {size}, {device.type} {str(dtype).removeprefix('torch.')}"
    rates = {name: compute_spread([size / one for one in seconds]) for name, seconds in seen.items()}
    return [
        Row("training", f"images a second ({setting})", rates["0"].show(0)),
        Row("training", "share of that step with three stages frozen", compute_ratios(seen["3"], seen["0"]).show(3)),
    ]


def _load(backbone: str, side: int, size: int, *, metric: str, frozen: int = 0) -> Recipe:
    train = {"side_px": side, "batch_size": size, "images_per_class": 4, "gradient_clip": 0.0, "freeze_stages": frozen}
    model = {"backbone": backbone, "pretrained": frozen > 0}
    return build_recipe({"name": "device", "model": model, "loss": {"metric": metric}, "train": train})


def _build_timm_step(backbone: str, images: Tensor, labels: Tensor, device: torch.device, dtype: torch.dtype) -> Step:
    """What timm's training script does in a step: normalise on the device, autocast, cross-entropy, AdamW."""
    network = timm.create_model(backbone, num_classes=_CLASSES).train().to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in _get_normalisation())

    def step() -> Tensor:
        pixels = (images.permute(0, 3, 1, 2).float() - mean) / std
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(pixels)
            loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _get_normalisation() -> tuple[tuple[float, ...], tuple[float, ...]]:
    return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD


def _measure_peak(step: Step, device: torch.device) -> float:
    """GiB that torch allocates at most in the second of two steps; 0 where it does not say."""
    step()
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    float(step())
    return torch.cuda.max_memory_allocated(device) / 2**30


def _check_advice(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Row:
    """Whether the batch that is named, where one does not fit a small share of the memory, does fit."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    held = torch.cuda.memory_reserved(device) / 2**30
    number = torch.cuda.current_device() if device.index is None else device.index  # torch wants one here
    torch.cuda.set_per_process_memory_fraction(min(1.0, (held + _SMALL_GIB) / total), number)
    images, labels = draw_batch(recipe, _CLASSES)
    trainer = build_ready_trainer(recipe, _CLASSES, device, dtype)
    plan = Plan(epochs=1, keep_best_by="top_1_accuracy", batch_multiple=4)
    seen, fits = "no error", False
    try:
        take_step(trainer, TrainingBatch(images, labels, [], torch.arange(len(labels))), plan)
    except TrainingError as error:
        seen = str(error)
        found = re.search(r"train\.batch_size=(\d+)", seen)
        if found:
            size = int(found.group(1))
            fits = bool(torch.isfinite(trainer.run_step(images[:size], labels[:size])["loss"]))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, number)
    return Row("training", f"out of {_SMALL_GIB:.0f} GiB: the batch that is named fits", seen, "it does", fits)
