"""Sections of scores: the staircase, training curves, confidence against accuracy, and the open-set curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from productrec.metrics.calibration import Reliability
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.plots.calibration import draw_calibration
from productrec.plots.figure import to_svg
from productrec.plots.open_set import draw_open_set
from productrec.plots.staircase import draw_staircase
from productrec.plots.training import draw_training_curves
from productrec.recognition.scores import Scores
from productrec.reporting.page import Section

TEMPLATE = "report_figures.html.jinja"
_ACCURACY = VALIDATION_FIGURES["top_1_accuracy"].title
_ERROR = VALIDATION_FIGURES["top_3_error"].title
Curve = Sequence[tuple[float, float, float]]


def build_staircase(steps: Sequence[tuple[str, Scores]], notes: Sequence[str] = ()) -> Section:
    """The scores of each way to predict, the simplest first, with 95 % intervals of the accuracy."""
    parts, rows = [], []
    for title, scores in steps:
        low, high = scores.top_1_interval
        accuracy = 100 * scores.top_1_accuracy
        parts.append((title, accuracy, 100 * low, 100 * high))
        other, value = _get_other(scores)
        shown = (f"{accuracy:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", f"{100 * value:.1f} ({other})")
        rows.append((title, *shown, f"{scores.images:,}"))
    figure = draw_staircase(parts, f"{_ACCURACY} %")
    columns = ("way to predict", f"{_ACCURACY} %", "95 % interval", "beside it %", "images")
    return _build("scores", "Scores", [("", to_svg(figure))], notes, ("Scores of each way to predict", columns, rows))


def _get_other(scores: Scores) -> tuple[str, float]:
    """What stands beside the accuracy: the competition's metric, or, where that is it, the top-3 error."""
    if scores.metric == "top_1_accuracy":
        return _ERROR, scores.top_3_error
    return scores.metric_title, scores.metric_value


def build_curves(trainings: Mapping[str, Sequence[Mapping[str, float]]]) -> Section:
    """The training of each run by epoch: losses by term, validation figures, and how the embeddings stand."""
    figures = [
        (name, to_svg(draw_training_curves(epochs), name=f"curves-{n}"))
        for n, (name, epochs) in enumerate(trainings.items())
    ]
    return _build("curves", "Training curves", figures, ())


def build_calibration(curves: Mapping[str, Reliability], notes: Sequence[str] = ()) -> Section:
    """How often answers are right, over how sure they were."""
    told = [f"{name}: {curve.tell()}." for name, curve in curves.items()]
    return _build(
        "calibration", "Confidence against accuracy", [("", to_svg(draw_calibration(curves)))], [*told, *notes]
    )


def build_open_set(curves: Mapping[str, Curve], notes: Sequence[str] = ()) -> Section:
    """How many known products are named right, over how many unknown ones are taken for known."""
    return _build("open-set", "Unknown products", [("", to_svg(draw_open_set(curves)))], notes)


def _build(
    anchor: str,
    title: str,
    figures: Sequence[tuple[str, str]],
    notes: Sequence[str],
    table: tuple[str, Sequence[str], Sequence[Sequence[Any]]] | None = None,
) -> Section:
    data = {"figures": list(figures), "notes": list(notes), "table": table}
    return Section(anchor, title, TEMPLATE, data)
