"""A recipe that another machine can take: without the paths and addresses of this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from productrec.data.view_presets import PRESETS
from productrec.recipe.predict import PredictSettings
from productrec.recipe.whole import Recipe
from productrec.settings.fields import Settings

CONTRACT = "contract.yaml"  # beside the recipe
# Texts that may be paths or addresses, beside the settings whose type is a path; and what they become.
_PLACES: dict[str, Any] = {"device": "auto", "predict.index_address": None, "predict.own_views": {}}
_VIEWS = ("predict.tta", "predict.gallery_tta")


def forget_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain values, those of its members too, with the default in the place of every path or address.

    A contract of one's own becomes `CONTRACT`, which has to stand beside the recipe. Files of own views are forgotten
    with their names: where the recipe looks through them, the default stands.

    Args:
        values: of `Recipe.dump`, or what a checkpoint keeps of one; nested.
    """
    return _forget(values, "", dict(_list_paths(Recipe)) | _PLACES)


def _forget(values: Mapping[str, Any], prefix: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in defaults:
            value = defaults[key]
        elif key == "model.pretrained" and isinstance(value, str) and _is_path(value):
            value = True  # what a network began with is not read again
        elif key in _VIEWS and value not in PRESETS:
            value = PredictSettings.model_fields[name].default
        elif key == "competition" and str(value).endswith((".yaml", ".yml")):
            value = CONTRACT
        elif key == "members" and isinstance(value, Mapping):
            value = {member: _forget(changes, "", defaults) for member, changes in value.items()}
        elif isinstance(value, Mapping):
            value = _forget(value, f"{key}.", defaults)
        changed[name] = value
    return changed


def _list_paths(section: type[Settings], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings whose type is a path, by dotted key, with their defaults as plain values."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            yield from _list_paths(kind, f"{prefix}{name}.")
        elif kind is Path or Path in get_args(kind):
            yield prefix + name, None if field.default is None else str(field.default)


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).suffix != ""
