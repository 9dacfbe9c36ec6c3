"""A training step without loading: `Trainer.run_step` beside a bare loop over the same network, loss and optimiser."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from productrec.assembly.trainer import build_trainer
from productrec.recipe import Recipe
from productrec.runtime import autocast, choose_device, choose_dtype, set_seed, synchronise
from productrec.training.step.trainer import Trainer
from sections.figures import Row, compute_ratios, compute_spread, print_row, take_turns
from sections.recipes import load_single_recipe

MOST_RATIO = 1.05
CLASSES = 81
_STEPS_PER_EPOCH = 41

Step = Callable[[], Tensor]


def measure_step(recipe_path: Path, *, backbone: str, overrides: Sequence[str], repeats: int) -> list[Row]:
    """Compare steps as the recipe says with bare ones, and show what clipping and the moving average cost."""
    overrides = [*overrides, "train.cut_mix=0"]  # the bare loop mixes nothing
    load = partial(load_single_recipe, recipe_path, backbone=backbone)
    recipe = load(overrides=overrides)
    device = choose_device(recipe.device)
    dtype = choose_dtype(recipe.train.precision, device)
    images, labels = (one.to(device) for one in draw_batch(recipe))
    decay, clip = recipe.train.ema_decay or 0.998, recipe.train.gradient_clip or 5.0

    def build_ours(*changes: str) -> Step:
        trainer = build_ready_trainer(load(overrides=[*overrides, *changes]), CLASSES, device, dtype)
        return lambda: trainer.run_step(images, labels)["loss"]

    def build_bare(clip: float = 0.0, decay: float = 0.0) -> Step:
        trainer = build_ready_trainer(recipe, CLASSES, device, dtype)
        return build_bare_step(trainer, images, labels, device, dtype, clip=clip, ema_decay=decay)

    steps = {
        "as the recipe says": build_ours(),
        "bare": build_bare(),
        "plain": build_ours("train.gradient_clip=0", "train.ema_decay=0"),
        "bare with both": build_bare(clip, decay),
        "clipping": build_ours(f"train.gradient_clip={clip}", "train.ema_decay=0"),
        "average": build_ours("train.gradient_clip=0", f"train.ema_decay={decay}"),
    }
    check_losses({name: float(step()) for name, step in steps.items()}, tolerance=1e-3)  # also the warm-up
    # Waiting for an accelerator after each step would be most of what is measured; a CPU waits anyway.
    turn_steps = 1 if device.type == "cpu" else 10
    turns = {name: build_turn(step, turn_steps, device) for name, step in steps.items()}
    seen = take_turns(turns, repeats)
    check_losses({name: float(step()) for name, step in steps.items()})

    ratio = compute_ratios(seen["as the recipe says"], seen["bare"])
    setting = (
        f"{recipe.model.backbone}, {recipe.train.side_px} px, batch {recipe.train.batch_size}, "
        f"{'none' if recipe.loss.metric is None else recipe.loss.metric.get_name()}, {device.type} "
        f"{str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads"
    )
    rows = [Row("step", f"ours / bare ({setting})", ratio.show(3), f"<= {MOST_RATIO:.2f}", ratio.middle <= MOST_RATIO)]
    for what, upper, lower in (
        ("ours without clipping and average / bare", "plain", "bare"),
        ("ours / bare with clipping and average", "as the recipe says", "bare with both"),
        ("clipping: ours with / without", "clipping", "plain"),
        ("moving average: ours with / without", "average", "plain"),
    ):
        rows.append(Row("step", what, compute_ratios(seen[upper], seen[lower]).show(3)))
    for what, name in (("ours", "as the recipe says"), ("bare", "bare")):
        rate = compute_spread([len(labels) / seconds for seconds in seen[name]])
        rows.append(Row("step", f"{what}, images per second", rate.show(0)))
    for row in rows:
        print_row(row)
    return rows


def draw_batch(recipe: Recipe, class_count: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Noise (B, S, S, 3) uint8 and PK labels (B,), P classes times K images, always the same."""
    generator = np.random.default_rng(0)
    size, side = recipe.train.batch_size, recipe.train.side_px
    each = recipe.train.images_per_class
    classes = generator.choice(class_count, size // each, replace=size // each > class_count)
    images = generator.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(images), torch.from_numpy(np.repeat(classes, each))


def build_ready_trainer(recipe: Recipe, class_count: int, device: torch.device, dtype: torch.dtype) -> Trainer:
    """A trainer in training mode; the same weights at every call."""
    set_seed(recipe.seed)
    trainer = build_trainer(recipe, [1] * class_count, _STEPS_PER_EPOCH, device=device, dtype=dtype)
    trainer.recognizer.train()
    trainer.objective.train()
    return trainer


def build_bare_step(
    parts: Trainer,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    *,
    clip: float,
    ema_decay: float,
) -> Step:
    """What one would write by hand around the network, the loss and the optimiser of ``parts``; no schedule, no log."""
    network, objective, optimizer = parts.recognizer, parts.objective, parts.optimizer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    average = (
        AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)  # type: ignore[no-untyped-call]
        if ema_decay
        else None
    )
    scaler = torch.amp.GradScaler(device.type) if dtype == torch.float16 else None

    def step() -> Tensor:
        with autocast(device, dtype):
            recognized = network(images)
        loss: Tensor = objective(recognized, labels)[0]
        torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
        if clip:
            if scaler is not None:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update_parameters(network)
        return loss.detach()

    return step


def build_turn(step: Step, count: int, device: torch.device) -> Callable[[], float]:
    """Seconds a step, over ``count`` steps."""

    def turn() -> float:
        synchronise(device)
        started = time.perf_counter()
        for _ in range(count):
            step()
        synchronise(device)
        return (time.perf_counter() - started) / count

    return turn


def check_losses(losses: dict[str, float], tolerance: float | None = None) -> None:
    """Refuse to compare steps whose losses are not finite, or (first steps) not equal within a relative tolerance."""
    values = np.array(list(losses.values()))
    if not np.isfinite(values).all():
        raise RuntimeError(f"the compared steps must have finite losses; got {losses}")
    if tolerance is not None and np.ptp(values) > tolerance * abs(values[0]):
        raise RuntimeError(f"the compared steps must have the same first loss; got {losses}")
