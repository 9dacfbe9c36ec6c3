"""What is known of training images out of fold: each by the run that left its fold out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import MANIFEST_NAME, compute_digest
from productrec.assembly.embedding_requests import name_fold, name_rest
from productrec.assembly.evidence import (
    SplitEvidence,
    draw_rows,
    get_gallery_views,
    get_labels,
    load_distractors,
    number_categories,
)
from productrec.assembly.resume import get_decisive_settings
from productrec.assembly.voters import list_voters, load_voters
from productrec.class_order import ClassOrder
from productrec.data.table import DISTRACTORS, ImageTable
from productrec.errors import DataError
from productrec.recipe import Recipe
from productrec.recipe.spread import FOLDS, SEEDS, name_model
from productrec.recognition.classifier import Evidence, join_evidence
from productrec.recognition.classifier_file import SavedClassifier, load_classifier
from productrec.recognition.prototypes import build_prototypes
from productrec.retrieval.embedding_set import EmbeddingSet, load_embedding_set
from productrec.retrieval.engine import search_rows

_OF_OTHERS = ("name", "train.fold", "seed")  # what a fold's run may have otherwise than the run it speaks for


def check_folds(table: ImageTable, count: int, where: Path) -> None:
    """Refuse a table, in the folder ``where``, that is not parted in as many folds.

    Raises:
        DataError: with the command that parts it.
    """
    folds = table.images.loc[table.images["split"] == "train", "fold"].dropna()
    found = folds.nunique()
    if found != count:
        raise DataError(
            f"{where}: the image table must have its training images in {count} folds; it has {found}. Ingest "
            f"again with --folds {count} --replace."
        )


def load_fold(
    fold: int,
    run: Path,
    recipe: Recipe,
    table: ImageTable,
    views: str,
    class_ids: Sequence[int],
    *,
    asked: str | None = None,
) -> SplitEvidence:
    """What the run that left a fold out knows of its images.

    Args:
        fold: that was left out.
        run: with the embedding sets of the fold and of the rest, which is its gallery.
        recipe: neighbours and views of the gallery.
        table: whose images they are.
        views: preset of views.
        class_ids: (C,) that the run of any fold knows, ascending.
        asked: a split whose images ask in place of the fold's.
    """
    order, categories = ClassOrder(list(class_ids)), number_categories(table, class_ids)
    queries = load_embedding_set(run / "embeddings" / views / (asked or name_fold(fold)))
    distractors = load_distractors(run, recipe, table, views)
    gallery = load_rest(fold, run, recipe, views)
    labels = order.positions_of(get_labels(table, gallery.ids))
    rows, similarities = search_rows(queries.embeddings, gallery.embeddings, recipe.predict.neighbours)
    names = list_voters(recipe) if asked is None else ()
    voters, voter_inputs = load_voters(run, names, name_fold(fold), queries.ids, class_ids)
    return SplitEvidence(
        queries.ids,
        queries,
        rows,
        labels[rows],
        similarities,
        build_prototypes(gallery.embeddings, labels, len(class_ids), categories=categories),
        categories,
        {f"fold {fold}": queries.fingerprint, f"without fold {fold}": gallery.fingerprint}
        | {f"fold {fold} {name}": fingerprint for name, fingerprint in voter_inputs.items()},
        order.positions_of(queries.class_ids),
        None if distractors is None else np.asarray(distractors.embeddings, dtype=np.float32),
        asked == DISTRACTORS,
        voters,
    )


def load_rest(fold: int, run: Path, recipe: Recipe, views: str) -> EmbeddingSet:
    """The gallery of a fold's images: what the run that left it out embedded of all others."""
    return load_embedding_set(run / "embeddings" / get_gallery_views(recipe, views) / name_rest(fold))


def draw_evidence(
    folds: Sequence[SplitEvidence], take: Callable[[int, np.ndarray], Evidence] | None = None
) -> tuple[Evidence, np.ndarray]:
    """The evidence that a classifier is fitted on, of all folds, and the rows of its images, fold after fold.

    Args:
        folds: of the same classes.
        take: gives the evidence of some rows of a fold, by its number; None for its own.
    """
    ends = np.cumsum([len(fold.ids) for fold in folds])
    rows = draw_rows(int(ends[-1]))
    parts = [
        (fold.take if take is None else partial(take, number))(
            rows[(rows >= end - len(fold.ids)) & (rows < end)] - (end - len(fold.ids))
        )
        for number, (fold, end) in enumerate(zip(folds, ends.tolist(), strict=True))
    ]
    return join_evidence(parts), rows


def draw_distractors(
    runs: Mapping[int, tuple[Path, Recipe]], table: ImageTable, views: str, class_ids: Sequence[int]
) -> Evidence | None:
    """The evidence of the table's distractors, at most as many as `draw_rows`; None where it has none.

    No run was trained on them: they ask in turn the run of one fold and of the next.
    """
    rows, parts = draw_rows(len(table.select([DISTRACTORS]))), []
    for place, (fold, (run, recipe)) in enumerate(runs.items()):
        if len(own := rows[place :: len(runs)]):
            parts.append(load_fold(fold, run, recipe, table, views, class_ids, asked=DISTRACTORS).take(own))
    return join_evidence(parts) if parts else None


def describe_model(recipe: Recipe) -> dict[str, Any]:
    """What folds and seeds of one model have alike: its decisive settings but these, as a digest."""
    settings = {key: value for key, value in get_decisive_settings(recipe).items() if key not in _OF_OTHERS}
    return {"model": compute_digest(settings)}


def get_out_of_fold_folder(folds: Path, model: str) -> Path:
    """Where what is known out of fold of a model lies: ``classifier/VIEWS`` and ``predictions/VIEWS/train``."""
    return folds / "out_of_fold" / model


def find_out_of_fold(run: Path, recipe: Recipe, views: str) -> SavedClassifier | None:
    """The classifier that was fitted out of fold for a run's model; see `find_out_of_fold_folder`."""
    folder = find_out_of_fold_folder(run, recipe, views)
    return None if folder is None else load_classifier(folder)


def find_out_of_fold_folder(run: Path, recipe: Recipe, views: str) -> Path | None:
    """Where the classifier lies that was fitted out of fold for a run's model; None without one of its settings.

    It lies beside the run, in ``NAME.folds``: beside the recipe's run, or, of a member, beside the folder of the
    members; and of a fold or a seed where that of its model lies.
    """
    run = run.absolute()  # one that is named from within its folder's parent has a parent, too
    stem, _, kind = run.parent.name.rpartition(".")
    model = name_model(run.parent.name, run.name) if kind in (FOLDS, SEEDS) else None
    if model is not None:
        places = [(run.parent.with_name(f"{stem}.{FOLDS}"), model)]
    else:
        places = [(run.with_name(f"{run.name}.{FOLDS}"), run.name)]
        if run.parent.name:
            places.append((run.parent.with_name(f"{run.parent.name}.{FOLDS}"), run.name))
    for folds, name in places:
        folder = get_out_of_fold_folder(folds, name) / "classifier" / views
        if not (folder / MANIFEST_NAME).exists():
            continue
        if load_classifier(folder).fitted.get("model") == describe_model(recipe)["model"]:
            return folder
    return None
