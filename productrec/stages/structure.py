"""Structure: finished class probabilities are made to agree with what is known of groups, categories and shares."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import MANIFEST_NAME, compute_digest, is_fresh, write_json
from productrec.assembly.structured import (
    describe_structure,
    expect_shares,
    find_labelled,
    fit_recipe_structure,
    list_steps,
)
from productrec.assembly.table_state import check_current, digest_rows
from productrec.competitions.contract import load_contract
from productrec.console import say, warn
from productrec.data.table import ImageTable
from productrec.metrics.competition import CompetitionMetric
from productrec.recipe import Recipe
from productrec.recognition.probabilities import KIND, ClassProbabilities, load_probabilities, write_probabilities
from productrec.recognition.scores import Scores, score_answers
from productrec.recognition.structure.chain import GROUPS, Structured, apply_chain
from productrec.recognition.structure.fitting import FittedStructure
from productrec.recognition.structure.groups import ALONE

SUFFIX = ".structure"


def run_structure(predictions: Path, recipe: Recipe, table: ImageTable, *, validates: bool = True) -> Path:
    """Write class probabilities after the steps of ``predict.structure`` and ``predict.prior`` that surely gain.

    They lie beside those that they are made of, in ``VIEWS.structure``, with ``structure.json``, which tells every step
    that was asked for. What an earlier prediction left of that kind is removed, so that it is not submitted.

    Args:
        predictions: ``predictions/VIEWS`` of a run or an ensemble, which holds ``val``, ``test`` or both.
        recipe: steps, prior, contract.
        table: of these images.
        validates: whether nothing was trained on the validation images.

    Returns:
        The folder of what is to be submitted: ``predictions`` itself where no step is kept.

    Raises:
        ArtifactError: the predictions are of another state of the table.
        RecipeError: the file of ``predict.prior`` does not fit.
    """
    steps, out = list_steps(recipe), predictions.with_name(predictions.name + SUFFIX)
    for older in predictions.parent.glob(f"*{SUFFIX}"):
        if older != out or not steps:
            shutil.rmtree(older)
    if not steps:
        return predictions
    before = {
        split: load_probabilities(predictions / split)
        for split in ("val", "test")
        if (predictions / split).exists() and len(table.select([split], usable=False))
    }
    for probabilities in before.values():
        check_current(probabilities, table)
    labelled = find_labelled(before["val"], table) if validates and "val" in before else None
    if labelled is None:
        shutil.rmtree(out, ignore_errors=True)
        warn(
            f"structure: {' and '.join(steps)} left out, since there are no validation images that nothing was trained "
            "on to tell whether they gain"
        )
        return predictions
    structured = {split: describe_structure(probabilities, table) for split, probabilities in before.items()}
    ratios, weights = expect_shares(recipe, table, before.get("test"), before["val"], labelled)
    fitted = fit_recipe_structure(recipe, structured["val"], ratios.get("val"), labelled, weights, steps)
    metric = load_contract(recipe.competition).scored_by
    _tell(predictions, fitted, metric, weights)
    made = {
        "steps": [step.describe() for step in fitted.steps],
        "prior": recipe.predict.prior,
        "without": metric.measure(fitted.before, weights),
        "with": metric.measure(fitted.after, weights),
        "weighed": weights is not None,
    }
    if not fitted.strengths:
        shutil.rmtree(out, ignore_errors=True)
        write_json(out / "structure.json", made)
        return predictions
    validation = _move(before["val"], fitted, metric)
    for split, probabilities in before.items():
        images = replace(structured[split], ratios=ratios.get(split))
        _write(out / split, split, probabilities, images, fitted, table, made, validation)
    write_json(out / "structure.json", made)
    return out


def _write(
    folder: Path,
    split: str,
    before: ClassProbabilities,
    images: Structured,
    fitted: FittedStructure,
    table: ImageTable,
    made: dict[str, Any],
    validation: Scores,
) -> None:
    inputs = {"predictions": before.fingerprint, "table": table.fingerprint}
    ratios = None if images.ratios is None else compute_digest(images.ratios.tolist())
    settings = {"split": split, "strengths": fitted.strengths, "ratios": ratios, "told": compute_digest(made)}
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
        (folder / MANIFEST_NAME).touch()  # the newest are those that are submitted
        return
    with write_probabilities(
        folder,
        ids=before.ids,
        class_ids=before.class_ids,
        names=before.names,
        fallback=_list_fallback(before, images, fitted),
        made={**before.made, "structure": made, "validation": asdict(validation)},
        inputs=inputs,
        settings=settings,
        keys=before.keys,
        table=before.table,
        rows=digest_rows(table, split),
        doubted=before.doubted,
    ) as values:
        for rows, block in apply_chain(images, fitted.strengths):
            values[rows] = block


def _list_fallback(before: ClassProbabilities, images: Structured, fitted: FittedStructure) -> list[str]:
    """Images that still carry the class prior: those that could not be read and have no group to answer for them."""
    if images.groups is None or images.silent is None or not fitted.strengths.get(GROUPS):
        return before.fallback
    answered = np.isin(images.groups, images.groups[~images.silent]) & (images.groups != ALONE)
    helped = {before.ids[row] for row in np.flatnonzero(images.silent & answered).tolist()}
    return [image_id for image_id in before.fallback if image_id not in helped]


def _move(before: ClassProbabilities, fitted: FittedStructure, metric: CompetitionMetric) -> Scores:
    """The validation scores that were told of the predictions, moved by what was gained on images not fitted on."""
    without, gained = (score_answers(answers, metric=metric) for answers in (fitted.before, fitted.after))
    told = before.made.get("validation")
    known = without if told is None else Scores(**told)
    moved = {
        name: min(max(getattr(known, name) + getattr(gained, name) - getattr(without, name), 0.0), 1.0)
        for name in ("top_1_accuracy", "top_3_error", "metric_value")
    }
    return replace(known, **moved)


def _tell(predictions: Path, fitted: FittedStructure, metric: CompetitionMetric, weights: np.ndarray | None) -> None:
    """Say which steps stand, which do not and why, and what those that stand are worth."""
    parts = []
    for step in fitted.steps:
        if step.chance is None:
            parts.append(f"{step.name} left out, since {step.reason}")
        else:
            verdict = f"kept at {step.strength:g}" if step.is_kept else "left out"
            parts.append(f"{step.name} {verdict} (gained in {step.chance:.0%} of bootstraps)")
    worth = ""
    if fitted.strengths:
        before, after = (metric.measure(answers, weights) for answers in (fitted.before, fitted.after))
        weighed = ", weighed to the expected shares" if weights is not None else ""
        worth = f"; {metric.title} on validation images{weighed}: {before:.4f} before, {after:.4f} after"
    say(f"structure of {predictions}: {', '.join(parts)}{worth}")
