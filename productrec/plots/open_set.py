"""Open-set curve: how many known products are named right, over how many unknown ones are taken for known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from productrec.plots.figure import clean, drawing
from productrec.plots.palette import GREY, LINES, get_colour

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

_MARKED = (0.001, 0.01)


def draw_open_set(curves: Mapping[str, Sequence[tuple[float, float, float]]]) -> Figure:
    """The share of known queries that are believed and right, over that of unknown queries that are believed.

    Args:
        curves: by title: threshold, true accepts and false accepts in [0, 1], thresholds descending, as
            `OpenSetFigures.list_curve` gives them and ``open_set.csv`` holds them; at least one.
    """
    title = "Open set: known products believed and right, over unknown products believed"
    with drawing(title, width=4.6, height=3.2) as (figure, axes):
        axis = axes[0][0]
        shares = [false for curve in curves.values() for _, _, false in curve if false > 0]
        least = min([*shares, 0.01])
        for share in _MARKED:
            if share >= least:
                axis.axvline(100 * share, color=GREY, linewidth=0.8, linestyle=":")
        for place, (name, curve) in enumerate(curves.items()):
            steps = [(max(false, least / 2), true) for _, true, false in curve]  # none at all stands at the left edge
            axis.step(
                [100 * false for false, _ in steps],
                [100 * true for _, true in steps],
                where="post",
                color=get_colour(place),
                linestyle=LINES[place % len(LINES)],
                label=clean(name),
            )
        axis.set_xscale("log")
        axis.set_xlim(100 * least / 2, 100)
        axis.set_ylim(0, 102)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda value, _: "")
        axis.set_xlabel("unknown queries that are believed %")
        axis.set_ylabel("known queries believed and right %")
        axis.grid(axis="y")
        axis.legend(loc="lower right")
    return figure
