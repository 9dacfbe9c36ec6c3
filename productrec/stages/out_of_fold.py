"""Out of fold: every training image is predicted by the run that left it out, and a classifier is fitted on that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import is_fresh
from productrec.assembly.embedding_requests import EmbeddingRequest, name_fold, name_rest
from productrec.assembly.evidence import build_objective, get_labels
from productrec.assembly.out_of_fold import describe_model, get_out_of_fold_folder, load_out_of_fold
from productrec.assembly.table_state import digest_rows
from productrec.class_order import ClassOrder
from productrec.competitions.contract import load_contract
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable, load_table
from productrec.recipe import Recipe
from productrec.recognition.classifier import compute_parts
from productrec.recognition.classifier_file import KIND, load_classifier, save_classifier
from productrec.recognition.fitting import describe_steps, fit_classifier, score_fitted
from productrec.recognition.open_set import fit_threshold
from productrec.recognition.probabilities import write_probabilities
from productrec.recognition.scores import Scores
from productrec.training.run.checkpoint import load_checkpoint

_FITTED_ON = 20_000  # images at most
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class OutOfFold:
    """Where predictions of the training images lie, and scores of the classifier and its parts on them."""

    folder: Path
    scores: dict[str, Scores]


def list_fold_requests(recipe: Recipe, fold: int, views: str) -> list[EmbeddingRequest]:
    """What a fold's run embeds so that its images can be predicted: them, and all others as their gallery."""
    gallery_views = "plain" if views == "plain" else recipe.predict.gallery_tta
    return [EmbeddingRequest(name_fold(fold), views, True), EmbeddingRequest(name_rest(fold), gallery_views, False)]


def run_out_of_fold(folds: Path, model: str, runs: Mapping[int, tuple[Path, Recipe]], *, views: str) -> OutOfFold:
    """Predict every training image by the run that left its fold out.

    The classifier is fitted on at most 20,000 of the images, chosen by chance; scores are of images each answered by
    what was fitted on others.

    Args:
        folds: the folder of the folds' runs.
        model: whose folds they are.
        runs: by the fold that each left out, with the embedding sets of `list_fold_requests`.
        views: preset of views.

    Raises:
        ArtifactError: a run is not trained, or lacks an embedding set.
    """
    recipe = next(iter(runs.values()))[1]
    table, contract = load_table(recipe.table, root=recipe.data.images), load_contract(recipe.competition)
    known = {
        class_id
        for run, own in runs.values()
        for class_id in load_checkpoint(run / "checkpoints" / own.predict.checkpoint).match_classes(table)
    }
    class_ids = sorted(known)
    found = load_out_of_fold({fold: run for fold, (run, _) in runs.items()}, recipe, table, views, class_ids)
    inputs = found.inputs | {"table": table.fingerprint, "index": "none: each fold has its own gallery"}
    settings = {
        "views": views,
        "parts": list(recipe.predict.parts),
        "k_grid": list(recipe.predict.k_grid),
        "power_grid": list(recipe.predict.power_grid),
        "neighbours": recipe.predict.neighbours,
        "competition": [contract.metric, contract.metric_k],
    }
    out = get_out_of_fold_folder(folds, model)
    folder, predictions = out / "classifier" / views, out / "predictions" / views / "train"
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings) and predictions.exists():
        saved = load_classifier(folder)
        return OutOfFold(predictions, {name: Scores(**one) for name, one in saved.fitted["scores"].items()})
    labels = ClassOrder(class_ids).positions_of(get_labels(table, found.ids))
    rows = np.sort(np.random.default_rng(0).permutation(len(labels))[:_FITTED_ON])
    groups = _group(found.ids, table)
    fitted = fit_classifier(
        found.evidence.take(rows),
        labels[rows],
        build_objective(contract),
        k_grid=recipe.predict.k_grid,
        power_grid=recipe.predict.power_grid,
        parts=recipe.predict.parts,
        groups=groups[rows].tolist(),
    )
    scores = score_fitted(fitted, found.evidence.take(rows), labels[rows], metric_k=contract.metric_k)
    keys = get_class_keys(table, class_ids)
    told = {"on": "out of fold", "images": len(rows), "folds": len(runs), "steps": describe_steps(fitted.steps)}
    ids = table.select(["train"])["image_id"].tolist()
    place = {image_id: row for row, image_id in enumerate(found.ids)}
    prior = np.bincount(labels[labels >= 0], minlength=len(class_ids)) / max(1, (labels >= 0).sum())
    writing = write_probabilities(
        predictions,
        ids=ids,
        class_ids=class_ids,
        names=table.get_class_names(class_ids),
        fallback=[image_id for image_id in ids if image_id not in place],
        made={"run": str(folds), "model": model, "views": views, "classifier": fitted.classifier.describe()},
        inputs=inputs,
        settings={**settings, "split": "train"},
        keys=keys,
        table=recipe.table,
        rows=digest_rows(table, "train"),
    )
    with writing as values:
        for start in range(0, len(ids), _BLOCK_ROWS):
            block = ids[start : start + _BLOCK_ROWS]
            at = np.array([place.get(image_id, -1) for image_id in block])
            values[start : start + len(block)] = prior
            seen = np.flatnonzero(at >= 0)
            values[start + seen] = compute_parts(found.evidence.take(at[seen]), fitted.classifier).fused
    save_classifier(
        folder,
        fitted.classifier,
        prototypes=np.empty((0, 0), np.float32),
        keys=keys,
        categories=None,
        fitted=told | describe_model(recipe) | {"scores": {name: asdict(one) for name, one in scores.items()}},
        unknown=fit_threshold(found.evidence.take(rows), labels[rows], fitted.classifier),
        inputs=inputs,
        settings=settings,
    )
    return OutOfFold(predictions, scores)


def _group(ids: list[str], table: ImageTable) -> np.ndarray:
    """A number for each image's group; an image of none stands alone."""
    groups = dict(zip(table.images["image_id"], table.images["group"], strict=True))
    named = [group if isinstance(group := groups[image_id], str) else f"\0{image_id}" for image_id in ids]
    numbers: np.ndarray = np.unique(named, return_inverse=True)[1]
    return numbers
