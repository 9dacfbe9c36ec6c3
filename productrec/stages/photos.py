"""Photos: a folder of new photos and a run become a CSV of classes; nothing is needed but the run folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from productrec.artifacts import write_file
from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.network import load_network
from productrec.assembly.resources import choose_loader_workers, claim_resources
from productrec.class_order import ClassOrder
from productrec.console import say, show_progress, warn
from productrec.data.dataset import ViewBatch, ViewedImages, build_view_loader
from productrec.data.images import FileImages
from productrec.data.inspection import inspect_images
from productrec.data.view_presets import get_views
from productrec.delimited import guard_cell
from productrec.ensembling.blend import check_same_order, resolve_weights
from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.models.inference import ViewRecognizer
from productrec.models.recognizer import Recognizer
from productrec.recipe import Recipe
from productrec.recognition.classifier import Evidence, compute_parts
from productrec.recognition.classifier_file import SavedClassifier, load_classifier
from productrec.recognition.prototypes import compare_prototypes
from productrec.recognition.vote import compute_softmax
from productrec.retrieval.embedding_set import EmbeddingSet
from productrec.retrieval.index import Index, load_index, search_index
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
class ReadyRun:
    """A run that classifies: its network, and its gallery's index with the classifier fitted for it, where it has them.

    ``order`` (C,): position of each of the checkpoint's classes among the classifier's; ``classes`` (M,): position of
    each gallery row's class among these, -1 where it is none of them.
    """

    run: Path
    recipe: Recipe
    checkpoint: Checkpoint
    network: Recognizer
    device: torch.device
    dtype: torch.dtype
    index: Index | None
    classes: np.ndarray
    saved: SavedClassifier | None
    order: np.ndarray
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
    classifiers = [prepare_run(run, recipe) for run, recipe in runs.items()]
    first_keys = classifiers[0].checkpoint.class_keys
    names = [str(run) for run in runs]
    check_same_order(names, [sorted(classifier.checkpoint.class_keys) for classifier in classifiers], "classes")
    orders = [ClassOrder(classifier.checkpoint.class_keys).positions_of(first_keys) for classifier in classifiers]
    shares = resolve_weights(names, weights)
    paths = [files[name] for name in photos]
    lines: dict[str, tuple[str, ...]] = {}
    with show_progress("classifying photos", len(photos)) as bar:
        size = min(classifier.recipe.predict.batch_size for classifier in classifiers)  # the runs go side by side
        for parts in zip(*(_classify(classifier, paths, size) for classifier in classifiers), strict=True):
            rows, _, broken = parts[0]
            blended = sum(
                share * probabilities[:, order]
                for (_, probabilities, _), order, share in zip(parts, orders, shares, strict=True)
            )
            for row, line in zip(rows, _describe(np.asarray(blended), classifiers[0].checkpoint), strict=True):
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


def prepare_run(run: Path, recipe: Recipe) -> ReadyRun:
    """A run ready to classify through its recipe's views.

    Raises:
        ArtifactError: no checkpoint, one that was written before class names were kept, or a damaged artefact.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    if not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    resources = claim_resources(recipe, run)
    index, saved, way = _load_neighbours(run, recipe, checkpoint)
    order = classes = np.empty(0, np.int64)
    if index is not None and saved is not None:
        known = ClassOrder(saved.keys)
        order = known.positions_of(checkpoint.class_keys)
        positions = known.positions_of(list(index.keys.values()))
        classes = positions[ClassOrder(list(index.keys)).positions_of(index.labels)]
    network = load_network(checkpoint).to(resources.device)
    return ReadyRun(
        run, recipe, checkpoint, network, resources.device, resources.dtype, index, classes, saved, order, way
    )


def _load_neighbours(
    run: Path, recipe: Recipe, checkpoint: Checkpoint
) -> tuple[Index | None, SavedClassifier | None, str]:
    """The gallery's index and the classifier, where these belong together, and both in words."""
    views = recipe.predict.tta
    gallery, folder = run / "index" / get_gallery_views(recipe, views), run / "classifier" / views
    again = f"productrec predict {run} --views {views}"
    if not folder.exists() or not gallery.exists():
        return (
            None,
            None,
            f"the head alone, through the views {views}; {again} makes what neighbours need to vote too",
        )
    index, saved = load_index(gallery), load_classifier(folder)
    belongs = (
        saved.index == index.fingerprint
        and index.weights_digest == checkpoint.weights_digest
        and sorted(saved.keys) == sorted(checkpoint.class_keys)
    )
    if not belongs or not index.keys:
        return None, None, f"the head alone, since its index is of an earlier time; {again} makes it anew"
    fitted = "as fitted on validation" if saved.fitted else "by default"
    return index, saved, f"{saved.classifier.tell()}, {fitted}, through the views {views}"


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
    classifier: ReadyRun, paths: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], np.ndarray, dict[int, str]]]:
    """Rows, probabilities (B, C) in the checkpoint's order, and why some could not be read, batch by batch."""
    views = get_views(classifier.recipe.predict.tta)
    dataset = ViewedImages(FileImages(paths), views, classifier.checkpoint.recipe["train"]["side_px"])
    cuts = list(dict.fromkeys(view.cut for view in views))
    plan = [(cuts.index(view.cut), view.flip) for view in views]
    on_gpu = classifier.device.type == "cuda"
    workers = choose_loader_workers(classifier.recipe, classifier.device)
    loader = build_view_loader(dataset, batch_size=batch_size, workers=workers, pin_memory=on_gpu)
    recognise = ViewRecognizer(classifier.network, plan, device=classifier.device, dtype=classifier.dtype)
    batch: ViewBatch
    for batch in loader:
        _, seen = recognise(batch.cuts)
        rows = batch.rows.tolist()
        ids = [paths[row] for row in rows]
        yield rows, _fuse(classifier, ids, seen.embeddings.numpy(), seen.logits.numpy()), batch.broken


def _fuse(classifier: ReadyRun, ids: list[str], embeddings: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Probabilities (B, C) in the checkpoint's order."""
    saved = classifier.saved
    if classifier.index is None or saved is None:
        return compute_softmax(logits)
    queries = EmbeddingSet(ids, embeddings, logits, [], [], classifier.checkpoint.weights_digest, {}, "")
    rows, similarities = search_index(classifier.index, queries, saved.classifier.vote.k)
    ordered = np.empty_like(logits)
    ordered[:, classifier.order] = logits
    near = compare_prototypes(embeddings, saved.prototypes)
    evidence = Evidence(ordered, classifier.classes[rows], similarities, near, saved.categories)
    return compute_parts(evidence, saved.classifier).fused[:, classifier.order]


def _describe(probabilities: np.ndarray, checkpoint: Checkpoint) -> Iterable[tuple[str, ...]]:
    """The best and the next best class of each row, as they stand in the CSV."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    for row, columns in zip(probabilities, best.tolist(), strict=True):
        line: list[str] = []
        for column in columns:
            line += [checkpoint.class_names[column], checkpoint.class_keys[column], f"{row[column]:.4f}"]
        yield tuple(line + [""] * (6 - len(line)))
