"""Answers: what was said to queries, as far as a metric of classification looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.metrics.classification import compute_label_ranks

_LEAST = 2.0**-25  # below it a probability counts as this in the log-loss


@dataclass(frozen=True)
class Answers:
    """What was answered to N queries.

    ``labels``: (N,) true class positions, -1 for a class that nobody could name; ``ranks``: (N,) how many classes rank
    before the true one, C where nobody could name it; ``best``: (N,) the class that ranks first; ``confidence``: (N,)
    its probability; ``log_loss``: (N,) nats.
    """

    labels: np.ndarray
    ranks: np.ndarray
    best: np.ndarray
    confidence: np.ndarray
    log_loss: np.ndarray

    def take(self, rows: np.ndarray) -> Answers:
        """Those to some queries."""
        return Answers(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def summarise(probabilities: np.ndarray, labels: np.ndarray) -> Answers:
    """Answers by probabilities (N, C) to queries of class positions (N,)."""
    rows = np.arange(len(labels))
    best = probabilities.argmax(axis=1)
    given = np.where(labels >= 0, probabilities[rows, np.maximum(labels, 0)], 0.0).astype(np.float64)
    return Answers(
        labels,
        compute_label_ranks(probabilities, np.arange(probabilities.shape[1]), labels),
        best,
        probabilities[rows, best].astype(np.float64),
        -np.log(np.clip(given, _LEAST, 1.0)),
    )


def summarise_logits(logits: np.ndarray, labels: np.ndarray) -> Answers:
    """Answers by logits (N, C), ranked before their softmax, which rounds what lies far behind to one zero."""
    rows = np.arange(len(labels))
    ranks = compute_label_ranks(logits, np.arange(logits.shape[1]), labels)
    best = logits.argmax(axis=1)
    shifted = logits.astype(np.float64) - logits[rows, best].astype(np.float64)[:, None]
    totals = np.exp(shifted).sum(axis=1)
    given = np.where(labels >= 0, np.exp(shifted[rows, np.maximum(labels, 0)]) / totals, 0.0)
    return Answers(labels, ranks, best, 1 / totals, -np.log(np.clip(given, _LEAST, 1.0)))


def join(parts: Sequence[Answers]) -> Answers:
    """Answers to some queries after those to others."""
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in Answers.__dataclass_fields__))


NO_ANSWERS = Answers(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.int64, np.float64, np.float64)))
