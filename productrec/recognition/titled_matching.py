"""Matches by image and title together: how likely two images are of one product by both similarities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from productrec.retrieval.title_neighbours import fit_titles, search_titles

_PULL = 1e-4  # towards slopes of 0, so that similarities that part all matches from all others give finite ones
_PAIRS_AT_A_TIME = 65_536
_LEAST = 10  # matches, and others, below which a scale is not fitted


class TitledNeighbourhood(NamedTuple):
    """The candidates of each of M images of a pool, found by image or by title.

    ``rows`` (M, A) int64, each other image once, -1 behind them; ``images`` (M, A): similarities of the images, and
    ``titles`` (M, A): of the titles, NaN where one of both has none.
    """

    rows: np.ndarray
    images: np.ndarray
    titles: np.ndarray

    def take(self, rows: slice | np.ndarray) -> TitledNeighbourhood:
        """That of some images."""
        return TitledNeighbourhood(self.rows[rows], self.images[rows], self.titles[rows])


@dataclass(frozen=True)
class PairScale:
    """p(one product) = 1 / (1 + exp(-z)) of a pair of images.

    With titles ``z = image * s + title * t + offset`` for similarities s of the images and t of the titles; without,
    ``z = alone * s + alone_offset``.
    """

    image: float = 1.0
    title: float = 1.0
    offset: float = 0.0
    alone: float = 1.0
    alone_offset: float = 0.0

    def rate(self, near: TitledNeighbourhood, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and probabilities (M, K), descending, of the ``most - 1`` likeliest candidates of each image.

        Of equally likely ones the first candidate comes first. Every image has at least K candidates.
        """
        has_title = ~np.isnan(near.titles)
        both = self.image * near.images + self.title * np.where(has_title, near.titles, 0.0) + self.offset
        likely = expit(np.where(has_title, both, self.alone * near.images + self.alone_offset))
        likely[near.rows < 0] = -1.0
        k = min(most - 1, int((near.rows >= 0).sum(axis=1).min(initial=most)))
        order = np.argsort(-likely, axis=1, kind="stable")[:, : max(0, k)]
        return np.take_along_axis(near.rows, order, axis=1), np.take_along_axis(likely, order, axis=1)


def find_titled(
    embeddings: np.ndarray, titles: Sequence[object], rows: np.ndarray, similarities: np.ndarray
) -> TitledNeighbourhood | None:
    """Candidates of each of M images: those that a search by image found, and as many by title.

    Args:
        embeddings: (M, D) unit rows.
        titles: (M,); None where an image has none.
        rows: (M, K) nearest others by image.
        similarities: (M, K) of these.

    Returns:
        None where no image has a title.
    """
    gallery = fit_titles(titles)
    if gallery is None:
        return None
    everyone, (count, depth) = np.arange(len(rows)), rows.shape
    found = search_titles(gallery, titles, depth, own_rows=everyone, asked=rows)
    assert found.asked is not None
    keys, own = (count * everyone[:, None] + some for some in (found.rows, rows))
    is_new = (found.similarities > 0) & ~np.isin(keys, own)
    owners, columns = np.nonzero(is_new)
    images = np.zeros(found.rows.shape, np.float32)
    for start in range(0, len(owners), _PAIRS_AT_A_TIME):
        some = slice(start, start + _PAIRS_AT_A_TIME)
        others = found.rows[owners[some], columns[some]]
        images[owners[some], columns[some]] = np.einsum("nd,nd->n", embeddings[owners[some]], embeddings[others])
    return TitledNeighbourhood(
        np.concatenate([rows, np.where(is_new, found.rows, -1)], axis=1),
        np.concatenate([similarities, images], axis=1),
        np.concatenate([found.asked, found.similarities], axis=1),
    )


def fit_pairs(near: TitledNeighbourhood, is_match: np.ndarray, *, weight: float = 1.0) -> PairScale | None:
    """The scale by logistic regression, neither similarity counting against a match.

    Pairs without a title are rated by what the image's similarity says of all pairs.

    Args:
        near: of Q images.
        is_match: (Q, A) bool, which candidates are of the image's class.
        weight: how often each candidate of another class counts.

    Returns:
        None where fewer than 10 pairs with titles match, or fewer than 10 do not.
    """
    is_there = near.rows >= 0
    has_title = is_there & ~np.isnan(near.titles)
    told = is_match[has_title]
    if min(int(told.sum()), int((~told).sum())) < _LEAST:
        return None
    image, title, offset = _fit(np.stack([near.images[has_title], near.titles[has_title]]), told, weight)
    alone, alone_offset = _fit(near.images[is_there][None], is_match[is_there], weight)
    return PairScale(image, title, offset, alone, alone_offset)


def _fit(similarities: np.ndarray, is_match: np.ndarray, weight: float) -> list[float]:
    """Slopes (not below 0) of similarities (V, N) and the offset of a logistic regression."""
    middle = similarities.mean(axis=1, dtype=np.float64, keepdims=True)
    spread = np.maximum(similarities.std(axis=1, dtype=np.float64, keepdims=True), 1e-6)
    places = (similarities - middle) / spread
    counts = np.where(is_match, 1.0, weight)
    counts /= counts.sum()

    def lose(ends: np.ndarray) -> tuple[float, np.ndarray]:
        values = ends[:-1] @ places + ends[-1]
        away = counts * (expit(values) - is_match)
        loss = float(counts @ (np.logaddexp(0.0, values) - is_match * values) + _PULL * (ends[:-1] ** 2).sum() / 2)
        return loss, np.append(places @ away + _PULL * ends[:-1], away.sum())

    bounds = [*[(0.0, None)] * len(places), (None, None)]
    found = minimize(lose, np.zeros(len(places) + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    slopes = found[:-1] / spread[:, 0]
    return [*slopes.tolist(), float(found[-1] - slopes @ middle[:, 0])]
