"""Disk use: bytes that a run's artefacts will take, by their arrays; names and manifests come on top, a few percent."""

from __future__ import annotations

from productrec.assembly.embedding_requests import add_plain, list_requests
from productrec.data.table import DISTRACTORS, ImageTable
from productrec.recipe import Recipe
from productrec.recognition.classifier import PARTS, RERANKED
from productrec.recognition.probabilities import count_probabilities_bytes
from productrec.retrieval.embedding_set import count_set_bytes
from productrec.retrieval.index import count_index_bytes
from productrec.retrieval.neighbours import count_neighbours_bytes


def count_embedding_bytes(recipe: Recipe, table: ImageTable, class_count: int) -> int:
    """Embedding sets of one run, those of the plain view among them."""
    logits: dict[tuple[str, str], bool] = {}
    for request in list_requests(recipe, table):
        for one in add_plain(request):
            key = (one.split, one.views)
            logits[key] = logits.get(key, False) or one.keep_logits
    dim = recipe.model.embedding_dim
    return sum(
        count_set_bytes(len(table.select([split])), dim, class_count if has_logits else None, recipe.predict.stored)
        for (split, _), has_logits in logits.items()
    )


def count_gallery_bytes(recipe: Recipe, table: ImageTable) -> int:
    """One index, which is also what a search holds in memory."""
    return count_index_bytes(len(table.select(recipe.predict.gallery_splits)), recipe.model.embedding_dim)


def count_search_bytes(recipe: Recipe, table: ImageTable) -> int:
    """Indexes of one run, and the neighbours that they give."""
    tta = recipe.predict.tta
    galleries = {"plain"} if tta == "plain" else {"plain", recipe.predict.gallery_tta}
    queries = len(table.select(["val", "test", DISTRACTORS]))
    k = min(recipe.predict.neighbours, len(table.select(recipe.predict.gallery_splits)))
    return len(galleries) * count_gallery_bytes(recipe, table) + len({"plain", tta}) * count_neighbours_bytes(
        queries, k
    )


def count_prediction_bytes(recipe: Recipe, table: ImageTable, class_count: int) -> int:
    """Class probabilities of one run, of images that cannot be read as well."""
    known = [part for part in PARTS if part != RERANKED or recipe.predict.reranking]
    parts = len(known) if recipe.predict.keep_parts else 1
    return len({"plain", recipe.predict.tta}) * parts * count_ensemble_bytes(table, class_count)


def count_ensemble_bytes(table: ImageTable, class_count: int) -> int:
    """Class probabilities of an ensemble."""
    return count_probabilities_bytes(len(table.select(["val", "test"], usable=False)), class_count)
