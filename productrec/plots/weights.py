"""Weight curves: how every pair loss weighs a pair, over the three similarities of General Pair Weighting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.catalogue import list_pair_losses
from productrec.losses.engine.weight_curves import VIEWS, compute_weight_curve
from productrec.plots.figure import drawing
from productrec.plots.palette import COLOURS

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

_OF = {True: ("a positive's weight", COLOURS["blue"], "-"), False: ("a negative's weight", COLOURS["vermilion"], "--")}


def draw_weight_curves() -> Figure:
    """How every pair loss of the catalogue weighs a pair; each curve is divided by its largest weight."""
    losses = list_pair_losses()
    title = "Weights that each pair loss gives to a pair, over its similarities"
    height = 1.3 * len(losses) + 1.0
    with drawing(title, rows=len(losses), columns=len(VIEWS), width=9.0, height=height, share_x=True) as drawn:
        figure, axes = drawn
        for row, (name, (loss, mining)) in zip(axes, losses.items(), strict=True):
            for view, axis in zip(VIEWS, row, strict=True):
                for of_positive, (label, colour, line) in _OF.items():
                    curve = compute_weight_curve(loss, view, of_positive=of_positive, mining=mining)
                    weights = curve.weights / (float(curve.weights.max()) or 1.0)
                    axis.plot(curve.similarities, weights, line, color=colour, linewidth=1.2, label=label)
                axis.set_ylim(-0.05, 1.1)
                axis.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0])
                axis.set_yticks([])
            row[0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        for view, axis in zip(VIEWS, axes[0], strict=True):
            axis.set_title(f"{view} similarity")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
