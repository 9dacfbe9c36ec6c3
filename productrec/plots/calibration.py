"""Calibration: how often answers are right, over how sure they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from productrec.metrics.calibration import Reliability
from productrec.plots.figure import clean, drawing
from productrec.plots.palette import GREY, LINES, MARKERS, get_colour

if TYPE_CHECKING:
    from productrec.plots.figure import Figure


def draw_calibration(curves: Mapping[str, Reliability]) -> Figure:
    """Accuracy over confidence with 95 % intervals, and below it how many answers each point stands for.

    Args:
        curves: by title, as `compute_reliability` gives them; at least one.
    """
    title = "Calibration: accuracy over confidence, with the number of answers"
    with drawing(title, rows=2, width=4.2, height=4.2, share_x=True, height_ratios=[4, 1]) as (figure, axes):
        (upper,), (lower,) = axes
        upper.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle=":")
        for place, (name, curve) in enumerate(curves.items()):
            colour = get_colour(place)
            sure = [100 * one.confidence for one in curve.bins]
            right = [100 * one.accuracy for one in curve.bins]
            ends = [(100 * (one.accuracy - one.low), 100 * (one.high - one.accuracy)) for one in curve.bins]
            upper.errorbar(
                sure,
                right,
                [[max(0.0, low) for low, _ in ends], [max(0.0, high) for _, high in ends]],
                color=colour,
                marker=MARKERS[place % len(MARKERS)],
                linestyle=LINES[place % len(LINES)],
                elinewidth=0.8,
                label=f"{clean(name)}, off by {100 * curve.error:.1f} % in the mean",
            )
            lower.vlines(sure, 0, [one.count for one in curve.bins], color=colour, linewidth=2, alpha=0.8)
        upper.set_ylabel("accuracy %")
        upper.set_ylim(-2, 102)
        upper.legend(loc="lower right")
        upper.grid()
        lower.set_xlabel("confidence %")
        lower.set_ylabel("answers")
        lower.set_ylim(bottom=0)
        lower.set_xlim(-2, 102)
    return figure
