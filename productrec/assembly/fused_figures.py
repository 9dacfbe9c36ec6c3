"""What a run's classifier is worth on a split whose labels are known: unknown products, and its confidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import MANIFEST_NAME, load_manifest
from productrec.assembly.evidence import NO_LABEL, draw_rows, get_gallery_views, get_labels, load_evidence
from productrec.assembly.reranked import prepare_answering
from productrec.class_order import ClassOrder
from productrec.data.table import DISTRACTORS, ImageTable
from productrec.metrics.answers import summarise
from productrec.metrics.calibration import Reliability, build_reliability, compute_reliability
from productrec.recipe import Recipe
from productrec.recognition.classifier import get_answer
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.open_set import answer_open
from productrec.recognition.open_set_figures import OpenSetFigures, measure_open_set
from productrec.training.run.checkpoint import load_checkpoint


@dataclass(frozen=True)
class FusedFigures:
    """``open_set``: of the score that the run's threshold is of; None where too few products can be hidden.

    ``reliability``: of the answers; of those by what others told, on the images that the classifier was fitted on.
    """

    open_set: OpenSetFigures | None
    reliability: Reliability


def find_classifier(run: Path, recipe: Recipe, split: str, views: str) -> dict[str, str]:
    """Fingerprints of a run's classifier and of the neighbours of a split; none where they do not belong together.

    They do where the neighbours are of the split's embeddings, and of the index that the classifier is for.
    """
    classifier, neighbours = run / "classifier" / views, run / "neighbours" / views / split
    index, queries = run / "index" / get_gallery_views(recipe, views), run / "embeddings" / views / split
    if not all((folder / MANIFEST_NAME).exists() for folder in (classifier, neighbours, index, queries)):
        return {}
    fitted, searched, own = (load_manifest(folder) for folder in (classifier, neighbours, index))
    asked = load_manifest(queries).fingerprint
    if searched.inputs != {"index": own.fingerprint, "queries": asked} or fitted.inputs["index"] != own.fingerprint:
        return {}
    return {"classifier": fitted.fingerprint, "neighbours": searched.fingerprint}


def judge_fused(
    run: Path, recipe: Recipe, table: ImageTable, *, split: str, views: str, draws: int
) -> FusedFigures | None:
    """Judge a run's classifier on the labelled images of a split, 20,000 of them at most.

    Args:
        run: with what `find_classifier` finds.
        recipe: which checkpoint.
        table: whose images they are.
        split: of the table.
        views: preset of their views.
        draws: of the bootstrap; 0 for no intervals.

    Returns:
        None where the head knows no class of the images.
    """
    saved = load_classifier(run / "classifier" / views)
    class_ids = sorted(load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint).match_classes(table))
    images, unlike = (
        load_evidence(
            run, table, views, asked, class_ids, saved.prototypes, saved.categories, saved.distractors, saved.voters
        )
        for asked in (split, DISTRACTORS)
    )
    if images is None:
        return None
    labels = get_labels(table, images.ids)
    known = np.flatnonzero(labels != NO_LABEL)
    rows = known[draw_rows(len(known))]
    positions = ClassOrder(class_ids).positions_of(labels[rows])
    if not (positions >= 0).any():
        return None
    evidence = images.take(rows)
    apart = None if unlike is None else unlike.take(draw_rows(len(unlike.ids)))
    seen = answer_open(evidence, positions, saved.classifier.ask(()), apart)
    score = "confidence" if saved.unknown is None else saved.unknown.score
    open_set = None if seen is None else measure_open_set(seen, score, draws=draws)
    if saved.fitted.get("on") == split and "calibration" in saved.fitted:
        return FusedFigures(open_set, build_reliability(saved.fitted["calibration"]["answers"]))
    answer = prepare_answering(run, recipe, table, views, class_ids, saved, [images])
    answers = summarise(get_answer(answer(images, rows).parts), positions)
    confidence = np.clip(answers.confidence, 0.0, 1.0)
    return FusedFigures(open_set, compute_reliability(confidence, (answers.ranks == 0) & (positions >= 0)))
