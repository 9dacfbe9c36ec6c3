"""Further voters of a run, by titles or by another tower: each a neighbour set in ``RUN/neighbours/VOTER``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from productrec.artifacts import MANIFEST_NAME, compute_digest, is_fresh
from productrec.class_order import ClassOrder
from productrec.data.table import ImageTable
from productrec.recipe import Recipe
from productrec.recipe.predict import VOTERS
from productrec.recognition.voters import VoterEvidence, align_voter
from productrec.retrieval.neighbours import NEIGHBOURS_KIND, load_neighbours
from productrec.retrieval.title_neighbours import METHOD, has_title, save_title_neighbours

TITLES = "titles"


def list_voters(recipe: Recipe) -> tuple[str, ...]:
    """The voters that a recipe lets speak, where they are at hand, in the order in which they join a classifier."""
    return VOTERS if recipe.predict.titles == "auto" else ()


def get_voter_folder(run: Path, voter: str, split: str) -> Path:
    """Where a voter's neighbours of a split lie: those of its images that have any."""
    return run / "neighbours" / voter / split


def load_voters(
    run: Path, names: Sequence[str], split: str, ids: Sequence[str], class_ids: Sequence[int]
) -> tuple[dict[str, VoterEvidence], dict[str, str]]:
    """What further voters know of a split's images (N,), and the fingerprints of their neighbour sets.

    Args:
        run: the run folder.
        names: of `list_voters`; those without neighbours of the split are left out.
        split: of the table, or a fold.
        ids: (N,) of the images.
        class_ids: (C,) ascending.

    Raises:
        ArtifactError: a set is damaged.
    """
    order, voters, inputs = ClassOrder(list(class_ids)), {}, {}
    for name in names:
        folder = get_voter_folder(run, name, split)
        if not (folder / MANIFEST_NAME).exists():
            continue
        found = load_neighbours(folder)
        seen = align_voter(ids, found.ids, order.positions_of(found.labels), found.similarities)
        if seen.has.any():
            voters[name], inputs[name] = seen, found.fingerprint
    return voters, inputs


def get_titles(table: ImageTable, ids: Sequence[str]) -> list[str | None]:
    """Titles (N,) of images; None where there is none."""
    titles = dict(zip(table.images["image_id"], table.images["title"], strict=True))
    return [None if (title := titles[image_id]) is None or pd.isna(title) else str(title) for image_id in ids]


def keep_title_neighbours(
    run: Path,
    recipe: Recipe,
    table: ImageTable,
    split: str,
    ids: Sequence[str],
    gallery_ids: Sequence[str],
    gallery_labels: np.ndarray,
) -> None:
    """Write the neighbours by title of a split's images where they and the gallery have titles; else take them away.

    Args:
        run: the run folder.
        recipe: whether titles are asked, and number of neighbours.
        table: with the titles.
        split: under which they lie.
        ids: of the images.
        gallery_ids: (M,) as the gallery's embeddings are ordered.
        gallery_labels: (M,) class ids.
    """
    folder = get_voter_folder(run, TITLES, split)
    titles, known = get_titles(table, ids), get_titles(table, gallery_ids)
    is_asked = TITLES in list_voters(recipe)
    if not is_asked or not any(map(has_title, titles)) or not any(map(has_title, known)):
        if (folder / MANIFEST_NAME).exists():
            shutil.rmtree(folder)
        return
    gallery = [list(gallery_ids), known, np.asarray(gallery_labels).tolist()]
    inputs = {"titles": compute_digest([list(ids), titles]), "gallery": compute_digest(gallery)}
    settings = {"k": recipe.predict.neighbours, "similarity": METHOD}
    if not is_fresh(folder, kind=NEIGHBOURS_KIND, inputs=inputs, settings=settings):
        save_title_neighbours(
            folder,
            gallery_ids=gallery_ids,
            gallery_titles=known,
            gallery_labels=np.asarray(gallery_labels),
            ids=ids,
            titles=titles,
            k=recipe.predict.neighbours,
            inputs=inputs,
            settings=settings,
        )
