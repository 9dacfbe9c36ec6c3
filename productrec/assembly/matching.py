"""The pools in which images are matched: labelled ones to fit by, as dense as the test images, and the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.embedding_requests import EmbeddingRequest
from productrec.data.table import ImageTable
from productrec.errors import ArtifactError, DataError, RecipeError
from productrec.recipe import Recipe
from productrec.recognition.choosing_matches import PLAIN, LabelledPool
from productrec.recognition.matching import Neighbourhood
from productrec.recognition.titled_matching import TitledNeighbourhood, find_titled
from productrec.retrieval.embedding_set import EmbeddingSet, load_embedding_set
from productrec.retrieval.engine import search_rows
from productrec.retrieval.reranking.declared import Expansion


@dataclass(frozen=True)
class Embedded:
    """Images of some splits as all runs together see them: ``ids`` (N,), ``embeddings`` (N, D) float32, unit rows."""

    ids: list[str]
    embeddings: np.ndarray
    inputs: dict[str, str]


def list_match_requests(recipe: Recipe, table: ImageTable) -> list[EmbeddingRequest]:
    """What matching embeds: validation and test images, and the gallery's to be mistaken for them, by one view."""
    splits = dict.fromkeys(("val", "test", *recipe.predict.gallery_splits))
    return [EmbeddingRequest(split, recipe.predict.tta, False) for split in splits if len(table.select([split]))]


def list_expansions(recipe: Recipe) -> dict[str, Expansion]:
    """The ways to change embeddings that the recipe has tried, by how they are told.

    Raises:
        RecipeError: a re-ranking changes no embeddings, or needs labels, which test images have not.
    """
    wrong = [
        method.get_name()
        for method in recipe.predict.reranking
        if not isinstance(method, Expansion) or method.needs_labels or getattr(method, "same_class", False)
    ]
    if wrong:
        raise RecipeError(
            "predict.reranking: must name methods that change embeddings and need no labels where images are matched; "
            f"got {', '.join(wrong)}. neighbourhood_blending, database_augmentation and whitening do."
        )
    return {method.tell(): method for method in recipe.predict.reranking if isinstance(method, Expansion)}


def load_embedded(
    runs: Sequence[Path], table: ImageTable, splits: Sequence[str], views: str, weights: Sequence[float]
) -> Embedded:
    """Embedding sets of some splits, one under the other; of several runs side by side, so that similarities average.

    Raises:
        ArtifactError: a set is missing or of another state of the table, or runs do not see the same images.
    """
    ids: list[str] = []
    parts: list[np.ndarray] = []
    inputs = {"table": table.fingerprint}
    shares = np.sqrt(np.asarray(weights, dtype=np.float64) / sum(weights)).astype(np.float32)
    for split in splits:
        sets = [load_embedding_set(run / "embeddings" / views / split) for run in runs]
        _check_same(sets, runs, split)
        ids += sets[0].ids
        columns = [np.asarray(seen.embeddings) * share for seen, share in zip(sets, shares, strict=True)]
        parts.append(columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1))
        inputs |= {f"{run} {split}": seen.fingerprint for run, seen in zip(runs, sets, strict=True)}
    embeddings = np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)
    return Embedded(ids, embeddings, inputs)


def build_labelled_pool(
    validation: Embedded,
    others: Embedded | None,
    labels: Mapping[str, int],
    expansions: Mapping[str, Expansion],
    *,
    pool_images: int,
    most: int,
    seed: int,
    titles: Mapping[str, str | None] | None = None,
) -> LabelledPool:
    """Validation images among as many others as make the pool as large as that of the test images.

    How many images are as near to one as its matches grows with the number of images there are. So training images are
    drawn in, to be mistaken; where all of them are too few (or the validation images too many already), a mistake
    counts as often as such an image is in the larger pool.

    Args:
        validation: images, of which those with a label are judged.
        others: training images; None for none.
        labels: class by image id.
        expansions: ways to change embeddings, by name.
        pool_images: how many images the test pool holds.
        most: of `MatchRule`.
        seed: decides which others are drawn.
        titles: by image id; None where they have no part in it.

    Raises:
        DataError: no validation image has a label.
    """
    known = np.array([name in labels for name in validation.ids], dtype=bool)
    if not known.any():
        raise DataError(
            "matching: validation images must have labels to fit the threshold by; got none. Hold whole classes out "
            "with data.hold_out=classes, or name a threshold with match.threshold."
        )
    ids = [name for name, is_known in zip(validation.ids, known, strict=True) if is_known]
    embeddings = validation.embeddings[known]
    judged = len(ids)
    if others is not None and pool_images > judged:
        own = {labels[name] for name in ids}
        usable = np.array([row for row, name in enumerate(others.ids) if name in labels], dtype=np.int64)
        # Other images of a judged class belong to its groups, so that all of them come along, drawn or not.
        is_own = np.array([labels[others.ids[row]] in own for row in usable], dtype=bool)
        rest = usable[~is_own]
        wanted = max(0, pool_images - judged - int(is_own.sum()))
        drawn = np.random.default_rng(seed).permutation(rest)[:wanted]
        rows = np.sort(np.concatenate([usable[is_own], drawn]))
        ids += [others.ids[row] for row in rows]
        embeddings = np.concatenate([embeddings, others.embeddings[rows]])
    near, titled = find_neighbourhoods(
        embeddings, expansions, most=most, titles=None if titles is None else [titles.get(name) for name in ids]
    )
    return LabelledPool(
        near=near,
        titled=titled,
        labels=np.array([labels[name] for name in ids], dtype=np.int64),
        is_judged=np.arange(len(ids)) < judged,
        weight=(pool_images - 1) / (len(ids) - 1) if len(ids) > 1 and pool_images > 1 else 1.0,
    )


def find_neighbourhoods(
    embeddings: np.ndarray,
    expansions: Mapping[str, Expansion],
    *,
    most: int,
    titles: Sequence[str | None] | None = None,
) -> tuple[dict[str, Neighbourhood], dict[str, TitledNeighbourhood]]:
    """The ``most - 1`` nearest others of each image (N, D), by its embeddings as they are and by each method's.

    And, where ``titles`` (N,) are given, the candidates by image and title.
    """
    seen = {PLAIN: embeddings}
    seen |= {name: method.prepare(embeddings, None).gallery for name, method in expansions.items()}
    near = {name: search_others(rows, most) for name, rows in seen.items()}
    titled = {}
    for name, rows in seen.items():
        found = None if titles is None else find_titled(rows, titles, *near[name])
        if found is not None:
            titled[name] = found
    return near, titled


def search_others(embeddings: np.ndarray, most: int) -> Neighbourhood:
    """The ``most - 1`` nearest others of each image (N, D), or all there are; exact."""
    return Neighbourhood(*search_rows(embeddings, embeddings, most - 1, own_rows=np.arange(len(embeddings))))


def _check_same(sets: Sequence[EmbeddingSet], runs: Sequence[Path], split: str) -> None:
    for seen, run in zip(sets, runs, strict=True):
        if seen.ids != sets[0].ids:
            raise ArtifactError(
                f"matching: {split} images must be the same for all runs; those of {run} differ from those of "
                f"{runs[0]}. Predict with runs of one image table."
            )
