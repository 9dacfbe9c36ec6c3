"""What a report asks of a run beyond its answers: neighbours of a split, doubted labels, and shares of similarities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from productrec.assembly.evidence import NO_LABEL, get_labels, load_evidence, load_gallery
from productrec.assembly.network import load_network
from productrec.class_order import ClassOrder
from productrec.data.table import ImageTable
from productrec.data.views import resize_square
from productrec.errors import DataError
from productrec.models.similarity_shares import compute_similarity_shares
from productrec.recipe import Recipe
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.suspects import JUDGE, judge_labels
from productrec.reporting.mistakes import SplitNeighbours
from productrec.reporting.pictures import Pictures
from productrec.retrieval.neighbours import load_neighbours
from productrec.training.run.checkpoint import load_checkpoint

_BLOCK_ROWS = 4096


def load_split_neighbours(run: Path, recipe: Recipe, views: str, split: str) -> SplitNeighbours:
    """The neighbours of a split's images in the run's gallery.

    Raises:
        ArtifactError: they or the gallery's embeddings are not there, or damaged.
    """
    found = load_neighbours(run / "neighbours" / views / split)
    gallery = load_gallery(run, recipe, views)
    return SplitNeighbours(found.ids, gallery.ids, found.rows, found.labels, found.similarities)


def find_suspects(run: Path, recipe: Recipe, table: ImageTable, views: str, split: str) -> list[dict[str, Any]]:
    """Findings of the images of a split that the run was not trained on and whose label it does not believe.

    Raises:
        ArtifactError: the run's sets or its classifier are not there, or damaged.
    """
    saved = load_classifier(run / "classifier" / views)
    trained = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    class_ids = sorted(trained.match_classes(table))
    known = load_evidence(run, table, views, split, class_ids, saved.prototypes, saved.categories)
    if known is None:
        return []
    labels = get_labels(table, known.ids)
    positions = np.where(labels == NO_LABEL, -1, ClassOrder(class_ids).positions_of(labels))
    rows = np.flatnonzero(positions >= 0)
    found = []
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        judged = judge_labels(known.take(block), positions[block], JUDGE)
        for number in np.flatnonzero(judged.doubt > 0.5).tolist():
            row, doubt = int(block[number]), float(judged.doubt[number])
            detail = f"{judged.agreement[number]:.0%} of the vote, head's margin {judged.margin[number]:+.2f}, {split}"
            finding = {"image_id": known.ids[row], "kind": "wrong_label", "label": int(labels[row]), "detail": detail}
            finding |= {"new_label": int(class_ids[judged.suggested[number]]), "score": round(doubt, 4)}
            found.append(finding | {"weight": round(1.0 - doubt, 3)})
    return sorted(found, key=lambda finding: -float(finding["score"]))


def compute_share_maps(
    run: Path, recipe: Recipe, pairs: Sequence[tuple[str, str]], pictures: Pictures
) -> dict[tuple[str, str], np.ndarray]:
    """Shares (H, W) of the cells of the first image of each pair in its similarity to the second, by the plain view.

    Pairs of which an image cannot be read are left out.

    Args:
        run: whose network looks.
        recipe: which checkpoint, and the side of the network's squares.
        pairs: ids of two images.
        pictures: of the images.

    Raises:
        ArtifactError: the checkpoint is not there, or damaged.
    """
    network = load_network(load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint))
    squares: dict[str, np.ndarray] = {}
    for image_id in dict.fromkeys(one for pair in pairs for one in pair):
        try:
            squares[image_id] = resize_square(pictures.decode(image_id), recipe.train.side_px)
        except DataError:
            continue
    readable = [pair for pair in dict.fromkeys(pairs) if pair[0] in squares and pair[1] in squares]
    number = {image_id: place for place, image_id in enumerate(squares)}
    shares = compute_similarity_shares(
        network, list(squares.values()), [(number[one], number[other]) for one, other in readable]
    )
    return dict(zip(readable, shares, strict=True))


def tell_shares(recipe: Recipe, views: str) -> list[str]:
    """What a map of shares means for a recipe's network, and what of it is approximate."""
    told = [
        "On a map each cell is coloured by its share in the inner product of two embeddings: orange adds to the "
        "similarity, blue takes away; the shares sum to the number below it."
    ]
    if recipe.model.pooling == "gem":
        told.append(
            "The network pools by a generalised mean, in which cells do not add up: a share is the first order of what "
            "a cell brings, so that a map is approximate."
        )
    else:
        told.append("The network pools by the mean, so that a share is exactly what its cell brings.")
    if recipe.model.neck == "batch_norm":
        told.append("What the neck's batch norm adds belongs to no cell and is spread evenly.")
    if views != "plain":
        told.append(f"Maps are of the plain view; the similarities of neighbours are of the views {views}.")
    return told
