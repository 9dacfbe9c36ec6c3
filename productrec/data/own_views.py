"""Views of a user's own: a YAML file that names albumentations pipelines; no pixels are touched here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from productrec.data.view_presets import PRESETS, View
from productrec.errors import RecipeError
from productrec.settings.text import read_settings

SUFFIXES = (".yaml", ".yml", ".json")
_SEE = "See docs/predicting.md, Views of your own."
_TRANSFORM = "transform"  # under which albumentations writes a pipeline


def name_own(file: str) -> str:
    """The name of the preset that a file makes, under which its results lie in a run: its own, without the ending.

    Raises:
        ValueError: it cannot be the name of a folder, or it is that of a preset.
    """
    name = Path(file).stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"a file of views must be named by letters, digits, - and _; got {file!r}. Rename it")
    if name in PRESETS:
        raise ValueError(f"a file of views must not have the name of a preset; got {file!r}. Rename it")
    return name


def load_own_views(file: str) -> tuple[View, ...]:
    """The plain view, then one for each pipeline of a file, in its order.

    The file holds ``views``, a mapping of names to pipelines, each as `albumentations.save` writes it, or the name of a
    file (beside this one) that it wrote; or it is one pipeline itself. A view's name ends in the digest of its
    pipeline, so that sets which another pipeline made are never taken for its own.

    Raises:
        RecipeError: no such file, or no views in it.
    """
    path = Path(file)
    held = read_settings(path, kind="file of views", see=_SEE)
    named = {path.stem: held} if _TRANSFORM in held else held.get("views")
    if not isinstance(named, Mapping) or not named or set(held) - {"views", _TRANSFORM, "__version__"}:
        raise RecipeError(f"{path}: must hold views, a mapping of names to pipelines; got {sorted(held)}. {_SEE}")
    views = [View("plain")]
    for name, value in named.items():
        pipeline = read_settings(path.parent / value, kind="pipeline", see=_SEE) if isinstance(value, str) else value
        if not isinstance(pipeline, Mapping) or not isinstance(pipeline.get(_TRANSFORM), Mapping):
            raise RecipeError(
                f"{path}: view {name} must be a pipeline that albumentations.save wrote, or the file of one; got "
                f"{str(pipeline)[:60]!r}. {_SEE}"
            )
        views.append(View(str(name), pipeline=_write(pipeline[_TRANSFORM])))
    return tuple(views)


def _write(transform: Mapping[str, Any]) -> str:
    """A pipeline as text, the same for the same settings; the version of albumentations is left out."""
    return json.dumps({_TRANSFORM: transform}, sort_keys=True)
