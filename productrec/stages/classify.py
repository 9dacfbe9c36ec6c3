"""Classify: a run's classifier gives every validation and test image its class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import is_fresh
from productrec.assembly.evidence import NO_LABEL, SplitEvidence, compute_prior, get_labels, load_evidence
from productrec.assembly.reranked import Answer, prepare_answering
from productrec.assembly.table_state import digest_rows
from productrec.class_order import ClassOrder
from productrec.competitions.contract import Contract, load_contract
from productrec.console import warn
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable, load_table
from productrec.metrics.answers import Answers, join, summarise
from productrec.recipe import Recipe
from productrec.recognition.classifier import PARTS, RERANKED
from productrec.recognition.classifier_file import SavedClassifier, load_classifier
from productrec.recognition.probabilities import KIND, write_probabilities
from productrec.recognition.scores import Scores, score_answers
from productrec.training.run.checkpoint import load_checkpoint

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Classified:
    """Scores by way to predict on validation images, and on test images whose labels the table holds."""

    validation: dict[str, Scores]
    test: dict[str, Scores]


def run_classify(run: Path, recipe: Recipe, *, views: str) -> Classified:
    """Write the class probabilities of validation and test images, ``RUN/predictions/VIEWS/SPLIT``.

    An image that cannot be read gets the share of each class among the training images.

    Args:
        run: the run folder, with embedding and neighbour sets and the classifier of these views.
        recipe: contract, table.
        views: preset of views.

    Returns:
        Scores of the classifier and of its parts; empty without such images. Where the classifier was fitted on the
        validation images, those on them are of answers by what was fitted on the others.

    Raises:
        ArtifactError: sets of different networks or images.
    """
    table, contract = load_table(recipe.table, root=recipe.data.images), load_contract(recipe.competition)
    trained = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    class_ids = sorted(trained.match_classes(table))
    saved = load_classifier(run / "classifier" / views)
    known = {
        split: load_evidence(
            run, table, views, split, class_ids, saved.prototypes, saved.categories, saved.distractors, saved.voters
        )
        for split in ("val", "test")
    }
    scores = {name: Scores(**values) for name, values in saved.fitted.get("scores", {}).items()}
    answer = prepare_answering(run, recipe, table, views, class_ids, saved, list(known.values()))
    if not scores and saved.fitted:  # fitted out of fold, so that no validation image had a say
        scores = _score_known(known["val"], table, class_ids, answer, contract)
    prior = compute_prior(table, class_ids, recipe.predict.gallery_splits)
    for split, evidence in known.items():
        if len(table.select([split], usable=False)):
            _write(run, recipe, table, split, views, evidence, class_ids, saved, answer, prior, scores)
    return Classified(scores, _score_known(known["test"], table, class_ids, answer, contract))


def _score(
    images: SplitEvidence,
    rows: np.ndarray,
    labels: np.ndarray,
    class_ids: list[int],
    answer: Answer,
    contract: Contract,
) -> dict[str, Scores]:
    """Scores on images at ``rows`` (N,) by every part, for their class ids (N,)."""
    positions = ClassOrder(class_ids).positions_of(labels)
    answers: dict[str, list[Answers]] = {}
    for start in range(0, len(labels), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        answered = answer(images, rows[block])
        for name, part in answered.parts.items():
            said = np.flatnonzero(~answered.lacks[name]) if name in answered.lacks else slice(None)
            answers.setdefault(name, []).append(summarise(part[said], positions[block][said]))
    joined = {name: join(seen) for name, seen in answers.items()}
    return {name: score_answers(one, metric=contract.scored_by) for name, one in joined.items() if len(one.ranks)}


def _score_known(
    images: SplitEvidence | None,
    table: ImageTable,
    class_ids: list[int],
    answer: Answer,
    contract: Contract,
) -> dict[str, Scores]:
    """Scores on those whose labels are known of images that nothing was fitted on; none where the head knows none."""
    if images is None:
        return {}
    labels = get_labels(table, images.ids)
    known = np.flatnonzero(labels != NO_LABEL)
    if not np.isin(labels[known], class_ids).any():
        return {}
    return _score(images, known, labels[known], class_ids, answer, contract)


def _write(
    run: Path,
    recipe: Recipe,
    table: ImageTable,
    split: str,
    views: str,
    known: SplitEvidence | None,
    class_ids: list[int],
    saved: SavedClassifier,
    answer: Answer,
    prior: np.ndarray,
    scores: dict[str, Scores],
) -> None:
    """Write the classifier's class probabilities of a split, and those of its parts where they are kept."""
    ids = table.select([split], usable=False)["image_id"].tolist()
    known_ids = known.ids if known else []
    fallback = sorted(set(ids) - set(known_ids))
    inputs = {"table": table.fingerprint, "classifier": saved.fingerprint} | (known.inputs if known else {})
    final = "fused" if saved.reranked is None else RERANKED
    folders = {final: run / "predictions" / views / split}
    if recipe.predict.keep_parts:
        others = [part for part in PARTS if part not in (final, RERANKED)]
        others += [voter.name for voter in saved.classifier.further if known and voter.name in known.voters]
        folders |= {part: run / "predictions" / views / "parts" / part / split for part in others}
    written: dict[str, np.ndarray] = {}
    doubted: list[str] | None = None if saved.unknown is None else []
    with ExitStack() as stack:
        for part, folder in folders.items():
            how = saved.reranked if part == RERANKED and saved.reranked else saved.classifier
            settings = {"part": part, "classifier": how.describe(), "views": views, "split": split}
            if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
                continue
            writing = write_probabilities(
                folder,
                ids=ids,
                class_ids=class_ids,
                names=table.get_class_names(class_ids),
                fallback=fallback,
                made={"run": str(run), **settings, "validation": asdict(scores[part]) if part in scores else None},
                inputs=inputs,
                settings=settings,
                keys=get_class_keys(table, class_ids),
                table=recipe.table,
                rows=digest_rows(table, split),
                doubted=doubted if part == "fused" else None,
            )
            written[part] = stack.enter_context(writing)
        if written:
            _fill(written, ids, known, answer, prior, doubted)
    if fallback and split == "test":
        warn(f"{len(fallback)} {split} images cannot be read (first: {fallback[0]}); they get the class prior.")


def _fill(
    written: dict[str, np.ndarray],
    ids: Sequence[str],
    known: SplitEvidence | None,
    answer: Answer,
    prior: np.ndarray,
    doubted: list[str] | None,
) -> None:
    """Fill the class probabilities (N, C) of each part: block by block, and the prior where nothing is known.

    ``doubted`` gets the ids of images that are not believed to be of any of the classes.
    """
    known_ids = known.ids if known else []
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    rows = np.array([row_of[image_id] for image_id in known_ids], dtype=np.int64)
    unread = np.setdiff1d(np.arange(len(ids)), rows)
    for values in written.values():
        values[unread] = prior
    if known is None:
        return
    for start in range(0, len(rows), _BLOCK_ROWS):
        answered = answer(known, slice(start, start + _BLOCK_ROWS))
        if doubted is not None and answered.believed is not None:
            doubted += [known_ids[start + row] for row in np.flatnonzero(~answered.believed).tolist()]
        for part, values in written.items():
            values[rows[start : start + _BLOCK_ROWS]] = answered.parts[part]
