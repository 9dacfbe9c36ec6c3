"""Scores of a report as a run's artefacts hold them: each way to predict, calibration, the open-set curve."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from productrec.artifacts import MANIFEST_NAME, load_manifest
from productrec.assembly.fused_figures import find_classifier, judge_fused
from productrec.data.table import ImageTable
from productrec.metrics.calibration import Reliability, build_reliability
from productrec.recipe import Recipe
from productrec.recognition.classifier import PART_TITLES, PARTS, get_answer
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.open_set_figures import tell_open_set
from productrec.recognition.scores import Scores


def list_steps(run: Path, views: str) -> list[tuple[str, Scores]]:
    """The scores of each way to predict of a run on validation images, by title; none where nothing was fitted.

    The parts are those of the plain view; ``views``: preset of which the answer is told too.

    Raises:
        ArtifactError: an artefact is damaged.
    """
    plain = _load_scores(run, "plain")
    steps = [(PART_TITLES[part], plain[part]) for part in PARTS if part in plain]
    if views != "plain" and (several := _load_scores(run, views)):
        steps.append((f"with TTA ({views})", get_answer(several)))
    return steps


def _load_scores(run: Path, views: str) -> dict[str, Scores]:
    """Those that the classifier was fitted with; where it was fitted out of fold, those of the predictions' notes."""
    fitted = load_classifier(run / "classifier" / views).fitted if _is_there(run / "classifier" / views) else {}
    if fitted.get("scores"):
        return {name: Scores(**values) for name, values in fitted["scores"].items()}
    told = {"fused": run / "predictions" / views / "val"}
    told |= {part: run / "predictions" / views / "parts" / part / "val" for part in PARTS}
    notes: dict[str, Any] = {
        name: load_manifest(folder).notes.get("made", {}) for name, folder in told.items() if _is_there(folder)
    }
    return {
        str(made.get("part", name)): Scores(**made["validation"])
        for name, made in notes.items()
        if made.get("validation")
    }


def load_calibration(run: Path, views: str) -> Reliability | None:
    """How sure a run's answers were and how often right, each by what others told; None where it was not kept."""
    if not _is_there(run / "classifier" / views):
        return None
    kept = load_classifier(run / "classifier" / views).fitted.get("calibration")
    return None if not kept else build_reliability(kept["answers"])


def load_open_set(
    run: Path, recipe: Recipe, table: ImageTable, views: str, split: str
) -> tuple[list[tuple[float, float, float]], str] | None:
    """The open-set curve of a run's classifier, and what it says in words; None where it has none.

    It is that of `productrec evaluate`, where that was kept, else measured now, without intervals.

    Raises:
        ArtifactError: an artefact is damaged.
    """
    folder = run / "evaluations" / views / split
    if (folder / "open_set.csv").is_file() and _is_there(folder):
        with (folder / "open_set.csv").open(newline="", encoding="utf-8") as file:
            rows = [(float(row[0]), float(row[1]), float(row[2])) for row in list(csv.reader(file))[1:]]
        told = json.loads((folder / "evaluation.json").read_text(encoding="utf-8")).get("open_set")
        return rows, "" if told is None else tell_open_set(told)
    if not find_classifier(run, recipe, split, views):
        return None
    fused = judge_fused(run, recipe, table, split=split, views=views, draws=0)
    if fused is None or fused.open_set is None:
        return None
    return fused.open_set.list_curve(), tell_open_set(fused.open_set.describe())


def load_trainings(runs: dict[str, Path]) -> dict[str, list[dict[str, float]]]:
    """The lines of each run's ``metrics.jsonl``, by its name; without runs that have none."""
    return {name: lines for name, run in runs.items() if (lines := list(_read_lines(run / "metrics.jsonl")))}


def _read_lines(path: Path) -> Iterator[dict[str, float]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # the last line of a training that was killed
            continue
        if isinstance(values, dict) and "epoch" in values:
            yield values


def _is_there(folder: Path) -> bool:
    return (folder / MANIFEST_NAME).is_file()
