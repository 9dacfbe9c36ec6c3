"""Evaluate: exact retrieval and classification figures of embeddings, with intervals, as benchmarks define them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import is_fresh, load_manifest, write_artifact, write_text
from productrec.assembly.evaluation import (
    Evaluation,
    Material,
    Protocol,
    Wanted,
    evaluate_material,
)
from productrec.assembly.fused_figures import find_classifier, judge_fused
from productrec.competitions.contract import load_contract
from productrec.console import print_table, say, warn
from productrec.data.table import ImageTable, load_table
from productrec.errors import ArtifactError, DataError
from productrec.metrics.calibration import build_reliability
from productrec.metrics.category_tree import CategoryTree
from productrec.recipe import Recipe
from productrec.recognition.open_set_figures import tell_open_set
from productrec.retrieval.embedding_set import EmbeddingSet, join_embedding_sets, load_embedding_set

KIND = "evaluation"
_UNSEEN = np.iinfo(np.int64).min  # class of an image without a label


def run_evaluate(
    run: Path,
    recipe: Recipe,
    *,
    split: str = "val",
    views: str = "plain",
    protocol: Protocol = "auto",
    wanted: Wanted,
    keep: bool = True,
) -> Evaluation:
    """Evaluate an embedded split of a run.

    Args:
        run: the run folder, whose split (and gallery, where it is asked) is embedded.
        recipe: gallery splits and image table.
        split: whose images ask.
        views: preset of their views.
        protocol: who asks whom; ``auto`` for :func:`choose_protocol`.
        wanted: figures.
        keep: write them to ``RUN/evaluations/VIEWS/SPLIT/evaluation.json``, over what is there, and the open-set curve
            of the run's classifier beside it, ``open_set.csv``.

    Raises:
        ArtifactError: an embedding set is missing, or of another state of the table.
        DataError: the split has no labels, or nobody has anything to find.
    """
    table = load_table(recipe.table, root=recipe.data.images)
    chosen = choose_protocol(table, split, recipe.predict.gallery_splits) if protocol == "auto" else protocol
    asked = load_embedding_set(run / "embeddings" / views / split)
    gallery = list_gallery(recipe, split, views) if chosen == "gallery" else {}
    sets = {other: load_embedding_set(run / "embeddings" / seen / other) for other, seen in gallery.items()}
    again = f"productrec evaluate {run} --split {split} --views {views}"
    for embedded, seen in {split: views, **gallery}.items():
        _check_current(run / "embeddings" / seen / embedded, table, again)
    inputs = {"table": table.fingerprint, split: asked.fingerprint}
    inputs |= {f"gallery {name}": embedded.fingerprint for name, embedded in sets.items()}
    metric = load_contract(recipe.competition).scored_by
    settings = asdict(wanted) | {"protocol": chosen, "competition": metric.key}
    classifier = find_classifier(run, recipe, split, views) if wanted.fused else {}
    inputs |= classifier
    folder = run / "evaluations" / views / split
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
        return _load(folder)
    material = replace(_gather(table, asked, list(sets.values()), split, chosen), metric=metric)
    evaluation = evaluate_material(material, chosen, wanted)
    fused = judge_fused(run, recipe, table, split=split, views=views, draws=wanted.draws) if classifier else None
    if fused is not None:
        open_set = None if fused.open_set is None else fused.open_set.describe()
        evaluation = replace(evaluation, open_set=open_set, calibration=fused.reliability.describe())
    if not keep:
        return evaluation
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings) as temporary:
        # In the order of computing, which sorted keys would lose.
        write_text(temporary / "evaluation.json", json.dumps(asdict(evaluation), indent=2) + "\n")
        if fused is not None and fused.open_set is not None:
            lines = [",".join(map(repr, row)) for row in fused.open_set.list_curve()]
            write_text(temporary / "open_set.csv", "\n".join(["threshold,true_accepts,false_accepts", *lines]) + "\n")
    return evaluation


def choose_protocol(table: ImageTable, split: str, gallery_splits: Sequence[str]) -> Protocol:
    """Who asks whom.

    In-Shop's roles where a split has them; the gallery where it holds one of the split's classes; else, as in SOP, CUB
    and Cars196, every image all others of the split.
    """
    rows = table.select([split])
    roles = set(rows["role"].dropna())
    if {"query", "gallery"} <= roles:
        return "roles"
    others = table.select([other for other in gallery_splits if other != split])
    shared = set(rows["label"].dropna()) & set(others["label"].dropna())
    return "gallery" if shared else "self"


def list_gallery(recipe: Recipe, split: str, views: str) -> dict[str, str]:
    """Splits that a split's images search, and the views of each; never itself, where each image would find itself.

    Raises:
        DataError: the recipe names no other split.
    """
    others = [other for other in recipe.predict.gallery_splits if other != split]
    if not others:
        raise DataError(
            f"evaluation: the gallery of {split} must be another split; got predict.gallery_splits of {split} alone. "
            "Name another with predict.gallery_splits, or let every image ask all others with --protocol self."
        )
    return dict.fromkeys(others, "plain" if views == "plain" else recipe.predict.gallery_tta)


def has_foreign_classes(run: Path, recipe: Recipe, split: str) -> bool:
    """Whether the head knows not one class of an embedded split, so that retrieval alone can judge it."""
    folder = run / "embeddings" / "plain" / split
    if not folder.exists():
        return False
    rows = load_table(recipe.table, root=recipe.data.images).select([split])
    labels = set(rows["label"].dropna().astype(int))
    return bool(labels) and not labels & set(load_embedding_set(folder).class_ids)


def report(evaluation: Evaluation, title: str) -> None:
    """Print the figures in %, mistake severity in levels of the tree."""
    rows = []
    for name, value in evaluation.figures.items():
        scale, digits = (1, 3) if name.endswith("severity") else (100, 2)
        ends = evaluation.intervals.get(name)
        shown = "" if ends is None else f"{scale * ends[0]:.{digits}f} to {scale * ends[1]:.{digits}f}"
        rows.append((name, f"{scale * value:.{digits}f}", shown))
    print_table(f"{title}: {evaluation.protocol}", ("", "%", "95 % interval"), rows)
    say(
        f"{evaluation.queries:,} queries, {evaluation.queries_without_positives:,} of them without a positive, "
        f"{evaluation.gallery_rows:,} gallery rows"
    )
    if evaluation.calibration is not None:
        say(f"the classifier's confidence: {build_reliability(evaluation.calibration).tell()}")
    if evaluation.open_set is not None:
        say(f"unknown products: {tell_open_set(evaluation.open_set)}")


def _gather(table: ImageTable, asked: EmbeddingSet, sets: list[EmbeddingSet], split: str, protocol: str) -> Material:
    images = table.images.set_index("image_id")
    labels, roles = images["label"], images["role"]

    def find_labels(embedded: EmbeddingSet) -> np.ndarray:
        return np.asarray(labels.loc[embedded.ids].fillna(_UNSEEN).to_numpy(dtype=np.int64))

    own = find_labels(asked)
    known = own != _UNSEEN
    if not known.any():
        raise DataError(f"{table.root}: no {split} image has a label, so there is nothing to compare with.")
    if not known.all():
        warn(f"{int((~known).sum()):,} {split} images have no label and are left out")
    paths = table.classes["path"].tolist()
    tree = CategoryTree(table.classes["id"].tolist(), [path if isinstance(path, str) else None for path in paths])
    embeddings = np.asarray(asked.embeddings)
    logits = asked.logits if set(own[known]) & set(asked.class_ids) else None
    if protocol == "roles":
        role = roles.loc[asked.ids].to_numpy(dtype=object)
        is_query, is_gallery = known & (role == "query"), known & (role == "gallery")
        if not is_query.any() or not is_gallery.any():
            raise DataError(f"{table.root}: {split} must have queries and a gallery for this protocol. Choose another.")
        gallery, gallery_labels = embeddings[is_gallery], own[is_gallery]
        chosen = is_query
    elif protocol == "gallery":
        if any(embedded.weights_digest != asked.weights_digest for embedded in sets):
            raise ArtifactError("evaluation: queries and gallery must come from one network. Embed them again.")
        joined = join_embedding_sets(sets, keep_logits=False)
        gallery, gallery_labels = np.asarray(joined.embeddings), find_labels(joined)
        chosen = known
    else:
        gallery, gallery_labels, chosen = None, None, known
    rows = slice(None) if chosen.all() else chosen  # a memory map stays one
    return Material(
        embeddings[rows],
        own[rows],
        gallery,
        gallery_labels,
        None if logits is None else np.asarray(logits)[rows],
        asked.class_ids,
        tree,
    )


def _check_current(folder: Path, table: ImageTable, again: str) -> None:
    if load_manifest(folder).inputs.get("table") != table.fingerprint:
        raise ArtifactError(
            f"{folder}: the image table has changed since these images were embedded. Embed them again: run `{again}`."
        )


def _load(folder: Path) -> Evaluation:
    kept: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    kept["intervals"] = {name: (low, high) for name, (low, high) in kept["intervals"].items()}
    return Evaluation(**kept)
