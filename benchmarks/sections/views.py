"""Prediction through twelve views, from files to an embedding set, beside the bare forward pass of the same network."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from productrec.assembly.network import build_network
from productrec.assembly.resources import choose_loader_workers
from productrec.data.view_presets import get_views
from productrec.data.views import compute_side_px
from productrec.recipe import Recipe
from productrec.runtime import keep_freed_memory
from sections.figures import Row, compute_ratios, compute_spread, print_row, take_turns
from sections.predict import LEAST_RATIO, embed_images, list_images
from sections.recipes import load_single_recipe
from sections.step import CLASSES

_NETWORKS = (("tf_efficientnet_lite0", 192), ("regnetx_002", 128))  # a depthwise one and a plain one
_VIEWS = "zoom"
_BATCH, _BARE_BATCH = 128, 32
_BARE_SECONDS = 4.0
_CPU = torch.device("cpu")


def measure_views(recipe_path: Path, *, source: Path | None, image_count: int, repeats: int) -> list[Row]:
    """Forward passes a second of both, on the CPU in float32, and the system time of both.

    The bare pass has nothing to decode, batches of the same sizes that are there already, and memory that is kept: as
    fast as this machine goes.
    """
    keep_freed_memory(_CPU)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="productrec-benchmark-") as name:
        paths = list_images(source, Path(name), image_count)
        for backbone, side_px in _NETWORKS:
            recipe = load_single_recipe(recipe_path, backbone=backbone, overrides=[f"train.side_px={side_px}"])
            rows += _measure_network(recipe, paths, Path(name) / backbone, repeats)
    return rows


def _measure_network(recipe: Recipe, paths: Sequence[str], work: Path, repeats: int) -> list[Row]:
    side_px, views = recipe.train.side_px, len(get_views(_VIEWS))
    network = build_network(recipe, CLASSES).eval()
    workers = choose_loader_workers(recipe, _CPU)
    numbers = count()

    def embed() -> int:
        embed_images(
            network,
            paths,
            work / str(next(numbers)),
            views=_VIEWS,
            side_px=side_px,
            batch_size=_BATCH,
            workers=workers,
            device=_CPU,
            dtype=torch.float32,
        )
        return len(paths) * views

    sides = [compute_side_px(side_px, view.scale) for view in get_views(_VIEWS)]
    batches = [torch.randint(0, 256, (_BARE_BATCH, side, side, 3), dtype=torch.uint8) for side in sides]
    system: dict[str, list[float]] = {"ours": [], "bare": []}
    turns: dict[str, Callable[[], int]] = {"ours": embed, "bare": partial(_forward, network, batches)}
    seen = take_turns({path: partial(_measure, turn, system[path]) for path, turn in turns.items()}, repeats)
    ratio = compute_ratios(seen["ours"], seen["bare"])
    setting = f"{recipe.model.backbone}, {side_px} px, {views} views of {len(paths)} images, {workers} workers"
    holds = ratio.middle >= LEAST_RATIO
    rows = [Row("views", f"rate, ours / bare ({setting})", ratio.show(3), f">= {LEAST_RATIO}", holds)]
    for path in turns:
        rows.append(Row("views", f"{path}, forward passes per second", compute_spread(seen[path]).show(0)))
        rows.append(Row("views", f"{path}, seconds of system time a second", compute_spread(system[path]).show(2)))
    for row in rows:
        print_row(row)
    return rows


@torch.inference_mode()
def _forward(network: nn.Module, batches: Sequence[Tensor]) -> int:
    """Run the network on a batch of each view's size for some seconds; how many images went through it."""
    started, passes = time.perf_counter(), 0
    while time.perf_counter() - started < _BARE_SECONDS:
        for images in batches:
            network(images)
            passes += len(images)
    return passes


def _measure(turn: Callable[[], int], system: list[float]) -> float:
    """Passes per second of a turn; its share of system time is noted."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
    passes = turn()
    seconds = time.perf_counter() - started
    system.append((resource.getrusage(resource.RUSAGE_SELF).ru_stime - before) / seconds)
    return passes / seconds
