"""Whitening: directions in which the whole gallery varies count less, so that what sets products apart counts more."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.reranking.expanded import Expanded
from productrec.retrieval.reranking.first_search import FirstSearch
from productrec.settings.fields import NonNegative, Positive, setting

_ROWS_AT_A_TIME = 65536
_SHORTEST = 1e-6  # a projection that is shorter has no direction


class Whitening(Expansion):
    r"""PCA whitening (Jegou and Chum, ECCV 2012, section 3), learned from the gallery and from no label.

    With mu the mean of the gallery's rows and (lambda_i, u_i) the eigenvalues, descending, and eigenvectors of their
    covariance (divided by M), embeddings of queries and gallery alike become

    .. math:: x' = normalise\Big(\Big[\frac{u_i^\top (x - \mu)}{\sqrt{\lambda_i + ridge}}\Big]_{i = 1..dimensions}\Big)

    Components without variance are left out. A gallery that does not vary at all (one row, or copies of one) is left
    as it is. What lies where the gallery does not vary has no direction: it becomes zeros, similar to nothing.
    """

    formula = "x' = normalise(diag(lambda + ridge)^-1/2 U' (x - mean)), lambda and U of the gallery's covariance"
    source = "Jegou, Chum, ECCV 2012, Negative evidences and co-occurences in image retrieval"

    dimensions: Positive | None = setting(None, "components that are kept, the largest first; none: all with variance")
    ridge: NonNegative = setting(1e-3, "added to each component's variance, so that small ones are not blown up")

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> Expanded:
        """See `Expansion.prepare`."""
        whitener = fit_whitener(gallery, dimensions=self.dimensions, ridge=self.ridge)
        return Expanded(whiten(gallery, whitener), whitener)

    def expand_queries(self, first: FirstSearch, prepared: Expanded) -> np.ndarray:
        """See `Expansion.expand_queries`."""
        return whiten(first.queries, prepared.how)


class Whitener(NamedTuple):
    """``mean`` (D,), ``components`` (P, D) orthonormal, ``scales`` (P,), all float64; no scales: nothing changes."""

    mean: np.ndarray
    components: np.ndarray
    scales: np.ndarray


def fit_whitener(gallery: np.ndarray, *, dimensions: int | None, ridge: float) -> Whitener:
    """Mean, components and their scales 1 / sqrt(lambda + ridge) of a gallery (M, D); sums are made in float64."""
    count, width = gallery.shape
    mean = np.mean(gallery, axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for start in range(0, count, _ROWS_AT_A_TIME):
        away = gallery[start : start + _ROWS_AT_A_TIME] - mean
        covariance += away.T @ away
    values, vectors = np.linalg.eigh(covariance / count)
    values, vectors = values[::-1], vectors[:, ::-1]
    # Rows of float32 are told apart to about 1e-7, so that a variance below its square is none.
    varies = values > max(1e-14, values[0] * width * np.finfo(np.float64).eps)
    kept = min(int(varies.sum()), width if dimensions is None else dimensions)
    scales = np.asarray(1 / np.sqrt(values[:kept] + ridge))
    return Whitener(np.asarray(mean), np.ascontiguousarray(vectors[:, :kept].T), scales)


def whiten(embeddings: np.ndarray, whitener: Whitener) -> np.ndarray:
    """Embeddings (N, D) as (N, P) float32, unit rows, or zeros where nothing is left of one."""
    if not len(whitener.scales):
        return embeddings
    whitened = np.empty((len(embeddings), len(whitener.scales)), dtype=np.float32)
    for start in range(0, len(embeddings), _ROWS_AT_A_TIME):
        block = slice(start, start + _ROWS_AT_A_TIME)
        seen = (embeddings[block] - whitener.mean) @ whitener.components.T
        seen[np.linalg.norm(seen, axis=1) < _SHORTEST] = 0.0
        seen *= whitener.scales
        whitened[block] = seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-300)
    return whitened
