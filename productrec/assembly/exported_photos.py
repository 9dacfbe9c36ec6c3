"""Photos through an exported file, batch by batch, where there is no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from productrec.assembly.photo_network import Seen
from productrec.data.images import Images
from productrec.data.view_presets import View, plan_views
from productrec.data.views import cut_views
from productrec.errors import DataError, RecipeError
from productrec.exported import ExportedModel
from productrec.runtime import count_cores

_MOST_DECODERS = 4  # threads; a large photo takes some hundred MB while it is decoded
_LEAST = np.finfo(np.float32).tiny  # a probability of 0 stands for one that float32 cannot hold


class ExportedRecognizer:
    """An exported file as a `photo_network.PhotoNetwork`.

    The file gives probabilities; their logarithms are its logits but for one number an image, which no softmax sees.
    """

    def __init__(self, model: ExportedModel, *, views: Sequence[View], average: str = "logits", seed: int = 0) -> None:
        """Prepare.

        Args:
            model: that looks.
            views: to look through.
            average: over views, ``logits`` or ``probabilities``.
            seed: decides what random pipelines draw; every photo is asked as if alone.

        Raises:
            RecipeError: a view has another size than the file takes, or a pipeline that cannot be used.
        """
        self._model = model
        self._average, self._seed = average, seed
        self._cuts, self._plan = plan_views(views)
        if not can_look_through(views):
            odd = next(view.name for view in views if view.scale != 1.0)
            raise RecipeError(
                f"views: must be of the size that the exported file takes, {model.side_px} pixels; got {odd}, which is "
                "scaled. Look through plain, flip, five_crops, ten_crops or turns, or ask the run."
            )
        if any(view.pipeline for view in views):
            from productrec.data.transforms import check_pipelines  # brings albumentations

            check_pipelines(views, model.side_px)

    def go_through(self, photos: Images, *, batch_size: int) -> Iterator[Seen]:
        """See `PhotoNetwork.go_through`."""
        side_px = self._model.side_px
        blank = [np.zeros((side_px, side_px, 3), np.uint8)] * len(self._cuts)
        with ThreadPoolExecutor(min(_MOST_DECODERS, count_cores()), thread_name_prefix="decode") as pool:

            def read(row: int) -> list[np.ndarray] | str:
                try:
                    return self.cut(photos.decode(row))
                except DataError as error:
                    return str(error)

            for start in range(0, len(photos), batch_size):
                rows = list(range(start, min(start + batch_size, len(photos))))
                found = list(pool.map(read, rows))
                broken = {row: cuts for row, cuts in zip(rows, found, strict=True) if isinstance(cuts, str)}
                seen = self.see([blank if isinstance(cuts, str) else cuts for cuts in found])
                yield seen._replace(rows=rows, broken=broken)

    def cut(self, pixels: np.ndarray) -> list[np.ndarray]:
        """See `PhotoNetwork.cut`."""
        return cut_views(pixels, self._cuts, self._model.side_px, seed=self._seed)

    def see(self, photos: Sequence[Sequence[np.ndarray]]) -> Seen:
        """See `PhotoNetwork.see`."""
        cuts = [np.stack(squares) for squares in zip(*photos, strict=True)]
        answers = [
            self._model.recognise(_turn(cuts[number], mirrored, turns)) for number, mirrored, turns in self._plan
        ]
        embeddings = np.mean([answer.embeddings for answer in answers], axis=0)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        if self._average == "probabilities":
            logits = _take_logarithm(np.mean([answer.probabilities for answer in answers], axis=0))
        else:
            logits = np.mean([_take_logarithm(answer.probabilities) for answer in answers], axis=0)
        return Seen(list(range(len(photos))), embeddings, logits, {})


def can_look_through(views: Sequence[View]) -> bool:
    """Whether every view is of the network's own size, the only one that an exported file takes."""
    return all(view.scale == 1.0 for view in views)


def _take_logarithm(probabilities: np.ndarray) -> np.ndarray:
    logits: np.ndarray = np.log(np.maximum(probabilities, _LEAST))
    return logits


def _turn(images: np.ndarray, mirrored: bool, turns: int) -> np.ndarray:
    """Images (B, S, S, 3) mirrored, then turned by quarters to the left."""
    if mirrored:
        images = images[:, :, ::-1]
    return np.ascontiguousarray(np.rot90(images, turns, axes=(1, 2)))
