"""Photos: a folder of new photos and a run become a CSV of classes; nothing is needed but the run folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from productrec.artifacts import Manifest, load_manifest, write_file
from productrec.assembly.network import load_network
from productrec.assembly.photo_batches import recognise_photos
from productrec.assembly.resources import claim_resources
from productrec.class_order import ClassOrder
from productrec.console import say, show_progress, warn
from productrec.data.inspection import inspect_images
from productrec.delimited import guard_cell
from productrec.ensembling.blend import check_same_order, resolve_weights
from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.models.recognizer import Recognizer
from productrec.recipe import Recipe
from productrec.recognition.fusion import Evidence, Fusion
from productrec.recognition.grown import fuse_grown
from productrec.recognition.vote import compute_softmax
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.embedding_set import EmbeddingSet, read_weights_digest
from productrec.retrieval.index import INDEX_KIND, has_keys
from productrec.runtime import count_cores
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint

COLUMNS = ("id", "class", "class_id", "probability", "next_class", "next_class_id", "next_probability", "reason")


@dataclass(frozen=True)
class Photographed:
    """A written CSV: how many photos were classified, and why each other file was not, by id; how, for each run."""

    path: Path
    photos: int
    reasons: dict[str, str]
    ways: list[str]


@dataclass(frozen=True)
class Classifier:
    """A run that classifies: its network, and its catalogue with the fusion that was fitted for it, where it has.

    ``keys`` and ``names``: of the checkpoint's C classes, then of the E that the catalogue has grown by and the head
    does not know; ``positions``: of each of the catalogue's classes among these, -1 where it is none of them;
    ``is_removed`` (C,): classes that were taken out of the catalogue.
    """

    run: Path
    recipe: Recipe
    checkpoint: Checkpoint
    network: Recognizer
    device: torch.device
    dtype: torch.dtype
    catalogue: Catalogue | None
    keys: list[str]
    names: list[str]
    positions: np.ndarray
    is_removed: np.ndarray
    fusion: Fusion
    way: str


def run_photos(
    runs: Mapping[Path, Recipe], source: Path, out: Path, *, weights: Sequence[float] | None = None, replace: bool
) -> Photographed:
    """Classify every file below a folder, or one photo, and write a line for each.

    The class is the most probable by head and neighbours, fused as `productrec predict` has fitted it on validation
    images; by the head alone where the run has no index of the same views. Several runs are averaged.

    Args:
        runs: run folders with the settings to predict with.
        source: folder, looked through with all that are in it, or a file.
        out: CSV to write, with the columns `COLUMNS`: ``id`` is the path below ``source``, ``class_id`` what the
            source of the training images calls the class (its id, or its folder), ``reason`` why a file is no photo.
        weights: one a run; equal where None.
        replace: write over a file that is there.

    Raises:
        ArtifactError: a run is not trained or an artefact of it is damaged, runs know different classes, or ``out`` is
            there already.
        DataError: no photo is there.
    """
    if out.exists() and not replace:
        raise ArtifactError(
            f"{out}: is there already. Name another file with --out, or pass --replace to write over it."
        )
    files = _list_files(source, out)
    with show_progress("reading photos", len(files)) as bar:
        states = inspect_images(list(files.values()), workers=count_cores(), on_progress=bar.advance)
    reasons = {
        name: state.reason or state.status for name, state in zip(files, states, strict=True) if state.status != "ok"
    }
    photos = [name for name in files if name not in reasons]
    if not photos:
        first = next(iter(reasons.items()))
        raise DataError(f"{source}: not one of {len(files)} files is a photo; the first, {first[0]}: {first[1]}")
    classifiers = [load_classifier(run, recipe) for run, recipe in runs.items()]
    titles = {key: name for one in reversed(classifiers) for key, name in zip(one.keys, one.names, strict=True)}
    keys = list(dict.fromkeys(key for classifier in classifiers for key in classifier.keys))
    names = [str(run) for run in runs]
    check_same_order(names, [sorted(classifier.checkpoint.class_keys) for classifier in classifiers], "classes")
    orders = [ClassOrder(classifier.keys).positions_of(keys) for classifier in classifiers]
    shares = resolve_weights(names, weights)
    paths = [files[name] for name in photos]
    lines: dict[str, tuple[str, ...]] = {}
    with show_progress("classifying photos", len(photos)) as bar:
        size = min(classifier.recipe.predict.batch_size for classifier in classifiers)  # the runs go side by side
        for parts in zip(*(_classify(classifier, paths, size) for classifier in classifiers), strict=True):
            rows, _, broken = parts[0]
            blended = sum(
                share * np.where(order >= 0, probabilities[:, order], 0.0)  # a class that one run alone has grown by
                for (_, probabilities, _), order, share in zip(parts, orders, shares, strict=True)
            )
            for row, line in zip(rows, _describe(np.asarray(blended), keys, titles), strict=True):
                lines[photos[row]] = line
            reasons |= {photos[row]: reason.removeprefix(f"{paths[row]}: ") for row, reason in broken.items()}
            bar.advance(len(rows))
    # A file name that is no UTF-8 is written as a person can read it.
    with write_file(out) as path, path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in files:
            answer = ("",) * (len(COLUMNS) - 2) if name in reasons else lines[name]
            writer.writerow([guard_cell(cell) for cell in (name, *answer, reasons.get(name, ""))])
    ways = [f"{classifier.run}: {classifier.way}" for classifier in classifiers]
    return Photographed(out, len(files) - len(reasons), reasons, ways)


def report(done: Photographed) -> None:
    """Say how photos were classified, and which files were none."""
    for way in done.ways:
        say(way)
    if done.reasons:
        warn(f"{describe_offenders(done.reasons)} are no photos; their lines in the CSV say why.")
    say(f"photos {done.path}: {done.photos:,} classified")


def load_classifier(run: Path, recipe: Recipe) -> Classifier:
    """A run ready to classify through its recipe's views.

    Raises:
        ArtifactError: no checkpoint, one that was written before class names were kept, or a damaged artefact.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    if not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    resources = claim_resources(recipe, run)
    catalogue, fusion, way = _load_fusion(run, recipe, checkpoint)
    keys, names, removed = checkpoint.class_keys, checkpoint.class_names, set[str]()
    positions = np.empty(0, np.int64)
    if catalogue is not None:
        grown = [key for key in catalogue.names if key not in catalogue.removed and key not in set(keys)]
        keys, names, removed = keys + grown, names + [catalogue.names[key] for key in grown], catalogue.removed
        positions = ClassOrder(keys).positions_of(catalogue.keys)
    is_removed = np.isin(checkpoint.class_keys, list(removed))
    network = load_network(checkpoint).to(resources.device)
    computing = (network, resources.device, resources.dtype)
    return Classifier(run, recipe, checkpoint, *computing, catalogue, keys, names, positions, is_removed, fusion, way)


def _load_fusion(run: Path, recipe: Recipe, checkpoint: Checkpoint) -> tuple[Catalogue | None, Fusion, str]:
    """The gallery's catalogue and how its vote is fused with the head, where these belong together; both in words."""
    views = recipe.predict.tta
    gallery = run / "index" / ("plain" if views == "plain" else recipe.predict.gallery_tta)
    again = f"productrec predict {run} --views {views}"
    alone = f"the head alone, through the views {views}; {again} makes what neighbours need to vote too"
    splits = [split for split in ("val", "test") if (run / "predictions" / views / split).exists()]
    if not splits or not gallery.exists():
        return None, Fusion(), alone
    index = load_manifest(gallery, kind=INDEX_KIND)
    # Those of one split may be of an earlier time: where a table has lost its validation images, nothing renews them.
    current = [known for split in splits if (known := _load_current(run, views, split, index)) is not None]
    predictions = current[0] if current and read_weights_digest(gallery, index) == checkpoint.weights_digest else None
    if predictions is None or not has_keys(gallery):
        return None, Fusion(), f"the head alone, since its index is of an earlier time; {again} makes it anew"
    fusion = Fusion(**predictions.settings["fusion"])
    fitted = "as fitted on validation" if predictions.notes["made"].get("validation") else "by default"
    weight = fusion.head_weight
    way = f"{weight:g} x head + {1 - weight:g} x vote of {fusion.k} neighbours, {fitted}, through the views {views}"
    catalogue = Catalogue(gallery)
    if changed := catalogue.describe_changes():
        way += f"; the catalogue has changed since: {changed}"
    return catalogue, fusion, way


def _load_current(run: Path, views: str, split: str, index: Manifest) -> Manifest | None:
    """The manifest of a split's predictions; None where they were not made from neighbours in this index."""
    predictions = load_manifest(run / "predictions" / views / split)
    neighbours = load_manifest(run / "neighbours" / views / split)
    is_current = (
        neighbours.inputs.get("index") == index.fingerprint
        and predictions.inputs.get("neighbours") == neighbours.fingerprint
    )
    return predictions if is_current else None


def _list_files(source: Path, out: Path) -> dict[str, str]:
    """Path of every file by its name below ``source``; no hidden ones, and not the CSV itself."""
    if source.is_file():
        return {source.name: str(source)}
    if not source.is_dir():
        raise DataError(f"{source}: must be a folder of photos, or a photo; there is none of that name.")
    files = {}
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.absolute() != out.absolute():
                files[path.relative_to(source).as_posix()] = str(path)
    if not files:
        raise DataError(f"{source}: must hold photos; it holds no file.")
    return files


def _classify(
    classifier: Classifier, paths: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], np.ndarray, dict[int, str]]]:
    """Rows, probabilities (B, C + E) in the order of its keys, and why some could not be read, batch by batch."""
    batches = recognise_photos(
        paths,
        classifier.network,
        classifier.recipe,
        views=classifier.recipe.predict.tta,
        side_px=classifier.checkpoint.recipe["train"]["side_px"],
        batch_size=batch_size,
        device=classifier.device,
        dtype=classifier.dtype,
    )
    for seen in batches:
        ids = [paths[row] for row in seen.rows]
        yield seen.rows, _fuse(classifier, ids, seen.embeddings, seen.logits), seen.broken


def _fuse(classifier: Classifier, ids: list[str], embeddings: np.ndarray, logits: np.ndarray) -> np.ndarray:
    catalogue = classifier.catalogue
    if catalogue is None:
        return compute_softmax(logits)
    side_px = classifier.checkpoint.recipe["train"]["side_px"]
    queries = EmbeddingSet(ids, embeddings, logits, [], [], classifier.checkpoint.weights_digest, {}, "", side_px)
    rows, similarities = catalogue.search(queries, classifier.fusion.k)
    evidence = Evidence(logits, classifier.positions[catalogue.get_classes(rows)], similarities)
    grown_count = len(classifier.keys) - logits.shape[1]
    return fuse_grown(evidence, classifier.fusion, grown_count=grown_count, is_removed=classifier.is_removed)


def _describe(probabilities: np.ndarray, keys: list[str], names: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    """The best and the next best class of each row, as they stand in the CSV."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    for row, columns in zip(probabilities, best.tolist(), strict=True):
        line: list[str] = []
        for column in columns:
            line += [names[keys[column]], keys[column], f"{row[column]:.4f}"]
        yield tuple(line + [""] * (6 - len(line)))
