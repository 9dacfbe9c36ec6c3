"""Photos through a run's network, batch by batch, as prediction and a growing index both see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from productrec.assembly.resources import choose_loader_workers
from productrec.data.dataset import ViewBatch, ViewedImages, build_view_loader
from productrec.data.images import Images
from productrec.data.view_presets import get_views, plan_views
from productrec.models.inference import ViewRecognizer
from productrec.models.recognizer import Recognizer
from productrec.recipe import Recipe


class Seen(NamedTuple):
    """A batch: ``rows`` (B,) of the photos, ``embeddings`` (B, D), ``logits`` (B, C), ``broken``: reasons by row."""

    rows: list[int]
    embeddings: np.ndarray
    logits: np.ndarray
    broken: dict[int, str]


def recognise_photos(
    photos: Images,
    network: Recognizer,
    recipe: Recipe,
    *,
    views: str,
    side_px: int,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Seen]:
    """What a network says of photos through a preset of views, averaged.

    Args:
        photos: files, boxes in them, or pictures in memory.
        network: on ``device``.
        recipe: how many loader processes.
        views: preset.
        side_px: of the squares that the network sees.
        batch_size: photos at a time.
        device: to compute on.
        dtype: to compute in.
    """
    seen_views = get_views(views)
    _, plan = plan_views(seen_views)
    loader = build_view_loader(
        ViewedImages(photos, seen_views, side_px),
        batch_size=batch_size,
        workers=choose_loader_workers(recipe, device),
        pin_memory=device.type == "cuda",
    )
    recognise = ViewRecognizer(network, plan, device=device, dtype=dtype)
    batch: ViewBatch
    for batch in loader:
        _, seen = recognise(batch.cuts)
        yield Seen(batch.rows.tolist(), seen.embeddings.numpy(), seen.logits.numpy(), batch.broken)
