"""A run in a process that stays: loaded once, asked again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.asking import Answer, ask, ask_cuts
from productrec.data.boxes import crop_to_box
from productrec.data.decode import decode_image
from productrec.data.images import ArrayImages, FileImages
from productrec.errors import DataError
from productrec.pipeline.asked import is_exported, prepare_asked


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo that is decoded and cut for the network, some hundred KB; from `LoadedRun.prepare`.

    ``name``: what it is called; ``cuts``: squares (S, S, 3) uint8; ``nearest``: products to name beside the class.
    """

    name: str
    cuts: list[np.ndarray]
    nearest: int


class LoadedRun:
    """A trained run, or an exported file, that recognises photos.

    >>> run = load_run("runs/mine")  # doctest: +SKIP
    >>> run.recognise(["photo.jpg"])[0].name  # doctest: +SKIP
    'cola, 0.5 l'
    """

    def __init__(
        self,
        run: str | Path,
        *,
        views: str | None = None,
        index: str | Path | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        """Load a run.

        Args:
            run: its folder, of one model; or a file of `productrec export --to onnx`, which needs no torch.
            views: preset to look through; None for that of the run's recipe.
            index: of a file, folder of the index to find near products in; None for that of the run it lies in.
            settings: ``key=value`` changes, as the command line takes them, for instance ``device=cpu``; of a run.

        Raises:
            ArtifactError: the folder holds no trained run, or something in it is damaged or of other weights.
            RecipeError: no such preset, or a setting that decides nothing here.
        """
        changes = settings if is_exported(run) else ["train.workers=0", *settings]
        self._ready = prepare_asked(run, changes, views=views, index=index)

    @property
    def folder(self) -> Path:
        """Of the run; of an exported file, the file."""
        return self._ready.run

    @property
    def way(self) -> str:
        """How it answers, in words."""
        return self._ready.way

    @property
    def class_names(self) -> list[str]:
        """Every class that it can name, those that its index has grown by among them."""
        return list(self._ready.known.names)

    @property
    def weights_digest(self) -> str:
        """Digest of the network's weights."""
        return self._ready.notes.weights_digest

    @property
    def batch_size(self) -> int:
        """Photos that it looks at at a time."""
        return self._ready.batch_size

    def recognise(self, photos: Sequence[np.ndarray | str | Path], *, nearest: int = 3) -> list[Answer]:
        """Answers for photos, in their order; products that were added to the index meanwhile are found too.

        Args:
            photos: pictures (H, W, 3) uint8 RGB, or files; all of one kind.
            nearest: products to name beside the class.

        Raises:
            DataError: a picture is of another shape or type. A file that is no photo is an answer with a reason.
        """
        if not len(photos):
            return []
        self._ready = self._ready.refresh()
        pictures = [photo for photo in photos if isinstance(photo, np.ndarray)]
        if len(pictures) == len(photos):
            images: ArrayImages | FileImages = ArrayImages(pictures)
            names = [f"picture {number}" for number in range(len(pictures))]
        elif pictures:
            raise DataError("photos: must all be pictures, or all be files; got both. Ask for each kind by itself.")
        else:
            names = [str(photo) for photo in photos]
            images = FileImages(names)
        return list(ask(self._ready, images, names, nearest=nearest))

    def prepare(
        self, data: bytes, *, name: str, box: str | None = None, nearest: int = 3, most_pixels: int | None = None
    ) -> PreparedPhoto:
        """Decode a photo and cut it for the network; threads may do it side by side.

        Args:
            data: the bytes of the file.
            name: what to call it.
            box: the part that shows the product, ``x,y,width,height`` in pixels; None for all of it.
            nearest: products to name beside the class.
            most_pixels: height times width at most; None for as many as the decoder takes.

        Raises:
            DataError: it is no photo, or a larger one.
        """
        pixels = decode_image(data, name, most_pixels=most_pixels)
        if box is not None:
            pixels = crop_to_box(pixels, box)
        return PreparedPhoto(name, self._ready.network.cut(pixels), nearest)

    def recognise_prepared(self, photos: Sequence[PreparedPhoto]) -> list[Answer]:
        """Answers for prepared photos, in their order, in one batch; else as `recognise`, by one thread at a time."""
        if not photos:
            return []
        self._ready = self._ready.refresh()
        return ask_cuts(
            self._ready,
            [photo.cuts for photo in photos],
            [photo.name for photo in photos],
            nearest=[photo.nearest for photo in photos],
        )


def load_run(run: str | Path, *, views: str | None = None, index: str | Path | None = None) -> LoadedRun:
    """Load a trained run or an exported file, to ask it for photos; see `LoadedRun`."""
    return LoadedRun(run, views=views, index=index)
