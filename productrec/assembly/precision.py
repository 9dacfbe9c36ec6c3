"""The number type of activations on a CPU: timed for the network at hand, and kept in the run that it decides."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from productrec.artifacts import write_json
from productrec.assembly.network import build_network
from productrec.console import say
from productrec.errors import ArtifactError
from productrec.recipe import Recipe
from productrec.runtime import autocast, choose_dtype, computes_bfloat16

KEPT = "precision.json"  # of a run
_GAIN = 1.15  # bfloat16 must be so many times as fast as float32, which is the more exact
_IMAGES = 8
_TURNS = 3
_SECONDS = 20.0  # after so many no further turn begins


def choose_precision(recipe: Recipe, device: torch.device, *, use: str, run: Path | None = None) -> torch.dtype:
    """The type that activations are computed in: as the recipe says, as the run has kept it, or the faster.

    ``train.precision: auto`` is float32 on a CPU, unless that computes bfloat16 and the recipe's network, on squares of
    its side, is at least 1.15 times as fast in it: depthwise convolutions are not, plain ones are. Other devices have
    their own rule, see `choose_dtype`.

    Args:
        recipe: settings of the network and of training.
        device: where it is computed.
        use: ``train`` (forward and backward are timed) or ``predict`` (forward alone).
        run: folder whose earlier choice stands; None, or a folder without one, to time now.

    Raises:
        ArtifactError: what the run has kept cannot be read.
    """
    if not is_timed(recipe, device):
        return choose_dtype(recipe.train.precision, device)
    kept = read_precision(run, use) if run is not None else None
    if kept is not None:
        return kept
    rates = measure_precisions(build_network(recipe, 2, pretrained=False), recipe.train.side_px, use=use)
    single, half = rates[torch.float32], rates[torch.bfloat16]
    chosen = torch.bfloat16 if half > _GAIN * single else torch.float32
    say(
        f"precision to {use} in: {_name(chosen)} (float32 {single:.0f}, bfloat16 {half:.0f} images/s on this machine); "
        "train.precision sets it"
    )
    return chosen


def is_timed(recipe: Recipe, device: torch.device) -> bool:
    """Whether there is a choice to make by timing: on a CPU that computes bfloat16, where the recipe leaves it open."""
    return recipe.train.precision == "auto" and device.type == "cpu" and computes_bfloat16()


def keep_precision(run: Path, use: str, dtype: torch.dtype) -> None:
    """Note in a run's folder what it is computed in, so that a resume or a later prediction does the same."""
    kept = _read(run / KEPT)
    if kept.get(use) != _name(dtype):
        write_json(run / KEPT, kept | {use: _name(dtype)})


def read_precision(run: Path, use: str) -> torch.dtype | None:
    """What a run has kept for ``use``; None where it has kept nothing.

    Raises:
        ArtifactError: the file is damaged.
    """
    name = _read(run / KEPT).get(use)
    if name is None:
        return None
    kept: torch.dtype = getattr(torch, name)
    return kept


def measure_precisions(network: nn.Module, side_px: int, *, use: str) -> dict[torch.dtype, float]:
    """Images per second of a recognizer on the CPU, by type of activations; the best of a few turns of each."""
    network.train(use == "train")
    images = torch.randint(0, 256, (_IMAGES, side_px, side_px, 3), dtype=torch.uint8)
    cpu = torch.device("cpu")

    def forward(dtype: torch.dtype) -> Tensor:
        with autocast(cpu, dtype):
            embeddings, logits = network(images)
            total: Tensor = embeddings.sum() + logits.sum()
        return total

    def predict(dtype: torch.dtype) -> None:
        with torch.inference_mode():
            forward(dtype)

    def train(dtype: torch.dtype) -> None:
        forward(dtype).backward()  # type: ignore[no-untyped-call]
        network.zero_grad()

    step: Callable[[torch.dtype], None] = train if use == "train" else predict
    types = (torch.float32, torch.bfloat16)
    started = time.monotonic()
    seconds = dict.fromkeys(types, float("inf"))
    for turn in range(_TURNS + 1):  # the first warms up, and counts only where there is time for no other
        if turn > 1 and time.monotonic() - started > _SECONDS:
            break
        for dtype in types:
            begun = time.perf_counter()
            step(dtype)
            taken = time.perf_counter() - begun
            seconds[dtype] = taken if turn == 1 else min(seconds[dtype], taken)
    return {dtype: _IMAGES / taken for dtype, taken in seconds.items()}


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(kept, dict) or not all(name in ("float32", "bfloat16", "float16") for name in kept.values()):
            raise ValueError("it must hold names of number types")
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file}: is damaged ({error}). Delete it, and name the type in train.precision.") from None
    return kept


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
