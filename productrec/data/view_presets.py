"""Presets of views: the variants of one image that test-time augmentation averages over, by name.

A preset is an entry of `PRESETS`, and nothing else has to know of it. No pixels are touched here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from productrec.errors import RecipeError

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_EDGE = 0.15


class Pipeline(NamedTuple):
    """What a view of the user's own does with an image: an albumentations pipeline as text, for the view ``name``."""

    name: str
    text: str


class Cut(NamedTuple):
    """What has to be made of an image: a part of it, resized by a scale; or what a pipeline makes of all of it."""

    box: Box
    scale: float
    pipeline: Pipeline | None = None


@dataclass(frozen=True)
class View:
    """One variant: a part of the image (left, top, right, bottom as fractions), its scale, and what is done with it.

    The part is resized to a square of ``scale`` times the network's side; ``flip``: then mirrored; ``turns``: then
    turned by so many quarters, to the left. ``pipeline``: instead of all these, see `own_views`.
    """

    name: str
    box: Box = WHOLE
    scale: float = 1.0
    flip: bool = False
    turns: int = 0
    pipeline: str = ""

    @property
    def cut(self) -> Cut:
        """What has to be cut from the image; mirrored and turned views share their cut with the plain one."""
        return Cut(self.box, self.scale, Pipeline(self.name, self.pipeline) if self.pipeline else None)

    @property
    def title(self) -> str:
        """What artefacts call it: its name, with the digest of its pipeline where it has one."""
        if not self.pipeline:
            return self.name
        return f"{self.name}@{hashlib.sha256(self.pipeline.encode()).hexdigest()[:12]}"


_PLAIN = View("plain")
_FLIP = View("flip", flip=True)
_CROPS = (
    View("centre", (_EDGE / 2, _EDGE / 2, 1 - _EDGE / 2, 1 - _EDGE / 2)),
    View("top_left", (0.0, 0.0, 1 - _EDGE, 1 - _EDGE)),
    View("top_right", (_EDGE, 0.0, 1.0, 1 - _EDGE)),
    View("bottom_left", (0.0, _EDGE, 1 - _EDGE, 1.0)),
    View("bottom_right", (_EDGE, _EDGE, 1.0, 1.0)),
)
# A crop enlarged by more than it was cut shows the product as large as training crops do, with all the pixels it has: a
# network trained on random crops sees objects larger than in whole images (Touvron et al. 2019, arXiv 1906.06423).
_ZOOMED = tuple(View(f"{view.name}_zoomed", view.box, scale=1.25) for view in _CROPS)
_SCALES = (View("scale_0.85", scale=0.85), View("scale_1.25", scale=1.25))


_TURNS = tuple(View(f"turn_{90 * turns}", turns=turns) for turns in (1, 2, 3))


def _mirror(views: tuple[View, ...]) -> tuple[View, ...]:
    return tuple(View(f"{view.name}_flip", view.box, view.scale, True) for view in views)


PRESETS: dict[str, tuple[View, ...]] = {
    "plain": (_PLAIN,),
    "flip": (_PLAIN, _FLIP),
    "five_crops": (_PLAIN, _FLIP, *_CROPS),
    "ten_crops": (_PLAIN, _FLIP, *_CROPS, *_mirror(_CROPS)),
    "turns": (_PLAIN, *_TURNS),
    "scales": (_PLAIN, _FLIP, *_SCALES, *_mirror(_SCALES)),
    "zoom": (_PLAIN, _FLIP, *_ZOOMED, *_mirror(_ZOOMED)),
    "full": (_PLAIN, _FLIP, *_CROPS, *_mirror(_CROPS), *_ZOOMED, *_mirror(_ZOOMED), *_SCALES, *_mirror(_SCALES)),
}


def get_views(preset: str, own: Mapping[str, str] | None = None) -> tuple[View, ...]:
    """Views of a preset; the plain view is always the first.

    Args:
        preset: by name.
        own: files of the user's own presets, by name.

    Raises:
        RecipeError: no such preset, or its file is none.
    """
    if own and preset in own:
        from productrec.data.own_views import load_own_views  # which reads YAML

        return load_own_views(own[preset])
    if preset not in PRESETS:
        raise RecipeError(f"tta: must be one of {', '.join(PRESETS)}; got {preset!r}.")
    return PRESETS[preset]


def plan_views(views: Sequence[View]) -> tuple[tuple[Cut, ...], list[tuple[int, bool, int]]]:
    """What has to be cut from an image for some views, each once, and what to do with it for each view.

    Returns:
        Cuts; and for each view the number of its cut, whether it is mirrored, and by how many quarters it is turned.
    """
    cuts = tuple(dict.fromkeys(view.cut for view in views))
    return cuts, [(cuts.index(view.cut), view.flip, view.turns) for view in views]
