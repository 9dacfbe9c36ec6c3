"""Sections of scores: the staircase, training curves, confidence against accuracy, and the open-set curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from productrec.metrics.calibration import Reliability
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.plots.figure import to_svg
from productrec.plots.staircase import draw_staircase
from productrec.recognition.scores import Scores
from productrec.reporting.page import Section

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

TEMPLATE = "report_figures.html.jinja"
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
Steps = Sequence[tuple[str, Scores]]
_ACCURACY = VALIDATION_FIGURES["top_1_accuracy"].title
_ERROR = VALIDATION_FIGURES["top_3_error"].title


def draw_steps(steps: Steps) -> Figure:
    """The staircase of the accuracies of each way to predict, by title, with 95 % intervals."""
    parts = [(title, scores.top_1_accuracy, *scores.top_1_interval) for title, scores in steps]
    return draw_staircase(
        [(title, 100 * value, 100 * low, 100 * high) for title, value, low, high in parts], f"{_ACCURACY} %"
    )


def build_scores(figure: Figure, steps: Steps, notes: Sequence[str] = ()) -> Section:
    """What `draw_steps` gave, with the figures as a table."""
    rows = []
    for title, scores in steps:
        low, high = scores.top_1_interval
        other, value = _get_other(scores)
        shown = (f"{100 * scores.top_1_accuracy:.1f}", f"{100 * low:.1f} to {100 * high:.1f}")
        rows.append((title, *shown, f"{100 * value:.1f} ({other})", f"{scores.images:,}"))
    columns = ("way to predict", f"{_ACCURACY} %", "95 % interval", "beside it %", "images")
    table = ("Scores of each way to predict", columns, rows)
    return build_figures("scores", "Scores", {"": figure}, notes, table)


def _get_other(scores: Scores) -> tuple[str, float]:
    """What stands beside the accuracy: the competition's metric, or, where that is it, the top-3 error."""
    if scores.metric == "top_1_accuracy":
        return _ERROR, scores.top_3_error
    return scores.metric_title, scores.metric_value


def build_calibration(figure: Figure, curves: Mapping[str, Reliability], notes: Sequence[str] = ()) -> Section:
    """How often answers are right, over how sure they were; ``figure``: of these curves."""
    told = [f"{name}: {curve.tell()}." for name, curve in curves.items()]
    return build_figures("calibration", "Confidence against accuracy", {"": figure}, [*told, *notes])


def build_tables(anchor: str, title: str, tables: Sequence[Table], notes: Sequence[str] = ()) -> Section:
    """A section of tables, each with its caption, columns and rows; then notes."""
    return Section(anchor, title, "report_tables.html.jinja", {"tables": list(tables), "notes": list(notes)})


def build_figures(
    anchor: str,
    title: str,
    figures: Mapping[str, Figure],
    notes: Sequence[str] = (),
    table: Table | None = None,
) -> Section:
    """A section of plots, each below its heading, or without one where that is empty; then notes; then a table.

    Args:
        anchor: of the section.
        title: of the section.
        figures: by heading.
        notes: sentences.
        table: caption, columns and rows.
    """
    drawn = [(heading, to_svg(figure, name=f"{anchor}-{n}")) for n, (heading, figure) in enumerate(figures.items())]
    return Section(anchor, title, TEMPLATE, {"figures": drawn, "notes": list(notes), "table": table})
