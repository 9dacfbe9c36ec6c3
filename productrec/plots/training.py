"""Training curves: the figures of a training by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.plots.figure import clean, count_in_whole_numbers, drawing
from productrec.plots.palette import LINES, MARKERS, get_colour

if TYPE_CHECKING:
    from productrec.plots.figure import Axes, Figure

_HEALTH = ("embedding_similarity", "active_pairs", "learning_rate_factor")
_RAW = "raw_"  # of the weights that are not averaged
_FEW = 12  # epochs, each of which gets a marker


def draw_training_curves(epochs: Sequence[Mapping[str, float]]) -> Figure:
    """The figures of a training by epoch: losses by term, validation, and how the embeddings stand.

    Args:
        epochs: the lines of ``metrics.jsonl``, each with its ``epoch``, from 0.
    """
    names = list(dict.fromkeys(name for line in epochs for name in line))
    panels = {
        "losses": [name for name in names if name.startswith("train_")],
        "validation": [name for name in names if name.removeprefix(_RAW) in VALIDATION_FIGURES],
        "embeddings and rate": [name for name in names if name in _HEALTH],
    }
    panels = {title: shown for title, shown in panels.items() if shown} or {"losses": []}
    title = "Training curves: losses by term, validation figures and the state of the embeddings, by epoch"
    with drawing(title, columns=len(panels), width=3.6 * len(panels), height=2.8, share_x=True) as (figure, axes):
        for axis, (heading, shown) in zip(axes[0], panels.items(), strict=True):
            _draw_panel(axis, shown, epochs)
            axis.set_title(heading)
            axis.set_xlabel("epoch")
            count_in_whole_numbers(axis)
    return figure


def _draw_panel(axis: Axes, shown: Sequence[str], epochs: Sequence[Mapping[str, float]]) -> None:
    hues = list(dict.fromkeys(name.removeprefix(_RAW) for name in shown))
    for name in shown:
        place, raw = hues.index(name.removeprefix(_RAW)), name.startswith(_RAW)
        points = [(line["epoch"] + 1, line[name]) for line in epochs if name in line]
        label = clean(name.removeprefix("train_").replace("_", " "))
        style = ":" if raw else LINES[place % len(LINES)]
        marker = MARKERS[place % len(MARKERS)] if len(points) == 1 or (len(points) <= _FEW and not raw) else ""
        axis.plot(
            *zip(*points, strict=True),
            label=label,
            color=get_colour(place),
            linestyle=style,
            marker=marker,
            linewidth=0.8 if raw else 1.4,
            fillstyle="none" if raw else "full",
        )
    axis.grid(axis="y")
    if shown:
        axis.legend(fontsize=6)
