"""Out of fold: every training image is predicted by the run that left it out, and a classifier is fitted on that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import is_fresh
from productrec.assembly.embedding_requests import EmbeddingRequest, list_distractor_requests, name_fold, name_rest
from productrec.assembly.evidence import (
    build_objective,
    fit_unknown,
    get_gallery_views,
    get_grids,
    get_labels,
    number_groups,
)
from productrec.assembly.out_of_fold import (
    describe_model,
    draw_distractors,
    draw_evidence,
    get_out_of_fold_folder,
    load_fold,
    load_rest,
)
from productrec.assembly.reranked import Gallery, answer_block, get_rerankings, list_candidates, prepare_reranker
from productrec.assembly.table_state import digest_rows
from productrec.assembly.voters import keep_title_neighbours
from productrec.class_order import ClassOrder
from productrec.competitions.contract import load_contract
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable, load_table
from productrec.recipe import Recipe
from productrec.recognition.calibration import calibrate
from productrec.recognition.choosing_reranking import choose_reranking, score_reranked
from productrec.recognition.classifier import get_answer, name_answer
from productrec.recognition.classifier_file import KIND, load_classifier, save_classifier
from productrec.recognition.fitting import fit_classifier, score_fitted
from productrec.recognition.probabilities import write_probabilities
from productrec.recognition.scores import Scores
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.training.run.checkpoint import load_checkpoint

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class OutOfFold:
    """Where predictions of the training images lie, and scores of the classifier and its parts on them."""

    folder: Path
    scores: dict[str, Scores]


def list_fold_requests(recipe: Recipe, table: ImageTable, fold: int, views: str) -> list[EmbeddingRequest]:
    """What a fold's run embeds so that its images can be predicted: them, all others as their gallery, distractors."""
    gallery_views = get_gallery_views(recipe, views)
    requests = [EmbeddingRequest(name_fold(fold), views, True), EmbeddingRequest(name_rest(fold), gallery_views, False)]
    return requests + list_distractor_requests(table, views, gallery_views)


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
    for number, (run, own) in runs.items():
        _search_titles(number, run, own, table, views)
    found = [load_fold(fold, run, own, table, views, class_ids) for fold, (run, own) in runs.items()]
    inputs = {name: fingerprint for fold in found for name, fingerprint in fold.inputs.items()}
    inputs |= {"table": table.fingerprint, "index": "none: each fold has its own gallery"}
    settings = {
        "views": views,
        "parts": list(recipe.predict.parts),
        "k_grid": list(recipe.predict.k_grid),
        "power_grid": list(recipe.predict.power_grid),
        "neighbours": recipe.predict.neighbours,
        "competition": contract.scored_by.key,
        "unknown": [contract.unknown_label, contract.unknown_share],
    }
    methods = get_rerankings(recipe)
    if methods:
        settings["reranking"] = [method.model_dump(mode="json") for method in methods]
    out = get_out_of_fold_folder(folds, model)
    folder, predictions = out / "classifier" / views, out / "predictions" / views / "train"
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings) and predictions.exists():
        saved = load_classifier(folder)
        return OutOfFold(predictions, {name: Scores(**one) for name, one in saved.fitted["scores"].items()})
    seen = [image_id for fold in found for image_id in fold.ids]
    labels = ClassOrder(class_ids).positions_of(get_labels(table, seen))
    evidence, rows = draw_evidence(found)
    objective, how = (
        build_objective(contract),
        get_grids(recipe) | {"groups": number_groups(table, seen)[rows].tolist()},
    )
    fitted = fit_classifier(evidence, labels[rows], objective, **how)
    searched = list(zip(found, _load_galleries(runs, table, views, class_ids) if methods else [], strict=False))
    tried = choose_reranking(fitted, list_candidates(methods, searched), labels[rows], objective, **how)
    scores = score_fitted(fitted, evidence, labels[rows], metric=contract.scored_by)
    scores |= score_reranked(tried, metric=contract.scored_by)
    keys = get_class_keys(table, class_ids)
    told = {
        "on": "out of fold",
        "images": len(rows),
        "folds": len(runs),
        "steps": [step.describe() for step in (*fitted.steps, *tried.steps)],
        "calibration": calibrate(tried.answers or fitted.answers, evidence, labels[rows]).describe(),
    }
    ids = table.select(["train"])["image_id"].tolist()
    place = {image_id: row for row, image_id in enumerate(ids)}
    prior = np.bincount(labels[labels >= 0], minlength=len(class_ids)) / max(1, (labels >= 0).sum())
    writing = write_probabilities(
        predictions,
        ids=ids,
        class_ids=class_ids,
        names=table.get_class_names(class_ids),
        fallback=sorted(set(ids) - set(seen)),
        made={
            "run": str(folds),
            "model": model,
            "views": views,
            "part": name_answer(scores),
            "classifier": (tried.kept or fitted.classifier).describe(),
        },
        inputs=inputs,
        settings={**settings, "split": "train"},
        keys=keys,
        table=recipe.table,
        rows=digest_rows(table, "train"),
    )
    with writing as values:
        values[:] = prior
        for number, fold in enumerate(found):
            reranker = None
            if tried.kept is not None:
                reranker = prepare_reranker(tried.kept.method, *searched[number], depth=tried.kept.depth)
            for start in range(0, len(fold.ids), _BLOCK_ROWS):
                block = slice(start, start + _BLOCK_ROWS)
                at = [place[image_id] for image_id in fold.ids[block]]
                values[at] = get_answer(answer_block(fold, block, fitted.classifier, tried.kept, reranker).parts)
    save_classifier(
        folder,
        fitted.classifier,
        prototypes=np.empty((0, 0), np.float32),
        keys=keys,
        categories=None,
        fitted=told | describe_model(recipe) | {"scores": {name: asdict(one) for name, one in scores.items()}},
        unknown=fit_unknown(
            evidence, labels[rows], fitted.classifier, contract, draw_distractors(runs, table, views, class_ids)
        ),
        inputs=inputs,
        settings=settings,
        reranked=tried.kept,
    )
    return OutOfFold(predictions, scores)


def _search_titles(fold: int, run: Path, recipe: Recipe, table: ImageTable, views: str) -> None:
    """Write the neighbours by title of a fold's images among all others."""
    ids = load_embedding_set(run / "embeddings" / views / name_fold(fold)).ids
    rest = load_rest(fold, run, recipe, views).ids
    keep_title_neighbours(run, recipe, table, name_fold(fold), ids, rest, get_labels(table, rest))


def _load_galleries(
    runs: Mapping[int, tuple[Path, Recipe]], table: ImageTable, views: str, class_ids: list[int]
) -> Iterator[Gallery]:
    """What the images of each fold were searched in."""
    for fold, (run, recipe) in runs.items():
        rest = load_rest(fold, run, recipe, views)
        yield Gallery(rest.embeddings, ClassOrder(class_ids).positions_of(get_labels(table, rest.ids)))
