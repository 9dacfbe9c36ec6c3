"""The recipe of a benchmark: a pipeline's settings with one model in the place of its members."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from productrec.recipe import Recipe, build_recipe, load_recipe


def load_single_recipe(path: Path, *, backbone: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe of one network from random weights: what ``path`` says for all its members, with ``backbone``."""
    settings = load_recipe(path, overrides).dump()
    settings["members"] = {}
    settings["model"] |= {"backbone": backbone, "pretrained": False}
    return build_recipe(settings)
