"""Grow: products that come after the training join a run's indexes, by their photos alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.growing import list_references, match_products
from productrec.assembly.run_indexes import load_embedder, name_views, open_indexes
from productrec.console import say, show_progress
from productrec.errors import RecipeError
from productrec.recipe import Recipe
from productrec.retrieval.segments import GrownRows

PIECE = 512


@dataclass(frozen=True)
class Grown:
    """What an index has grown by: photos, those of them that were there already, and classes the run did not know."""

    index: str
    photos: int
    known: int
    new_classes: list[str]


def run_grow(
    run: Path,
    recipe: Recipe,
    source: Path,
    *,
    piece: int = PIECE,
    on_kept: Callable[[str, list[str]], None] = lambda index, ids: None,
) -> list[Grown]:
    """Embed photos of products and add them to every index of a run, or to the one at an address, a piece at a time.

    What a piece holds is on the disk for good once it is told. Photos that are there already, as after a run of this
    command that was killed, are passed over.

    Args:
        run: the run folder, with a checkpoint and an index.
        recipe: settings of prediction, with the address where the index lies in a server.
        source: folder with one sub-folder a product, or an image table.
        piece: photos that are kept together.
        on_kept: told the index and the image ids of each piece that is on the disk.

    Returns:
        What each index has grown by.

    Raises:
        ArtifactError: no checkpoint, no index, or an image id that is that of another image.
        DataError: no readable photo.
        RecipeError: ``piece`` is less than 1.
    """
    if piece < 1:
        raise RecipeError(f"piece: must be 1 or more; got {piece}.")
    indexes = open_indexes(run, recipe)
    references = list_references(source)
    embedder = load_embedder(run, recipe)
    keys = match_products([one.product for one in references], embedder.checkpoint)
    grown = []
    for where, views, catalogue in indexes:
        photos, known = 0, 0
        before = set(catalogue.keys)
        with show_progress(f"growing {views}", len(references)) as bar:
            for start in range(0, len(references), piece):
                part = references[start : start + piece]
                rows, embeddings = [], []
                for some, vectors in embedder.embed([one.path for one in part], views):
                    rows += some
                    embeddings.append(vectors)
                seen = [part[row] for row in rows]
                added = GrownRows(
                    [one.image_id for one in seen],
                    [keys[one.product] for one in seen],
                    {keys[one.product]: one.title for one in seen},
                    [one.path for one in seen],
                    np.concatenate([np.empty((0, catalogue.dim), np.float32), *embeddings]),
                )
                ids = catalogue.grow(
                    added,
                    views=name_views(recipe, views),
                    side_px=embedder.side_px,
                    weights_digest=embedder.checkpoint.weights_digest,
                )
                on_kept(where, ids)
                photos, known = photos + len(ids), known + len(seen) - len(ids)
                bar.advance(len(part))
        new = [key for key in catalogue.keys if key not in before and key not in embedder.checkpoint.class_keys]
        grown.append(Grown(where, photos, known, new))
    return grown


def report(grown: list[Grown]) -> None:
    """Say what each index has grown by."""
    for one in grown:
        there = f"; {one.known:,} were there already" if one.known else ""
        say(f"index {one.index}: {one.photos:,} photos more, {len(one.new_classes):,} new classes{there}")
