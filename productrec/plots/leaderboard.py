"""Leaderboard: the public score of each submission over its validation score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.plots.figure import clean, drawing
from productrec.plots.palette import COLOURS

if TYPE_CHECKING:
    from productrec.plots.figure import Figure


def draw_leaderboard(points: Sequence[tuple[str, str, float, float]]) -> Figure:
    """The public score of each submission over its validation score, a panel for each competition and metric.

    Args:
        points: panel, label, validation score and public score of each; at least one.
    """
    panels = list(dict.fromkeys(panel for panel, *_ in points))
    with drawing("Public scores over validation scores", columns=len(panels), width=4.0 * len(panels)) as drawn:
        figure, axes = drawn
        for axis, title in zip(axes[0], panels, strict=True):
            for panel, label, validation, public in points:
                if panel == title:
                    axis.scatter(validation, public, s=16, color=COLOURS["blue"])
                    place = (validation, public)
                    axis.annotate(clean(label), place, xytext=(4, 4), textcoords="offset points", fontsize=6)
            axis.margins(0.2)
            axis.set_title(clean(title))
            axis.set_xlabel("validation")
            axis.set_ylabel("public leaderboard")
    return figure
