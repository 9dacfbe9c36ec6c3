"""Sections of scores, built from what the runs of a report hold: scores, training, calibration, unknown products."""

from __future__ import annotations

import os

import numpy as np

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.report_scores import list_steps, load_calibration, load_open_set, load_trainings
from productrec.assembly.report_source import OUT_OF_FOLD, ReportSource
from productrec.competitions.contract import load_contract
from productrec.ensembling.ensemble_file import load_ensemble
from productrec.metrics.calibration import compute_reliability
from productrec.plots.calibration import draw_calibration
from productrec.plots.open_set import draw_open_set
from productrec.plots.training import draw_training_curves
from productrec.recognition.scores import Scores, score_answers
from productrec.reporting.page import Section
from productrec.reporting.score_sections import build_calibration, build_figures, build_scores, draw_steps

_ANSWERS = {"test": "answers to test images", OUT_OF_FOLD: "answers out of fold"}


def build_score_section(source: ReportSource) -> Section | None:
    """The scores of each way to predict."""
    steps: list[tuple[str, Scores]] = []
    for run in source.runs:
        own = list_steps(run, source.material.views)
        steps += own if len(source.runs) == 1 else [(f"{source.name(run)}: {title}", scores) for title, scores in own]
    if source.ensemble is not None and (source.ensemble / MANIFEST_NAME).is_file():
        fitted = load_ensemble(source.ensemble).fitted
        if fitted:
            steps.append(("ensembled", Scores(**fitted["scores"][fitted["way"]])))
    metric = load_contract(source.recipe.competition).scored_by
    notes = ["Of what was fitted on validation images, each image was answered by what was fitted on the others."]
    for split, part in source.material.answered.items():
        if part.is_labelled.any() and (split == "test" or not steps):
            rows = np.flatnonzero(part.is_labelled)
            title = _ANSWERS.get(split, "answers")
            steps.append((title, score_answers(part.answers.take(rows), metric=metric)))
    if not steps:
        source.leave_out("Scores", "there is no labelled image that was predicted. Run productrec predict.")
        return None
    source.figures["staircase"] = figure = draw_steps(steps)
    return build_scores(figure, steps, notes)


def build_curve_section(source: ReportSource) -> Section | None:
    """The training of each run by epoch."""
    trainings = load_trainings({source.name(run): run for run in source.runs})
    for name in map(source.name, source.runs):
        if name not in trainings:
            source.leave_out(f"Training curves of {name}", "there is no metrics.jsonl.")
    if not trainings:
        return None
    drawn = {name: draw_training_curves(epochs) for name, epochs in trainings.items()}
    source.figures |= {
        f"training {name.replace(os.sep, '-')}" if len(drawn) > 1 else "training": one for name, one in drawn.items()
    }
    return build_figures("curves", "Training curves", drawn if len(drawn) > 1 else {"": next(iter(drawn.values()))})


def build_calibration_section(source: ReportSource) -> Section | None:
    """Confidence against accuracy."""
    curves, notes = {}, []
    for run in source.runs:
        views = source.find_views(run, "classifier")
        curve = None if views is None else load_calibration(run, views)
        if curve is not None:
            curves[source.name(run)] = curve
    judged = source.material.judged
    if judged is not None and (len(source.runs) != 1 or not curves):
        rows = judged.is_labelled
        own = compute_reliability(np.clip(judged.confidence[rows], 0.0, 1.0), judged.is_right[rows])
        curves["these answers"] = own
        notes.append(f"These answers are to {judged.title}.")
    if not curves:
        source.leave_out("Confidence against accuracy", "no labelled image was predicted. Run productrec predict.")
        return None
    source.figures["calibration"] = figure = draw_calibration(curves)
    return build_calibration(figure, curves, notes)


def build_open_set_section(source: ReportSource) -> Section | None:
    """How known products are told from unknown ones."""
    table, judged = source.material.table, source.material.judged
    curves, notes = {}, []
    for run, recipe in source.runs.items() if table is not None and judged is not None else ():
        assert table is not None and judged is not None
        views = source.find_views(run, "classifier") or "plain"
        found = load_open_set(run, recipe, table, views, judged.split)
        if found is not None:
            curves[source.name(run)], told = found
            notes += [f"{source.name(run)}: {told}."] if told else []
    if not curves:
        why = "they are not told apart by answers out of fold."
        if judged is None or judged.split != OUT_OF_FOLD:
            why = "a run must have a classifier, neighbours and enough labelled images. Run productrec predict."
        source.leave_out("Unknown products", why)
        return None
    source.figures["open set"] = figure = draw_open_set(curves)
    return build_figures("open-set", "Unknown products", {"": figure}, notes)
