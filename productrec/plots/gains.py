"""Gains and losses by class of one model over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.plots.figure import clean, count_in_whole_numbers, drawing
from productrec.plots.palette import COLOURS, INK

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

_MOST = 30


def draw_gains(classes: Sequence[tuple[str, int, int]], *, first: str, second: str, most: int = _MOST) -> Figure:
    """How many images of each class only the second model has right, to the right, and only the first, to the left.

    Args:
        classes: name, images that only the second has right, images that only the first has right.
        first, second: names of the models.
        most: classes that are drawn: those that moved most, the greatest gain above.
    """
    moved = [one for one in classes if one[1] or one[2]]
    moved = sorted(moved, key=lambda one: (-max(one[1], one[2]), -abs(one[1] - one[2]), one[0]))[:most]
    moved.sort(key=lambda one: (one[2] - one[1], one[0]))
    title = f"Images of each class that only {first} or only {second} has right"
    with drawing(title, width=6.4, height=0.19 * max(3, len(moved)) + 1.0) as (figure, axes):
        axis, places = axes[0][0], list(range(len(moved)))
        axis.barh(places, [-lost for *_, lost in moved], color=COLOURS["vermilion"], label=f"only {clean(first)}")
        axis.barh(places, [gained for _, gained, _ in moved], color=COLOURS["blue"], label=f"only {clean(second)}")
        axis.axvline(0, color=INK, linewidth=0.7)
        axis.set_yticks(places, [clean(name) for name, *_ in moved])
        axis.set_ylim(max(3, len(moved)) - 0.4, -0.6)
        count_in_whole_numbers(axis)
        axis.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axis.set_ylabel("class")
        axis.set_xlabel("images that one of the two has right")
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=2)
    return figure
