"""Title neighbours: the gallery rows whose titles are most like a query's, by TF-IDF of words and of characters.

The one user of scikit-learn's text features. What is found lies on disk as the neighbours of images do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from productrec.retrieval.neighbours import write_neighbours

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

METHOD = "TF-IDF of words and of 3 and 4 characters"  # told in artefacts, so that another one makes them anew
_WORDS = r"[^\s!-/:-@\[-`{-~]+"  # what white space and ASCII punctuation part, in every script
_CHARACTERS = (3, 4)
_CELLS_AT_A_TIME = 4_000_000  # similarities of a block of queries that are in memory at once


class TitleNeighbours(NamedTuple):
    """The nearest titles of Q queries.

    ``rows`` (Q, K) int64 of the gallery, of equally similar ones the lower row first; ``similarities`` (Q, K) float32,
    descending, from 0 to 1; ``asked`` (Q, A): similarities to the rows that were asked about, NaN where one of the two
    has no title; None where none were.
    """

    rows: np.ndarray
    similarities: np.ndarray
    asked: np.ndarray | None = None


def normalise_title(title: object) -> str:
    """A title as it is compared: lines joined, Unicode's NFC, case folded; empty where there is none."""
    if not isinstance(title, str):
        return ""
    composed = unicodedata.normalize("NFC", " ".join(title.split()))
    return unicodedata.normalize("NFC", composed.casefold())


def has_title(title: object) -> bool:
    """Whether anything is left of a title."""
    return bool(normalise_title(title))


@dataclass(frozen=True)
class TitleGallery:
    """Titles of a gallery of M rows, made comparable.

    ``rows``: (T,) those of the M that have a title, ascending; ``features`` (T, F): their sparse features.
    """

    rows: np.ndarray
    features: sparse.csr_matrix
    size: int
    words: TfidfVectorizer | None
    characters: TfidfVectorizer

    def compute_features(self, titles: Sequence[str]) -> sparse.csr_matrix:
        """Features (Q, F) of normalised titles: words and characters each of unit norm, times the root of a half."""
        parts = [vectorizer.transform(titles) for vectorizer in (self.words, self.characters) if vectorizer is not None]
        joined = sparse.hstack(parts, format="csr", dtype=np.float32)
        joined.data *= np.float32(np.sqrt(1 / len(parts)))
        return joined


def fit_titles(titles: Sequence[object]) -> TitleGallery | None:
    """Learn words, runs of 3 and 4 characters within words, and how rare each is, from a gallery's titles.

    Similarity is the mean of the cosines of both TF-IDF vectors (counts as 1 + log). Letters are kept as they are in
    every script; only here case is folded.

    Args:
        titles: (M,), several of one image on lines of their own; None, NaN or empty where there is none.

    Returns:
        None where no title is there.
    """
    known = [normalise_title(title) for title in titles]
    rows = np.array([row for row, title in enumerate(known) if title], dtype=np.int64)
    if not len(rows):
        return None
    own = [known[row] for row in rows]
    how: dict[str, Any] = {"lowercase": False, "sublinear_tf": True, "dtype": np.float32}
    # Here alone: whoever only reads neighbours does without it, an exported file on a small machine among them.
    from sklearn.feature_extraction.text import TfidfVectorizer

    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=_CHARACTERS, **how).fit(own)
    has_words = any(re.search(_WORDS, title) for title in own)
    words = TfidfVectorizer(token_pattern=_WORDS, **how).fit(own) if has_words else None
    empty = sparse.csr_matrix((0, 0), dtype=np.float32)
    found = TitleGallery(rows, empty, len(known), words, characters)
    return TitleGallery(rows, found.compute_features(own), len(known), words, characters)


def search_titles(
    gallery: TitleGallery,
    titles: Sequence[object],
    k: int,
    *,
    own_rows: np.ndarray | None = None,
    asked: np.ndarray | None = None,
) -> TitleNeighbours:
    """The ``k`` gallery rows of the most similar titles, or all that have one; in blocks, so that memory is bounded.

    A query without a title gets similarities of 0 and rows that say nothing.

    Args:
        gallery: of `fit_titles`.
        titles: (Q,) as there.
        k: rows for each query.
        own_rows: (Q,) each query's row in the gallery, which it never finds; -1 for none; None where none is in it.
        asked: (Q, A) gallery rows whose similarity is wanted too.
    """
    known = [normalise_title(title) for title in titles]
    is_known = np.array([bool(title) for title in known], dtype=bool)
    features = gallery.compute_features(known)
    count, width = len(known), len(gallery.rows)
    position = np.full(gallery.size, -1, dtype=np.int64)
    position[gallery.rows] = np.arange(width)
    own = None if own_rows is None else np.where(own_rows >= 0, position[own_rows], -1)
    k = max(0, min(k, width if own is None else width - 1))
    rows, similarities = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
    told = None if asked is None else np.full(asked.shape, np.nan, np.float32)
    turned = gallery.features.T.tocsr()
    for block in _list_blocks(count, width):
        dense = (features[block] @ turned).toarray()
        np.clip(dense, 0.0, 1.0, out=dense)
        if told is not None and asked is not None:
            places = position[asked[block]]
            there = (places >= 0) & is_known[block, None]
            owners = np.broadcast_to(np.arange(len(dense))[:, None], places.shape)
            told[block][there] = dense[owners[there], places[there]]
        if k:
            if own is not None:
                inside = np.flatnonzero(own[block] >= 0)
                dense[inside, own[block][inside]] = -1.0
            found = _take_largest(dense, k)
            similarities[block] = np.take_along_axis(dense, found, axis=1)
            rows[block] = gallery.rows[found]
    return TitleNeighbours(rows, similarities, told)


def _list_blocks(count: int, width: int) -> Iterator[slice]:
    size = max(1, _CELLS_AT_A_TIME // max(1, width))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _take_largest(similarities: np.ndarray, k: int) -> np.ndarray:
    """Columns (Q, k) of the largest of similarities (Q, T), descending; of equal ones the lower column first."""
    width = similarities.shape[1]
    least = np.partition(similarities, width - k, axis=1)[:, width - k]
    owners, columns = np.nonzero(similarities >= least[:, None])
    order = np.lexsort((columns, -similarities[owners, columns], owners))
    owners, columns = owners[order], columns[order]
    places = np.arange(len(owners)) - np.searchsorted(owners, owners)
    return columns[places < k].reshape(len(similarities), k)


def save_title_neighbours(
    folder: Path,
    *,
    gallery_ids: Sequence[str],
    gallery_titles: Sequence[object],
    gallery_labels: np.ndarray,
    ids: Sequence[str],
    titles: Sequence[object],
    k: int,
    inputs: dict[str, str],
    settings: dict[str, Any],
) -> None:
    """Search and write the neighbour set of those queries whose title has anything in common with one of the gallery.

    A query that is in the gallery itself never finds itself.
    """
    gallery = fit_titles(gallery_titles)
    row_of = {image_id: row for row, image_id in enumerate(gallery_ids)}
    own = np.array([row_of.get(image_id, -1) for image_id in ids], dtype=np.int64)
    own_rows = own if (own >= 0).any() else None
    rows, similarities = np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
    kept = np.empty(0, np.int64)
    if gallery is not None:
        found = search_titles(gallery, titles, k, own_rows=own_rows)
        kept = np.flatnonzero((found.similarities > 0).any(axis=1))
        rows, similarities = found.rows[kept], found.similarities[kept]
    write_neighbours(
        folder,
        ids=[ids[row] for row in kept.tolist()],
        rows=rows,
        similarities=similarities,
        labels=gallery_labels[rows],
        inputs=inputs,
        settings=settings,
    )
