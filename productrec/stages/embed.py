"""Embed: a checkpoint looks at gallery, validation and test images, through the plain view and through several."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from productrec.artifacts import is_fresh
from productrec.assembly.embedding_requests import EmbeddingRequest, add_plain, list_requests, select_rows
from productrec.assembly.network import load_network
from productrec.assembly.resources import claim_resources
from productrec.assembly.run_indexes import name_views
from productrec.console import show_progress, warn
from productrec.data.dataset import ViewBatch, ViewedImages, build_view_loader
from productrec.data.images import open_images
from productrec.data.table import ImageTable, load_table
from productrec.data.transforms import check_pipelines
from productrec.data.view_presets import get_views, plan_views
from productrec.errors import DataError, describe_offenders
from productrec.models.inference import ViewRecognizer
from productrec.models.recognizer import Recognizer
from productrec.recipe import Recipe
from productrec.retrieval.embedding_set import KIND, EmbeddingWriter, write_embedding_set
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.resources import Resources
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint
from productrec.training.run.validation import slice_of_rank


def run_embed(
    run: Path, recipe: Recipe, requests: Sequence[EmbeddingRequest] | None = None, *, ranks: Ranks | None = None
) -> list[EmbeddingRequest]:
    """Embed images with a run's checkpoint; sets that are there and unchanged are left alone.

    Args:
        run: the run folder.
        recipe: settings of prediction (views, gallery splits, batch size) and where the image table is.
        requests: what to embed; None for what prediction needs.
        ranks: that embed them together, each its slice, and write into the same files; all must call this.

    Returns:
        What is now on disk.

    Raises:
        ArtifactError: no checkpoint, or the table lacks one of its classes.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    table = load_table(recipe.table, root=recipe.data.images)
    class_ids = checkpoint.match_classes(table)
    _tell_changes(run, checkpoint, table, class_ids)
    if requests is None:
        requests = list_requests(recipe, table)
    if not class_ids:  # of a network that learned from titles alone
        requests = [replace(request, keep_logits=False) for request in requests]
    resources = claim_resources(recipe, run, ranks)
    loaded: list[Recognizer] = []
    for request in dict.fromkeys(requests):
        missing = [
            needed
            for needed in add_plain(request)
            if not _is_embedded(run, needed, checkpoint, table, recipe, resources.dtype)
        ]
        missing = resources.ranks.broadcast(missing)  # the first writes them
        if not missing:
            continue
        if not loaded:
            loaded.append(load_network(checkpoint).to(resources.device))
        _embed(run, request, missing, checkpoint, table, class_ids, loaded[0], recipe, resources)
    return list(dict.fromkeys(needed for request in requests for needed in add_plain(request)))


def _is_embedded(
    run: Path,
    request: EmbeddingRequest,
    checkpoint: Checkpoint,
    table: ImageTable,
    recipe: Recipe,
    dtype: torch.dtype,
) -> bool:
    folder = request.get_folder(run)
    for keep_logits in {request.keep_logits, True}:  # a set with logits also serves where none are asked
        settings = _get_settings(EmbeddingRequest(request.split, request.views, keep_logits), checkpoint, recipe, dtype)
        if is_fresh(folder, kind=KIND, inputs=_get_inputs(checkpoint, table), settings=settings):
            return True
    return False


def _get_inputs(checkpoint: Checkpoint, table: ImageTable) -> dict[str, str]:
    return {"weights": checkpoint.weights_digest, "table": table.fingerprint}


def _get_settings(
    request: EmbeddingRequest, checkpoint: Checkpoint, recipe: Recipe, dtype: torch.dtype
) -> dict[str, object]:
    views = get_views(request.views, recipe.predict.own_views)
    names = [view.title for view in views]
    side_px = checkpoint.recipe["train"]["side_px"]
    settings = {
        "split": request.split,
        "views": names,
        "logits": request.keep_logits,
        "side_px": side_px,
        "precision": str(dtype),
    }
    # What the default settings would say is left out, for sets of before these settings to stay.
    if any(view.pipeline for view in views):
        settings["seed"] = recipe.seed
    if len(views) > 1 and recipe.predict.average != "logits":
        settings["average"] = recipe.predict.average
    if recipe.predict.stored != "float32":
        settings["stored"] = recipe.predict.stored
    return settings


def _embed(
    run: Path,
    request: EmbeddingRequest,
    missing: Collection[EmbeddingRequest],
    checkpoint: Checkpoint,
    table: ImageTable,
    class_ids: list[int],
    network: Recognizer,
    recipe: Recipe,
    resources: Resources,
) -> None:
    ranks = resources.ranks
    views = get_views(request.views, recipe.predict.own_views)
    rows = select_rows(table, request.split)
    if not len(rows):
        raise DataError(
            f"{table.root}: the table has no readable {request.split} images, so there is nothing to embed. "
            "Name another split, or ingest a source that has them."
        )
    side_px = checkpoint.recipe["train"]["side_px"]
    if any(view.pipeline for view in views):
        check_pipelines(views, side_px)
    own = slice_of_rank(len(rows), ranks)
    images = open_images(table, rows.iloc[own])
    dataset = ViewedImages(images, views, side_px, seed=recipe.seed, first=own.start)
    _, plan = plan_views(views)
    loader = build_view_loader(
        dataset,
        batch_size=recipe.predict.batch_size,
        workers=resources.workers,
        pin_memory=resources.is_on_gpu,
    )
    ids = rows["image_id"].tolist()
    dim = checkpoint.recipe["model"]["embedding_dim"]
    order = np.argsort(class_ids)  # a set's logits stand in the order of the table's ids, whatever the checkpoint's
    writers: dict[EmbeddingRequest, EmbeddingWriter] = {}
    with ExitStack() as stack:
        for needed in missing if ranks.is_first else ():
            writers[needed] = stack.enter_context(
                write_embedding_set(
                    needed.get_folder(run),
                    ids,
                    dim=dim,
                    class_ids=sorted(class_ids),
                    keep_logits=needed.keep_logits,
                    views=name_views(recipe, needed.views),
                    weights_digest=checkpoint.weights_digest,
                    inputs=_get_inputs(checkpoint, table),
                    settings=_get_settings(needed, checkpoint, recipe, resources.dtype),
                    stored=recipe.predict.stored,
                )
            )
        folders = ranks.broadcast([writer.folder for writer in writers.values()])
        if not ranks.is_first:
            for needed, folder in zip(missing, folders, strict=True):
                class_count = len(class_ids) if needed.keep_logits else None
                writers[needed] = EmbeddingWriter(folder, ids, dim, class_count, is_first=False)
        broken: dict[int, str] = {}
        recognise = ViewRecognizer(
            network, plan, device=resources.device, dtype=resources.dtype, average=recipe.predict.average
        )
        with show_progress(f"embedding {request.split}, {len(views)} views", len(dataset)) as bar:
            batch: ViewBatch
            for batch in loader:
                plain, together = recognise(batch.cuts)
                for needed, writer in writers.items():
                    seen = plain if needed.views == "plain" else together
                    logits = seen.logits.numpy()[:, order]
                    writer.write(batch.rows.numpy() + own.start, seen.embeddings.numpy(), logits)
                broken |= {row + own.start: reason for row, reason in batch.broken.items()}
                bar.advance(len(batch.rows))
        for writer in writers.values():
            writer.flush()
        broken = {row: reason for some in ranks.gather_objects(broken) for row, reason in some.items()}
        if len(broken) == len(ids):
            raise DataError(
                f"{table.root}: not one of the {len(ids)} {request.split} images can be read; the first: "
                f"{next(iter(broken.values()))} Name the folder they are in now with data.images=FOLDER."
            )
        for writer in writers.values():
            writer.mark_broken(broken)
    if broken:
        names = [ids[row] for row in sorted(broken)]
        warn(
            f"{describe_offenders(names)} {request.split} images could not be read since ingest; they count as broken."
        )


def _tell_changes(run: Path, checkpoint: Checkpoint, table: ImageTable, class_ids: Collection[int]) -> None:
    """Tell of a table that has changed since the training, and of classes with images that the run does not know."""
    if checkpoint.table != table.fingerprint:
        warn(
            f"{run}: the image table has changed since this run was trained. Its {len(class_ids):,} classes are found "
            "by their own names; validation images may be ones that it was trained on, so that scores may flatter."
        )
    labels = table.select(["train", "val"])["label"].dropna()
    unknown = sorted(set(labels.astype(int)) - set(class_ids))
    if unknown:
        names = table.get_class_names(unknown)
        warn(
            f"{run}: does not know {describe_offenders(names)} of the image table's classes, and gives their images "
            "another class. Train anew for them."
        )
