"""Fit: how a run's head, neighbours and prototypes become one answer is fitted, for the competition's metric."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import is_fresh, load_manifest
from productrec.assembly.evidence import (
    build_objective,
    draw_rows,
    fit_unknown,
    get_gallery_views,
    get_grids,
    get_labels,
    load_distractors,
    load_evidence,
    load_gallery,
    number_categories,
)
from productrec.assembly.out_of_fold import find_out_of_fold
from productrec.assembly.reranked import Gallery, get_rerankings, list_candidates
from productrec.assembly.voters import list_voters
from productrec.class_order import ClassOrder
from productrec.competitions.contract import load_contract
from productrec.console import say, warn
from productrec.data.class_keys import get_class_keys
from productrec.data.table import DISTRACTORS, load_table
from productrec.recipe import Recipe
from productrec.recognition.calibration import calibrate
from productrec.recognition.choosing_reranking import choose_reranking, score_reranked
from productrec.recognition.classifier import BLENDED, UNFITTED, Classifier
from productrec.recognition.classifier_file import KIND, save_classifier
from productrec.recognition.fitting import fit_classifier, score_fitted
from productrec.recognition.prototypes import build_prototypes
from productrec.retrieval.index import INDEX_KIND
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint


def run_fit(run: Path, recipe: Recipe, *, views: str) -> None:
    """Write the classifier of a run for queries of one preset of views, ``RUN/classifier/VIEWS``.

    It is what was fitted out of fold for this run's model, where that lies beside it; else it is fitted on validation
    images that the run was not trained on, 20,000 of them at most, each step judged on those that it was not fitted on;
    without such images head and prototypes speak alike, with a warning.

    Args:
        run: the run folder, with embedding and neighbour sets and the index.
        recipe: grids, contract, table.
        views: preset of views.

    Raises:
        ArtifactError: sets of different networks or images.
    """
    table, contract = load_table(recipe.table, root=recipe.data.images), load_contract(recipe.competition)
    trained = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    class_ids = sorted(trained.match_classes(table))
    if len(class_ids) == 1:
        only = table.get_class_names(class_ids)[0]
        warn(f"{run.name}: knows one class alone, {only!r}: every image is given it, and accuracy says nothing.")
    gallery = load_gallery(run, recipe, views)
    categories = number_categories(table, class_ids)
    positions = ClassOrder(class_ids).positions_of(get_labels(table, gallery.ids))
    prototypes = build_prototypes(gallery.embeddings, positions, len(class_ids), categories=categories)
    distractors = load_distractors(run, recipe, table, views)
    apart = None if distractors is None else np.asarray(distractors.embeddings, dtype=np.float32)
    validation, unlike = (
        load_evidence(run, table, views, split, class_ids, prototypes, categories, apart, list_voters(recipe))
        for split in ("val", DISTRACTORS)
    )
    classifier, fitted, unknown, reranked = UNFITTED, dict[str, Any](), None, None
    inputs = {"index": load_manifest(run / "index" / get_gallery_views(recipe, views), kind=INDEX_KIND).fingerprint}
    inputs |= {"weights": trained.weights_digest, "table": table.fingerprint}
    settings = {
        "views": views,
        "parts": list(recipe.predict.parts),
        "k_grid": list(recipe.predict.k_grid),
        "power_grid": list(recipe.predict.power_grid),
        "competition": contract.scored_by.key,
        "unknown": [contract.unknown_label, contract.unknown_share],
        "trained_on": list(trained.recipe["train"]["splits"]),
    }
    methods = get_rerankings(recipe)
    if methods:
        settings["reranking"] = [method.model_dump(mode="json") for method in methods]
    if unlike is not None:
        inputs |= {f"distractors {name}": print_ for name, print_ in unlike.inputs.items()}
    if validation is not None:
        inputs |= {f"val {name}": print_ for name, print_ in validation.inputs.items()}
    folder = run / "classifier" / views
    beside = find_out_of_fold(run, recipe, views)
    if recipe.predict.titles != "auto":
        settings["titles"] = recipe.predict.titles
    if beside is not None:
        inputs["out of fold"] = beside.fingerprint
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
        return
    reason = _find_reason(trained, None if validation is None else get_labels(table, validation.ids), class_ids)
    if beside is not None:
        asked_voters = list_voters(recipe)
        classifier, unknown = beside.classifier.ask(asked_voters), beside.unknown
        kept = ("on", "images", "folds", "steps", "calibration")
        fitted = {name: beside.fitted[name] for name in kept if name in beside.fitted}
        if beside.reranked and beside.reranked.method in methods:
            reranked = beside.reranked.ask(asked_voters)
    elif reason or validation is None:
        classifier = _restrict(UNFITTED, recipe)
        warn(f"{run.name}: {reason}; fusing by default: {classifier.tell()}")
    else:
        rows = draw_rows(len(validation.ids))
        known = ClassOrder(class_ids).positions_of(get_labels(table, validation.ids))
        evidence, labels = validation.take(rows), known[rows]
        objective, how = build_objective(contract), get_grids(recipe)
        done = fit_classifier(evidence, labels, objective, **how)
        candidates = list_candidates(methods, [(validation, Gallery(gallery.embeddings, positions))])
        tried = choose_reranking(done, candidates, labels, objective, **how)
        classifier, reranked = done.classifier, tried.kept
        asked = None if unlike is None else unlike.take(draw_rows(len(unlike.ids)))
        unknown = fit_unknown(evidence, labels, classifier, contract, asked)
        scores = score_fitted(done, evidence, labels, metric=contract.scored_by)
        scores |= score_reranked(tried, metric=contract.scored_by)
        steps = [step.describe() for step in (*done.steps, *tried.steps)]
        fitted = {"on": "val", "images": len(labels), "steps": steps}
        fitted["scores"] = {name: asdict(one) for name, one in scores.items()}
        fitted["calibration"] = calibrate(tried.answers or done.answers, evidence, labels).describe()
    told = f"{(reranked or classifier).tell()}{(reranked.classifier if reranked else classifier).tell_further()}"
    say(f"{run.name}, {views} views: {told}{_tell_steps(fitted.get('steps', []))}")
    save_classifier(
        folder,
        classifier,
        prototypes=prototypes,
        keys=get_class_keys(table, class_ids),
        categories=categories,
        fitted=fitted,
        unknown=unknown,
        inputs=inputs,
        settings=settings,
        reranked=reranked,
        distractors=apart,
    )


def _find_reason(trained: Checkpoint, labels: np.ndarray | None, class_ids: list[int]) -> str:
    """Why nothing can be fitted on validation images; empty where it can."""
    if labels is None or "val" in trained.recipe["train"]["splits"]:
        return "no validation images it was not trained on"
    return "" if np.isin(labels, class_ids).any() else "its head knows no class of the validation images"


def _tell_steps(steps: list[dict[str, Any]]) -> str:
    """Which steps were tried beside it and left out, and in what share of paired bootstraps they gained."""
    out = [
        f"{step['how'] or step['step']}{' alone' if step['how'] in BLENDED else ''} ({step['chance']:.0%})"
        for step in steps
        if step["chance"] is not None and not step["kept"]
    ]
    return f"; left out, with the share of bootstraps in which it gained: {', '.join(out)}" if out else ""


def _restrict(classifier: Classifier, recipe: Recipe) -> Classifier:
    """The unfitted classifier with those of its parts that may speak, or, where none may, with all that may."""
    allowed: list[str] = [name for name in BLENDED if name in recipe.predict.parts]
    kept: dict[str, float] = {name: weight for name, weight in classifier.weights.items() if name in allowed}
    return Classifier(weights=kept or dict.fromkeys(allowed, 1.0), rule=classifier.rule)
