"""Photos through a run's network, batch by batch, as prediction, a growing index and a server all see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from productrec.assembly.resources import choose_loader_workers
from productrec.data.dataset import ViewBatch, ViewedImages, build_view_loader
from productrec.data.images import Images
from productrec.data.view_presets import get_views, plan_views
from productrec.data.views import cut_views
from productrec.models.inference import ViewRecognizer
from productrec.models.recognizer import Recognizer
from productrec.recipe import Recipe


class Seen(NamedTuple):
    """A batch: ``rows`` (B,) of the photos, ``embeddings`` (B, D), ``logits`` (B, C), ``broken``: reasons by row."""

    rows: list[int]
    embeddings: np.ndarray
    logits: np.ndarray
    broken: dict[int, str]


class PhotoRecognizer:
    """A network that looks at photos through a preset of views, and averages what it sees."""

    def __init__(
        self, network: Recognizer, *, views: str, side_px: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Prepare.

        Args:
            network: on ``device``.
            views: preset.
            side_px: of the squares that the network sees.
            device: to compute on.
            dtype: to compute in.
        """
        self._views, self._side_px, self._device = get_views(views), side_px, device
        self._cuts, plan = plan_views(self._views)
        self._recognise = ViewRecognizer(network, plan, device=device, dtype=dtype)

    def go_through(self, photos: Images, recipe: Recipe, *, batch_size: int) -> Iterator[Seen]:
        """What the network says of photos, batch by batch, in their order.

        Args:
            photos: files, boxes in them, or pictures in memory.
            recipe: how many loader processes.
            batch_size: photos at a time.
        """
        loader = build_view_loader(
            ViewedImages(photos, self._views, self._side_px),
            batch_size=batch_size,
            workers=choose_loader_workers(recipe, self._device),
            pin_memory=self._device.type == "cuda",
        )
        batch: ViewBatch
        for batch in loader:
            yield self._see(batch.rows.tolist(), batch.cuts, batch.broken)

    def cut(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The squares (S, S, 3) that the views need of a picture (H, W, 3); threads may call it side by side."""
        return cut_views(pixels, self._cuts, self._side_px)

    def see(self, photos: Sequence[Sequence[np.ndarray]]) -> Seen:
        """What the network says of one batch of photos, each given by its squares of `cut`."""
        stacked = [torch.from_numpy(np.stack(squares)) for squares in zip(*photos, strict=True)]
        return self._see(list(range(len(photos))), stacked, {})

    def _see(self, rows: list[int], cuts: Sequence[torch.Tensor], broken: dict[int, str]) -> Seen:
        _, seen = self._recognise(cuts)
        return Seen(rows, seen.embeddings.numpy(), seen.logits.numpy(), broken)
