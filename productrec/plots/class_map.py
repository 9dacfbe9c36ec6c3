"""Class map: classes as points of a plane, those that the network takes for like ones near to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from productrec.errors import DataError
from productrec.plots.figure import clean, drawing
from productrec.plots.palette import CYCLE, GREY, MARKERS, get_colour

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

_MOST_NAMES = 40  # more would cover each other


def draw_class_map(points: np.ndarray, names: Sequence[str], groups: Sequence[str] | None = None) -> Figure:
    """Classes as points, the largest groups in a colour and a marker each, all others grey.

    Args:
        points: (C, 2) finite, of any scale.
        names: (C,) of the classes, drawn where they are few.
        groups: (C,) such as categories; None for none.

    Raises:
        DataError: points, names and groups are not of one length.
    """
    given = list(groups) if groups is not None else [""] * len(names)
    if points.shape != (len(names), 2) or len(given) != len(names):
        raise DataError(
            f"class map: points must be (C, 2), names and groups (C,); got {points.shape}, {len(names)} and "
            f"{len(given)}. Give one of each a class."
        )
    largest = [group for group, _ in Counter(filter(None, given)).most_common(len(CYCLE))]
    with drawing("Map of the classes", width=6.4, height=5.2) as (figure, axes):
        axis = axes[0][0]
        shown = [(group, get_colour(place), MARKERS[place]) for place, group in enumerate(largest)]
        others = "" if not largest else "others"
        for group, colour, marker in [*shown, (None, GREY if largest else CYCLE[0], "o")]:
            rows = [row for row, own in enumerate(given) if (own == group if group else own not in largest)]
            if rows:
                label = clean(group) if group else others
                axis.scatter(
                    points[rows, 0],
                    points[rows, 1],
                    s=14,
                    color=colour,
                    marker=marker,
                    linewidths=0,
                    label=label or None,
                )
        if len(names) <= _MOST_NAMES:
            for (x, y), name in zip(points.tolist(), names, strict=True):
                axis.annotate(clean(name, 20), (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_aspect("equal", adjustable="datalim")
        axis.spines[:].set_visible(False)
        if largest:
            figure.legend(loc="outside right upper")
    return figure
