"""Rivals: the classes that any mean of several opinions could rank before the true one, so that weights are tried fast.

In a mean with weights from 0 a class ranks before the true one only where it does so in some opinion. Of 2,019 classes
a few are left for most queries, and what they come to is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.metrics.answers import Answers

_BLOCK_ROWS = 1024
_LEAST = 2.0**-25  # as in the log-loss of `metrics.answers`


@dataclass(frozen=True)
class Rivals:
    """Opinions (V arrays of (N, C)) about N queries, as far as the ranks of their true classes need them.

    ``labels``: (N,) class positions, -1 for a class that nobody could name; ``own``: (V, N) what each opinion gives to
    the true class; ``rows``, ``classes``: (E,) query and class of each rival, in the order of queries; ``values``:
    (V, E) what the opinions give to it.
    """

    labels: np.ndarray
    own: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    class_count: int

    def answer(self, weights: Sequence[float] | np.ndarray) -> Answers:
        """What the mean of the opinions with these weights (V,), not all 0, answers: ranks as of the whole mean."""
        shares = np.asarray(weights, dtype=np.float64)
        shares = (shares / shares.sum()).astype(np.float32)
        used = np.flatnonzero(shares)
        return self.tell(
            sum(shares[one] * self.own[one] for one in used),
            sum(shares[one] * self.values[one] for one in used),
        )

    def tell(self, own: np.ndarray, values: np.ndarray) -> Answers:
        """Answers where the true classes are given ``own`` (N,) and the rivals ``values`` (E,)."""
        count = len(self.labels)
        known = self.labels >= 0
        given = own[self.rows]
        before = (values > given) | ((values == given) & (self.classes < self.labels[self.rows]))
        ranks = np.bincount(self.rows, weights=before, minlength=count).astype(np.int64)
        ranks[~known] = self.class_count
        best, confidence = self.labels.copy(), np.where(known, own, -1.0).astype(np.float64)
        if before.any():
            top = np.full(count, -np.inf)
            np.maximum.at(top, self.rows[before], values[before])
            leads = before & (values == top[self.rows])
            first = np.unique(self.rows[leads], return_index=True)
            best[first[0]] = self.classes[np.flatnonzero(leads)[first[1]]]
            confidence[first[0]] = top[first[0]]
        log_loss = -np.log(np.clip(np.where(known, own, 0.0).astype(np.float64), _LEAST, 1.0))
        return Answers(self.labels, ranks, best, confidence, log_loss)


def find_rivals(parts: Sequence[np.ndarray], labels: np.ndarray) -> Rivals:
    """The rivals of each query's true class; all classes where nobody could name that.

    Args:
        parts: V arrays (N, C), memory maps welcome.
        labels: (N,) class positions, -1 for none of them.
    """
    count, class_count = parts[0].shape
    columns = np.arange(class_count)
    owns, rows, classes, values = [], [], [], []
    for start in range(0, count, _BLOCK_ROWS):
        blocks = [np.asarray(part[start : start + _BLOCK_ROWS], dtype=np.float32) for part in parts]
        truth = labels[start : start + _BLOCK_ROWS]
        known, place = truth >= 0, np.maximum(truth, 0)
        every = np.arange(len(truth))
        own = np.stack([np.where(known, block[every, place], 0.0) for block in blocks]).astype(np.float32)
        is_rival = np.repeat(~known[:, None], class_count, axis=1)
        for block, one in zip(blocks, own, strict=True):
            is_rival |= block >= one[:, None]
        is_rival &= (columns != place[:, None]) | ~known[:, None]
        some, chosen = np.nonzero(is_rival)
        owns.append(own)
        rows.append(some + start)
        classes.append(chosen)
        values.append(np.stack([block[some, chosen] for block in blocks]))
    return Rivals(
        np.asarray(labels, dtype=np.int64),
        np.concatenate(owns, axis=1),
        np.concatenate(rows),
        np.concatenate(classes),
        np.concatenate(values, axis=1),
        class_count,
    )
