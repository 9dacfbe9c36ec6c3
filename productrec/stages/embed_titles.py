"""Embed titles: a checkpoint's text tower reads the titles of gallery, validation and test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from productrec.artifacts import is_fresh
from productrec.assembly.network import load_network, load_tokeniser
from productrec.assembly.resources import claim_resources
from productrec.assembly.titles import list_known_titles
from productrec.console import say
from productrec.data.table import ImageTable, load_table
from productrec.models.text.embed_titles import embed_titles
from productrec.recipe import Recipe
from productrec.retrieval.embedding_set import JOINED, KIND, TEXT, load_embedding_set, write_embedding_set
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint

_NO_LOGITS = np.empty((0, 0), np.float32)


def run_embed_titles(run: Path, recipe: Recipe) -> list[str]:
    """Embed titles, and image and title joined; what is there and unchanged is left alone.

    An image with several titles has the mean of their embeddings, brought back to unit norm. A joined embedding is the
    image's, through the plain view, and the title's, one behind the other, of unit norm: its similarity is the mean of
    both. Of validation and test images no class's description is read, which would tell the answer.

    Args:
        run: the run folder, whose images are embedded.
        recipe: gallery splits and image table.

    Returns:
        The splits of which an image has a title that may be known; none where the table has no titles.

    Raises:
        ArtifactError: no checkpoint, or one without a text tower.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    table = load_table(recipe.table, root=recipe.data.images)
    reads = str(checkpoint.recipe["model"]["text"]["reads"])
    splits = dict.fromkeys((*recipe.predict.gallery_splits, "val", "test"))
    gallery = recipe.predict.gallery_splits
    listed = {split: list_known_titles(table, split, reads, gallery=gallery) for split in splits}
    present = [split for split, titles in listed.items() if any(titles)]
    settings = {split: {"split": split, "reads": reads} for split in present}
    inputs = {"weights": checkpoint.weights_digest, "table": table.fingerprint}
    missing = [
        split
        for split in present
        if not is_fresh(run / "embeddings" / TEXT / split, kind=KIND, inputs=inputs, settings=settings[split])
    ]
    if missing:
        _embed(run, recipe, checkpoint, table, {split: listed[split] for split in missing}, inputs, settings)
    for split in present:
        _join(run, split, checkpoint)
    return present


def _embed(
    run: Path,
    recipe: Recipe,
    checkpoint: Checkpoint,
    table: ImageTable,
    listed: dict[str, list[list[str]]],
    inputs: dict[str, str],
    settings: dict[str, dict[str, str]],
) -> None:
    resources = claim_resources(recipe, run)
    tower, tokeniser = load_network(checkpoint).text, load_tokeniser(checkpoint)
    assert tower is not None, "a checkpoint with a tokeniser has a tower"
    tower = tower.to(resources.device)
    for split, titles in listed.items():
        rows = table.select([split])
        kept = [place for place, own in enumerate(titles) if own]
        embedded = embed_titles(
            tower,
            tokeniser,
            [title for place in kept for title in titles[place]],
            batch_size=recipe.predict.batch_size,
            device=resources.device,
            dtype=resources.dtype,
        )
        means = _average(embedded, [len(titles[place]) for place in kept])
        ids = rows["image_id"].iloc[kept].tolist()
        _write(run, TEXT, split, ids, means, checkpoint, inputs, settings[split])
        say(f"titles of {split}: {len(ids):,} of {len(rows):,} images have one")


def _average(embeddings: np.ndarray, counts: list[int]) -> np.ndarray:
    """The mean embedding of each image's titles, of unit norm."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    sums = np.add.reduceat(embeddings, starts, axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    first = embeddings[starts]  # of titles that cancel one another out the first stands
    means: np.ndarray = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), first)
    return means


def _join(run: Path, split: str, checkpoint: Checkpoint) -> None:
    """Image and title of a split's images, one behind the other; left out where images are not embedded plainly."""
    folders = [run / "embeddings" / views / split for views in ("plain", TEXT)]
    if not folders[0].exists():
        return
    images, titles = (load_embedding_set(folder) for folder in folders)
    inputs = {"images": images.fingerprint, "titles": titles.fingerprint}
    if is_fresh(run / "embeddings" / JOINED / split, kind=KIND, inputs=inputs, settings={"split": split}):
        return
    places = pd.Index(images.ids).get_indexer(pd.Index(titles.ids))
    kept = np.flatnonzero(places >= 0)
    both = np.concatenate([images.embeddings[places[kept]], titles.embeddings[kept]], axis=1) / np.sqrt(2.0)
    ids = [titles.ids[place] for place in kept]
    _write(run, JOINED, split, ids, both.astype(np.float32), checkpoint, inputs, {"split": split})


def _write(
    run: Path,
    space: str,
    split: str,
    ids: list[str],
    embeddings: np.ndarray,
    checkpoint: Checkpoint,
    inputs: dict[str, str],
    settings: dict[str, str],
) -> None:
    with write_embedding_set(
        run / "embeddings" / space / split,
        ids,
        dim=embeddings.shape[1],
        class_ids=[],
        keep_logits=False,
        views=[space],
        weights_digest=checkpoint.weights_digest,
        inputs=inputs,
        settings=settings,
        modality=space,
        tower=space,
    ) as writer:
        writer.write(np.arange(len(ids)), embeddings, _NO_LOGITS)
