"""Training augmentation: presets with a stated intent, or a serialised pipeline; the one user of albumentations."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version

import albumentations as A
import cv2
import numpy as np

from productrec.data.view_presets import View
from productrec.data.views import resize_square
from productrec.errors import DataError, RecipeError

PRESETS = {
    "none": "resize only",
    "light": "crops down to half the area and flips: clean studio photographs",
    "product": "crops down to a third, flips, mild colour: product photographs by phone",
    "in_the_wild": "product, and tilt, blur, noise, compression, shade: test images unlike the training images",
    "heavy": "crops down to a fifth, flips, rotation, shear, strong colour, erased patches: few images, long trainings",
}
_LOADED = threading.local()  # pipelines by their text
MEAN_COLOUR = (124.0, 116.0, 104.0)  # ImageNet's, which most backbones' normalisation takes to nearly 0


class Augmentation:
    """Turns an image of any size into a square for training, by a seed alone: workers and resumes change nothing.

    ``masking``: what masks bands of the finished square, see `build_bands`; None for nothing.
    """

    def __init__(self, pipeline: A.Compose, side_px: int, masking: A.XYMasking | None = None) -> None:
        self._pipeline = pipeline
        self.side_px = side_px
        self._masking = masking

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Augment ``image`` (H, W, 3) uint8 with the randomness of ``seed``, an integer from 0 to 2**32 - 1.

        Returns:
            (side_px, side_px, 3) uint8.
        """
        # One stream for all: `set_random_seed` gives each transform one that begins alike, which ties what they do.
        numbers, draws = np.random.default_rng(seed), random.Random(seed)
        self._pipeline.set_random_state(numbers, draws)
        pixels: np.ndarray = self._pipeline(image=image)["image"]
        if pixels.shape != (self.side_px, self.side_px, 3):
            pixels = resize_square(pixels, self.side_px)
        if self._masking is not None:
            self._masking.set_random_state(numbers, draws)
            pixels = self._masking(image=pixels)["image"]
        return np.ascontiguousarray(pixels)


def grow_sides(first_px: int, last_px: int, epochs: int) -> list[int]:
    """The side of each epoch's squares: from ``first_px`` up to ``last_px`` over the first half, in steps of 16.

    Small squares first: a network learns the coarse from them in a fraction of the time (Tan and Le, ICML 2021,
    section 4.2; without its growing regularisation).
    """
    growing = epochs // 2
    sides = []
    for epoch in range(epochs):
        share = min(1.0, epoch / growing) if growing else 1.0
        side_px = first_px + (last_px - first_px) * share
        sides.append(last_px if share == 1.0 else min(last_px, round(side_px / 16) * 16))
    return sides


def build_bands(count: int, share: float, side_px: int) -> A.XYMasking | None:
    """What masks bands of rows and bands of columns of a square; None for a ``count`` of 0.

    Frequency and time masking of SpecAugment (Park et al., Interspeech 2019, section 2), on images: ``count`` times
    along each axis a width is drawn from 0 to ``share`` of the side, then where the band lies, all evenly. Bands may
    overlap. They are filled with ImageNet's mean colour, as the paper's with the mean of its spectrograms.
    """
    if not count:
        return None
    widths_px = (0, max(1, int(share * side_px)))
    return A.XYMasking((count, count), (count, count), widths_px, widths_px, fill=MEAN_COLOUR, p=1.0)


def build_augmentation(name: str, side_px: int, *, bands: int = 0, band_share: float = 0.2) -> Augmentation:
    """A preset by name, or a pipeline that ``albumentations.save`` wrote (YAML or JSON), by file.

    Args:
        name: of the preset, or of the file.
        side_px: of the squares.
        bands: see `build_bands`, as ``band_share``.
        band_share: above 0 and below 1.

    Raises:
        RecipeError: neither a preset nor a readable pipeline.
    """
    masking = build_bands(bands, band_share, side_px)
    if name in PRESETS:
        return Augmentation(A.Compose(_build_preset(name, side_px)), side_px, masking)
    path = Path(name)
    if not path.is_file():
        raise RecipeError(f"train.augmentation: must be one of {', '.join(PRESETS)} or a file; got {name!r}.")
    try:
        pipeline = _compose(A.load(path, data_format="json" if path.suffix == ".json" else "yaml"))
    except Exception as error:  # albumentations raises whatever a wrong file makes it stumble over
        raise RecipeError(f"{path}: is not a serialised albumentations pipeline ({_shorten(error)}).") from None
    augmentation = Augmentation(pipeline, side_px)
    try:
        pixels = augmentation(np.zeros((side_px * 2, side_px * 2, 3), np.uint8), 0)
    except Exception as error:
        raise RecipeError(
            f"{path}: must take an RGB uint8 image and give one back ({type(error).__name__}: {error})."
        ) from None
    if pixels.dtype != np.uint8 or pixels.shape != (side_px, side_px, 3):
        raise RecipeError(
            f"{path}: must give back an RGB uint8 image; got {pixels.dtype} of shape {pixels.shape}. "
            "Leave out normalisation, conversion to grey and to tensors: the network's input is made later."
        )
    return Augmentation(pipeline, side_px, masking)


def check_pipelines(views: Sequence[View], side_px: int) -> None:
    """Refuse views whose pipelines cannot be used, before any work, by trying them on blank images.

    Raises:
        RecipeError: one is no albumentations pipeline, fails, or gives another size than it was given and than
            ``side_px``, or something else than an RGB uint8 image.
    """
    for view in views:
        if not view.pipeline:
            continue
        try:
            _load_pipeline(view.pipeline)
        except Exception as error:  # albumentations raises whatever a wrong file makes it stumble over
            raise RecipeError(
                f"view {view.name}: is not a serialised albumentations pipeline ({_shorten(error)})."
            ) from None
        for number, shape in enumerate(((2 * side_px, 3 * side_px, 3), (3 * side_px, 2 * side_px, 3))):
            try:
                apply_pipeline(view.pipeline, np.full(shape, 127, np.uint8), side_px, draw=str(number))
            except DataError as error:
                raise RecipeError(f"view {view.name}: {error}") from None


def apply_pipeline(text: str, image: np.ndarray, side_px: int, *, draw: str) -> np.ndarray:
    """What a serialised pipeline makes of an image; threads may do it side by side.

    Args:
        text: the pipeline.
        image: (H, W, 3) uint8.
        side_px: S.
        draw: names what it draws: the same again by the same name.

    Returns:
        (S, S, 3) uint8; what keeps the image's own size is resized as every view is.

    Raises:
        DataError: the pipeline fails, or gives another size or kind of image.
    """
    seed = int.from_bytes(hashlib.blake2b(draw.encode(), digest_size=4).digest(), "little")
    try:
        pipeline = _load_pipeline(text)
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        pixels = np.asarray(pipeline(image=image)["image"])
    except Exception as error:  # of whatever its transforms stumble over
        raise DataError(f"its pipeline must take RGB uint8 images; got {_shorten(error)}.") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"its pipeline must give back RGB uint8 images; got {pixels.dtype} of shape {pixels.shape}. Leave out "
            "normalisation, conversion to grey and to tensors: the network's input is made later."
        )
    if pixels.shape not in ((side_px, side_px, 3), image.shape):
        height, width = pixels.shape[:2]
        raise DataError(
            f"its pipeline must keep the size of an image, or give squares of {side_px} pixels, the network's side; "
            f"got {height} x {width} of {image.shape[0]} x {image.shape[1]}. End it with Resize({side_px}, {side_px})."
        )
    is_square = pixels.shape == (side_px, side_px, 3)
    return np.ascontiguousarray(pixels if is_square else resize_square(pixels, side_px))


def _load_pipeline(text: str) -> A.Compose:
    """The pipeline of a text, once a thread, since what it draws with is its own."""
    held: dict[str, A.Compose] = _LOADED.__dict__
    if text not in held:
        held[text] = _compose(A.from_dict(json.loads(text)))
    return held[text]


def _compose(loaded: Any) -> A.Compose:
    return loaded if isinstance(loaded, A.Compose) else A.Compose([loaded])


def _shorten(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _crop(size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> A.RandomResizedCrop:
    """A random part made a square, shrunk by averaging, as views are: lines that flicker would be another product's."""
    return A.RandomResizedCrop(size, scale=scale, ratio=ratio, area_for_downscale="image")


def _build_preset(name: str, side_px: int) -> list[Any]:
    size = (side_px, side_px)
    if name == "none":
        return [A.Resize(*size, interpolation=cv2.INTER_AREA)]
    if name == "light":
        return [_crop(size, (0.5, 1.0), (0.8, 1.25)), A.HorizontalFlip(p=0.5)]
    if name == "product":
        return [
            _crop(size, (0.35, 1.0), (0.75, 4 / 3)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.03, 0.03), p=0.8),
        ]
    if name == "in_the_wild":
        return [
            _crop(size, (0.3, 1.0), (0.75, 4 / 3)),
            A.HorizontalFlip(p=0.5),
            A.Perspective(scale=(0.02, 0.08), p=0.4, border_mode=cv2.BORDER_REFLECT_101),
            A.Affine(rotate=(-15, 15), p=0.4, border_mode=cv2.BORDER_REFLECT_101),
            A.ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=(-0.04, 0.04), p=0.8),
            A.RandomShadow(p=0.2),
            A.OneOf(
                [
                    A.MotionBlur(blur_limit=(3, 7)),
                    A.GaussianBlur(blur_limit=(3, 5)),
                    A.GaussNoise(std_range=(0.02, 0.08)),
                ],
                p=0.3,
            ),
            A.ImageCompression(quality_range=(35, 90), p=0.3),
        ]
    return [
        _crop(size, (0.2, 1.0), (0.7, 1.4)),
        A.HorizontalFlip(p=0.5),
        A.Affine(rotate=(-25, 25), shear=(-8, 8), p=0.5, border_mode=cv2.BORDER_REFLECT_101),
        A.ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=(-0.04, 0.04), p=0.8),
        A.CoarseDropout(
            num_holes_range=(1, 2), hole_height_range=(0.1, 0.35), hole_width_range=(0.1, 0.35), fill="random", p=0.4
        ),
    ]
