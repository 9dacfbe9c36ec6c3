"""Section of the class map: classes whose mean embeddings are near lie near each other, coloured by category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from productrec.plots.class_map import draw_class_map
from productrec.reporting.class_map import lay_out_classes
from productrec.reporting.page import Section
from productrec.reporting.score_sections import build_figures

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

MOST = 4000  # classes, beyond which the layout takes minutes


def draw_map(means: np.ndarray, names: Sequence[str], groups: Sequence[str] | None, *, seed: int = 0) -> Figure:
    """The map of classes by their mean embeddings (C, D), names (C,) and categories (C,)."""
    return draw_class_map(lay_out_classes(means, seed=seed), names, groups)


def build_class_map(figure: Figure, *, shown: int, classes: int) -> Section:
    """The map that `draw_map` gave, of so many of all classes."""
    told = "t-SNE of the classes' mean embeddings, seeded: who lies beside whom means something, distances across the "
    notes = [f"{told}map and the size of clusters mean little."]
    if shown < classes:
        notes.append(f"It shows {shown:,} of {classes:,} classes, those with the most images.")
    return build_figures("map", "Map of the classes", {"": figure}, notes)
