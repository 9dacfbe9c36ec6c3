"""What is known of training images out of fold: each by the run that left its fold out, joined over the folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import MANIFEST_NAME, compute_digest
from productrec.assembly.embedding_requests import name_fold, name_rest
from productrec.assembly.evidence import SplitEvidence, get_gallery_views, get_labels, number_categories
from productrec.assembly.resume import get_decisive_settings
from productrec.class_order import ClassOrder
from productrec.data.table import ImageTable
from productrec.errors import DataError
from productrec.recipe import Recipe
from productrec.recipe.spread import FOLDS, SEEDS, name_model
from productrec.recognition.classifier import Evidence
from productrec.recognition.classifier_file import SavedClassifier, load_classifier
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.retrieval.engine import search_rows

_NEVER = 30.0  # by how much the logit of a class that a fold's run does not know is below its lowest
_OF_OTHERS = ("name", "train.fold", "seed")  # what a fold's run may have otherwise than the run it speaks for


def check_folds(table: ImageTable, count: int) -> None:
    """Refuse a table that is not parted in as many folds.

    Raises:
        DataError: with the command that parts it.
    """
    folds = table.images.loc[table.images["split"] == "train", "fold"].dropna()
    found = folds.nunique()
    if found != count:
        raise DataError(
            f"{table.root}: the image table must have its training images in {count} folds; it has {found}. Ingest "
            f"again with --folds {count} --replace."
        )


def load_out_of_fold(
    runs: Mapping[int, Path], recipe: Recipe, table: ImageTable, views: str, class_ids: Sequence[int]
) -> SplitEvidence:
    """What is known of all training images, fold after fold.

    Args:
        runs: the run that left each fold out, with what it says of that fold and of the rest.
        recipe: neighbours and views of the gallery.
        table: whose images they are.
        views: preset of views.
        class_ids: (C,) that any of the runs knows, ascending.
    """
    order, categories = ClassOrder(list(class_ids)), number_categories(table, class_ids)
    ids, inputs = list[str](), dict[str, str]()
    parts: list[Evidence] = []
    for fold, run in runs.items():
        queries = load_embedding_set(run / "embeddings" / views / name_fold(fold))
        gallery = load_embedding_set(run / "embeddings" / get_gallery_views(recipe, views) / name_rest(fold))
        assert queries.logits is not None
        inputs |= {f"fold {fold}": queries.fingerprint, f"without fold {fold}": gallery.fingerprint}
        labels = order.positions_of(get_labels(table, gallery.ids))
        rows, similarities = search_rows(queries.embeddings, gallery.embeddings, recipe.predict.neighbours)
        prototypes = build_prototypes(gallery.embeddings, labels, len(class_ids), shrinkage=1.0, categories=categories)
        lowest = queries.logits.min(axis=1, keepdims=True) - _NEVER
        logits = np.repeat(lowest, len(class_ids), axis=1)
        logits[:, order.positions_of(queries.class_ids)] = queries.logits
        near = compare_prototypes(queries.embeddings, prototypes)
        parts.append(Evidence(logits, labels[rows], similarities, near, categories))
        ids += queries.ids
    k = min(part.classes.shape[1] for part in parts)
    evidence = Evidence(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.classes[:, :k] for part in parts]),
        np.concatenate([part.similarities[:, :k] for part in parts]),
        np.concatenate([part.prototypes for part in parts if part.prototypes is not None]),
        categories,
    )
    return SplitEvidence(ids, evidence, inputs)


def describe_model(recipe: Recipe) -> dict[str, Any]:
    """What folds and seeds of one model have alike: its decisive settings but these, as a digest."""
    settings = {key: value for key, value in get_decisive_settings(recipe).items() if key not in _OF_OTHERS}
    return {"model": compute_digest(settings)}


def get_out_of_fold_folder(folds: Path, model: str) -> Path:
    """Where what is known out of fold of a model lies: ``classifier/VIEWS`` and ``predictions/VIEWS/train``."""
    return folds / "out_of_fold" / model


def find_out_of_fold(run: Path, recipe: Recipe, views: str) -> SavedClassifier | None:
    """The classifier that was fitted out of fold for a run's model; None where there is none of the same settings.

    It lies beside the run, in ``NAME.folds``: beside the recipe's run, or, of a member, beside the folder of the
    members; and of a fold or a seed where that of its model lies.
    """
    spread = run.parent.name.rpartition(".")
    if spread[2] in (FOLDS, SEEDS):
        model = name_model(recipe.model_copy(update={"name": run.parent.name}), run.name)
        places = [(run.parent.with_name(f"{spread[0]}.{FOLDS}"), model)]
    else:
        places = [
            (run.with_name(f"{run.name}.{FOLDS}"), run.name),
            (run.parent.with_name(f"{run.parent.name}.{FOLDS}"), run.name),
        ]
    for folds, model in places:
        folder = get_out_of_fold_folder(folds, model) / "classifier" / views
        if (folder / MANIFEST_NAME).exists():
            saved = load_classifier(folder)
            if saved.fitted.get("model") == describe_model(recipe)["model"]:
                return saved
    return None
