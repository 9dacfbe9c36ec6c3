"""Renew: a catalogue that has grown is carried over to a new model, once both have answered the same questions."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.growing import match_products
from productrec.assembly.run_indexes import Embedder, list_indexes, load_embedder, name_views
from productrec.console import say, show_progress
from productrec.errors import ArtifactError, describe_offenders
from productrec.locking import hold_lock
from productrec.recipe import Recipe
from productrec.retrieval.agreement import Agreement, compare_catalogues
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.segments import GrownRows, get_grown_folder, list_changes

_PIECE = 512


@dataclass(frozen=True)
class Renewed:
    """An index that was carried over: how many grown photos and removals, and how both models answered."""

    index: Path
    photos: int
    removed: int
    agreement: Agreement


def run_renew(run: Path, new_run: Path, recipe: Recipe, *, tolerance: float = 0.02) -> list[Renewed]:
    """Embed what a run's catalogue has grown by with another run's network, and let that run answer for it.

    The gallery of the new run's own table is its base. Photos that were grown are embedded again from their files,
    classes that were removed stay removed. Before the switch both models find the nearest other image of a sample of
    the images that both hold; the switch, one rename an index, is made where the new one loses no more than
    ``tolerance``. The old run stays as it is.

    Args:
        run: run folder whose catalogue has grown.
        new_run: run folder of the new model, with an index.
        recipe: of the new run.
        tolerance: share of right answers that the new model may lose.

    Returns:
        What was carried over, for each index that both runs have.

    Raises:
        ArtifactError: the runs share no preset of views, the new one has grown already, files of grown photos are gone,
            or the new model answers worse.
    """
    names = {folder.name for folder in list_indexes(run)}
    shared = [folder for folder in list_indexes(new_run) if folder.name in names]
    if not shared:
        raise ArtifactError(f"{new_run}: must have an index of views that {run} has one of. Predict with both first.")
    embedder = load_embedder(new_run, recipe)
    renewed = []
    busy = f"{new_run}: another process is renewing its index. Wait for it, and run the command again."
    with hold_lock(new_run / "index" / ".renew.lock", busy):
        try:
            for folder in shared:
                _check_unchanged(folder)
                renewed.append(_stage(run / "index" / folder.name, folder, embedder))
            for one in renewed:
                _check_agreement(one, tolerance)
            for folder in shared:
                _switch(folder)
        finally:
            for folder in shared:
                shutil.rmtree(_get_staging(folder), ignore_errors=True)
    return renewed


def report(renewed: list[Renewed]) -> None:
    """Say what was carried over, and how both models answered."""
    for one in renewed:
        say(
            f"index {one.index}: {one.photos:,} grown photos embedded again, {one.removed:,} classes removed; "
            f"{one.agreement.describe()}; it answers for the catalogue now"
        )


def _get_staging(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.renewing")


def _stage(old_folder: Path, folder: Path, embedder: Embedder) -> Renewed:
    """Write the changes beside their place, and let both models answer."""
    staging = _get_staging(folder)
    shutil.rmtree(staging, ignore_errors=True)
    old, new = Catalogue(old_folder), Catalogue(folder, grown=staging)
    grown = old.get_grown_rows()
    gone = [path for path in grown.paths if not os.path.isfile(path)]
    if gone:
        raise ArtifactError(
            f"{old_folder}: the files of grown photos must be where they were; {describe_offenders(gone)} are not. Put "
            "them back, or take their classes out with `productrec index remove`."
        )
    keys = match_products(grown.keys, embedder.checkpoint)
    photos = 0
    with show_progress(f"embedding again {folder.name}", len(grown.ids)) as bar:
        for start in range(0, len(grown.ids), _PIECE):
            part = range(start, min(start + _PIECE, len(grown.ids)))
            rows, embeddings = list[int](), [np.empty((0, new.dim), np.float32)]
            for some, vectors in embedder.embed([grown.paths[row] for row in part], folder.name):
                rows += [part[row] for row in some]
                embeddings.append(vectors)
            added = GrownRows(
                [grown.ids[row] for row in rows],
                [keys[grown.keys[row]] for row in rows],
                {keys[key]: name for key, name in grown.names.items()},
                [grown.paths[row] for row in rows],
                np.concatenate(embeddings),
            )
            ids = new.grow(
                added,
                views=name_views(embedder.recipe, folder.name),
                side_px=embedder.side_px,
                weights_digest=embedder.checkpoint.weights_digest,
            )
            photos += len(ids)
            bar.advance(len(part))
    removed = [key for key in sorted(old.removed) if new.has_class(key)]
    if removed:
        new.remove(removed)
    return Renewed(folder, photos, len(removed), compare_catalogues(old, new))


def _check_unchanged(folder: Path) -> None:
    grown = get_grown_folder(folder)
    if any(list_changes(grown)):
        raise ArtifactError(
            f"{folder}: must have no changes of its own, which a renewal would drop; {grown} holds some. Remove it to "
            "go on without them."
        )


def _check_agreement(one: Renewed, tolerance: float) -> None:
    if one.agreement.new < one.agreement.old - tolerance:
        raise ArtifactError(
            f"{one.index}: not switched, the new model must be right no less than {tolerance:g} below the old one; "
            f"got {one.agreement.describe()}. Train it on, or allow more with --tolerance."
        )


def _switch(folder: Path) -> None:
    staging, grown = _get_staging(folder), get_grown_folder(folder)
    if not staging.exists():  # nothing was grown or removed
        return
    shutil.rmtree(grown, ignore_errors=True)  # a lock file alone
    os.rename(staging, grown)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
