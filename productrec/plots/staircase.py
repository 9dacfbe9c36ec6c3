"""Staircase of scores: what each further part of a prediction brings, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.plots.figure import clean, drawing
from productrec.plots.palette import COLOURS, GREY

if TYPE_CHECKING:
    from productrec.plots.figure import Figure


def draw_staircase(parts: Sequence[tuple[str, float, float, float]], unit: str) -> Figure:
    """A line a part from top to bottom: its value, with the interval around it.

    Args:
        parts: title, value, low and high end of each; ends that are NaN are not drawn. Titles that begin with the same
            words before a colon are joined, as the steps of one model.
        unit: what the values are, such as ``top-1 accuracy %``.
    """
    with drawing(f"Staircase of {unit}, with intervals", width=6.0, height=0.32 * len(parts) + 0.8) as (figure, axes):
        axis = axes[0][0]
        places, values = list(range(len(parts))), [value for _, value, _, _ in parts]
        owners = [title.rpartition(": ")[0] for title, *_ in parts]
        for place in places[1:]:
            if owners[place] == owners[place - 1]:  # the steps of one model
                axis.plot(values[place - 1 : place + 1], [place - 1, place], color=GREY, linewidth=0.8, zorder=1)
        for place, (_, value, low, high) in enumerate(parts):
            if not math.isnan(low) and not math.isnan(high):
                axis.plot([low, high], [place, place], color=COLOURS["blue"], linewidth=2.0, solid_capstyle="butt")
            axis.plot(value, place, "o", color=COLOURS["blue"], markersize=6)
            axis.text(1.02, place, f"{value:.1f}", transform=axis.get_yaxis_transform(), va="center")
        axis.set_yticks(places, [clean(title) for title, *_ in parts])
        axis.set_ylim(len(parts) - 0.5, -0.7)
        axis.set_xlabel(clean(unit))
        axis.margins(x=0.08)
        axis.grid(axis="x")
    return figure
