"""Photos through a run's network, batch by batch, as prediction, a growing index and a server all see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from productrec.assembly.photo_network import Seen
from productrec.data.dataset import ViewBatch, ViewedImages, build_view_loader
from productrec.data.images import Images
from productrec.data.transforms import check_pipelines
from productrec.data.view_presets import View, plan_views
from productrec.data.views import cut_views
from productrec.models.inference import ViewRecognizer
from productrec.models.recognizer import Recognizer

_FEW = 64


class PhotoRecognizer:
    """A run's network as a `photo_network.PhotoNetwork`."""

    def __init__(
        self,
        network: Recognizer,
        *,
        views: Sequence[View],
        side_px: int,
        device: torch.device,
        dtype: torch.dtype,
        workers: int,
        average: str = "logits",
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            network: on ``device``.
            views: to look through.
            side_px: of the squares that the network sees.
            device: to compute on.
            dtype: to compute in.
            workers: loader processes; none are started for few photos, since that would take longer than these.
            average: see `ViewRecognizer`.
            seed: decides what random pipelines draw; every photo is asked as if alone.

        Raises:
            RecipeError: a view's pipeline cannot be used.
        """
        if any(view.pipeline for view in views):
            check_pipelines(views, side_px)
        self._views, self._side_px, self._device, self._workers, self._seed = views, side_px, device, workers, seed
        self._cuts, plan = plan_views(self._views)
        self._recognise = ViewRecognizer(network, plan, device=device, dtype=dtype, average=average)

    def go_through(self, photos: Images, *, batch_size: int) -> Iterator[Seen]:
        """See `PhotoNetwork.go_through`."""
        loader = build_view_loader(
            ViewedImages(photos, self._views, self._side_px, seed=self._seed, first=None),
            batch_size=batch_size,
            workers=self._workers if len(photos) > _FEW else 0,
            pin_memory=self._device.type == "cuda",
        )
        batch: ViewBatch
        for batch in loader:
            yield self._see(batch.rows.tolist(), batch.cuts, batch.broken)

    def cut(self, pixels: np.ndarray) -> list[np.ndarray]:
        """See `PhotoNetwork.cut`."""
        return cut_views(pixels, self._cuts, self._side_px, seed=self._seed)

    def see(self, photos: Sequence[Sequence[np.ndarray]]) -> Seen:
        """See `PhotoNetwork.see`."""
        stacked = [torch.from_numpy(np.stack(squares)) for squares in zip(*photos, strict=True)]
        return self._see(list(range(len(photos))), stacked, {})

    def _see(self, rows: list[int], cuts: Sequence[torch.Tensor], broken: dict[int, str]) -> Seen:
        _, seen = self._recognise(cuts)
        return Seen(rows, seen.embeddings.numpy(), seen.logits.numpy(), broken)
