"""Calibration of similarities: how probable it is that a product at some similarity is the one that is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from productrec.metrics.answers import Answers
from productrec.metrics.calibration import Reliability, compute_reliability
from productrec.recognition.classifier import Evidence
from productrec.recognition.weights import split_folds

_FOLDS = 5
_LEAST = 10  # products of the right class, and of wrong ones, below which nothing is told
_PULL = 1e-4  # towards a slope of 0, so that similarities that part all right from all wrong give a finite one


@dataclass(frozen=True)
class SimilarityScale:
    """p(same product | similarity) = 1 / (1 + exp(-(slope * similarity + offset)))."""

    slope: float
    offset: float

    def compute(self, similarities: np.ndarray) -> np.ndarray:
        """Probabilities, of the shape of the similarities."""
        return np.asarray(expit(self.slope * similarities + self.offset))


def fit_similarity(similarities: np.ndarray, is_same: np.ndarray) -> SimilarityScale:
    """Platt's scaling (Advances in Large Margin Classifiers, 2000): logistic regression, with his targets of counts.

    Of R right and W wrong ones the targets are (R + 1) / (R + 2) and 1 / (W + 2), so that few do not make it sure.

    Args:
        similarities: (N,).
        is_same: (N,) bool, at least one of each kind.
    """
    right = int(is_same.sum())
    wrong = len(is_same) - right
    targets = np.where(is_same, (right + 1) / (right + 2), 1 / (wrong + 2))
    middle, spread = float(similarities.mean()), max(float(similarities.std()), 1e-6)
    places = (np.asarray(similarities, dtype=np.float64) - middle) / spread

    def lose(ends: np.ndarray) -> tuple[float, np.ndarray]:
        values = ends[0] * places + ends[1]
        away = expit(values) - targets
        loss = float((np.logaddexp(0.0, values) - targets * values).mean() + _PULL * ends[0] ** 2 / 2)
        return loss, np.array([(away * places).mean() + _PULL * ends[0], away.mean()])

    slope, offset = minimize(lose, np.zeros(2), jac=True, method="L-BFGS-B").x
    return SimilarityScale(float(slope / spread), float(offset - slope * middle / spread))


@dataclass(frozen=True)
class Calibration:
    """How far a classifier's confidence may be believed, and what similarities are worth.

    ``answers``: calibration curve of its answers, each by what others told; ``similarity`` and ``products``: the scale
    of similarities, and the curve of the probabilities that it gives to products, each by what other queries told; None
    where there are too few.
    """

    answers: Reliability
    similarity: SimilarityScale | None = None
    products: Reliability | None = None

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "answers": self.answers.describe(),
            "similarity": None if self.similarity is None else asdict(self.similarity),
            "products": None if self.products is None else self.products.describe(),
        }


def calibrate(answers: Answers, evidence: Evidence, labels: np.ndarray, *, seed: int = 0) -> Calibration:
    """The calibration of a classifier's answers and of its neighbours' similarities.

    A product near to a query is judged by its nearest picture: the first of each class among the neighbours.

    Args:
        answers: to Q queries, each by what others told.
        evidence: of the same.
        labels: (Q,) class positions; -1 for a query of no known class.
        seed: decides how the queries are parted.
    """
    curve = compute_reliability(np.clip(answers.confidence, 0.0, 1.0), (answers.ranks == 0) & (answers.labels >= 0))
    rows, columns = np.nonzero(find_first_of_class(evidence.classes))
    similarities = evidence.similarities[rows, columns].astype(np.float64)
    is_same = evidence.classes[rows, columns] == labels[rows]
    folds = split_folds(len(labels), min(_FOLDS, len(labels)), seed=seed)[rows]
    parts = [(folds != fold, folds == fold) for fold in np.unique(folds)]
    kinds = [is_same, *(is_same[others] for others, _ in parts)]
    if len(parts) < 2 or any(min(kind.sum(), (~kind).sum()) < _LEAST for kind in kinds):
        return Calibration(curve)
    given = np.empty(len(rows))
    for others, own in parts:
        given[own] = fit_similarity(similarities[others], is_same[others]).compute(similarities[own])
    return Calibration(curve, fit_similarity(similarities, is_same), compute_reliability(given, is_same))


def find_first_of_class(classes: np.ndarray) -> np.ndarray:
    """(Q, K) bool: whether a neighbour is the nearest of its class, of classes (Q, K) with -1 for none."""
    order = np.argsort(classes, axis=1, kind="stable")
    ordered = np.take_along_axis(classes, order, axis=1)
    starts = np.ones(classes.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty(classes.shape, dtype=bool)
    np.put_along_axis(first, order, starts, axis=1)
    return first & (classes >= 0)


def read_similarity(fitted: Mapping[str, Any]) -> SimilarityScale | None:
    """The scale that a kept classifier was fitted with; None where it has none."""
    kept = (fitted.get("calibration") or {}).get("similarity")
    return None if kept is None else SimilarityScale(**kept)
