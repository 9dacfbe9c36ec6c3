"""Unknown products: which score tells a known class from none of them, and from which value on it is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from productrec.recognition.classifier import Classifier, Evidence, compute_parts

_PARTS = 5
_TOLD_FROM = 3  # false accepts
_LEAST_UNKNOWN = 30
_HIDDEN = 30.0  # by how much the logit of a hidden class is below the lowest of the others


def score_confidence(evidence: Evidence, fused: np.ndarray) -> np.ndarray:
    """The fused probability of the best class."""
    return np.asarray(fused.max(axis=1), dtype=np.float64)


def score_similarity(evidence: Evidence, fused: np.ndarray) -> np.ndarray:
    """The similarity of the nearest neighbour, of whatever class."""
    known = np.where(evidence.classes >= 0, evidence.similarities, -1.0)
    return np.asarray(known.max(axis=1), dtype=np.float64)


def score_agreement(evidence: Evidence, fused: np.ndarray) -> np.ndarray:
    """The similarity of the nearest neighbour of the best class; -1 where none of the neighbours is of it."""
    own = evidence.classes == fused.argmax(axis=1)[:, None]
    return np.asarray(np.where(own, evidence.similarities, -1.0).max(axis=1), dtype=np.float64)


def score_both(evidence: Evidence, fused: np.ndarray) -> np.ndarray:
    """Confidence times agreement, where that is above 0."""
    both: np.ndarray = score_confidence(evidence, fused) * np.clip(score_agreement(evidence, fused), 0.0, None)
    return both


SCORES: dict[str, Callable[[Evidence, np.ndarray], np.ndarray]] = {
    "confidence": score_confidence,
    "similarity": score_similarity,
    "agreement": score_agreement,
    "confidence and agreement": score_both,
}


@dataclass(frozen=True)
class Threshold:
    """From which value of a score on a class is believed.

    ``score``: of `SCORES`; ``value``: the least that is believed; ``true_accepts``: share of known queries that are
    believed and given the right class; ``false_accepts``: share of unknown queries that are believed; ``known`` and
    ``unknown``: how many queries that was measured on.
    """

    score: str
    value: float
    true_accepts: float
    false_accepts: float
    known: int
    unknown: int

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def is_measurable(unknown: int, false_accepts: float) -> bool:
    """Whether a share of false accepts can be told from so many unknown queries: at least three of them are it."""
    return unknown * false_accepts >= _TOLD_FROM


def hide_classes(evidence: Evidence, hidden: np.ndarray) -> Evidence:
    """What would be known had some classes never been there: without their neighbours, prototypes and logits.

    The network has learned from their images all the same, so that what it says of them is a little better than of
    images of products that it never saw.

    Args:
        evidence: of Q queries.
        hidden: (C,) bool, not all of them.
    """
    logits = evidence.logits.astype(np.float32, copy=True)
    logits[:, hidden] = logits[:, ~hidden].min(axis=1, keepdims=True) - _HIDDEN
    kept = ~np.append(hidden, False)[evidence.classes] & (evidence.classes >= 0)
    order = np.argsort(~kept, axis=1, kind="stable")  # those that stay come first, as near as before
    classes = np.take_along_axis(np.where(kept, evidence.classes, -1), order, axis=1)
    similarities = np.take_along_axis(np.where(kept, evidence.similarities, -1.0), order, axis=1)
    prototypes = evidence.prototypes
    if prototypes is not None:
        prototypes = np.where(hidden, np.float32(-1.0), prototypes)
    return replace(
        evidence, logits=logits, classes=classes, similarities=similarities.astype(np.float32), prototypes=prototypes
    )


def fit_threshold(
    evidence: Evidence, labels: np.ndarray, classifier: Classifier, *, false_accepts: float = 0.01, seed: int = 0
) -> Threshold | None:
    """The score and its least value that believe the most known queries, and of the unknown no more than a share.

    The classes are parted in five by chance; each fifth is hidden in turn (`hide_classes`), its queries are unknown
    then and all others known.

    Args:
        evidence: of Q queries that the network was not trained on.
        labels: (Q,) class positions; -1 for a query that is of none of the classes, unknown from the start.
        classifier: that answers.
        false_accepts: share of unknown queries that may be believed; the least that can be told where they are few.
        seed: decides how the classes are parted.

    Returns:
        None where the queries are of fewer than two classes, or fewer than 30 are unknown.
    """
    seen = list(_answer_in_turn(evidence, labels, classifier, seed))
    if not seen:
        return None
    scores = {name: np.concatenate([one[0][name] for one in seen]) for name in SCORES}
    is_unknown = np.concatenate([one[1] for one in seen])
    is_right = np.concatenate([one[2] for one in seen])
    unknown, known = int(is_unknown.sum()), int((~is_unknown).sum())
    if not known or unknown < _LEAST_UNKNOWN:
        return None
    if not is_measurable(unknown, false_accepts):
        false_accepts = _TOLD_FROM / unknown
    found = []
    for name, values in scores.items():
        least = _find_least(values[is_unknown], false_accepts)
        believed = values >= least
        found.append(
            Threshold(
                name,
                float(least),
                float((believed & is_right)[~is_unknown].mean()),
                float(believed[is_unknown].mean()),
                known,
                unknown,
            )
        )
    return max(found, key=lambda one: one.true_accepts)


def believe(evidence: Evidence, fused: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Whether each answer (Q,) of a classifier is believed to be of a known class."""
    believed: np.ndarray = SCORES[threshold.score](evidence, fused) >= threshold.value
    return believed


def compute_open_set_curve(
    known: np.ndarray, is_right: np.ndarray, unknown: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True accepts against false accepts, over every threshold.

    Args:
        known: (N,) scores of queries of known classes.
        is_right: (N,) whether their best class is right.
        unknown: (M,) scores of queries of no known class.

    Returns:
        Thresholds (T,) descending, the shares of known queries that are believed and right, and of unknown queries
        that are believed, from each on: the detection and identification rate of Phillips et al. 2011.
    """
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    right = np.sort(known[is_right])
    others = np.sort(unknown)
    accepted = (len(right) - np.searchsorted(right, thresholds)) / max(1, len(known))
    false = (len(others) - np.searchsorted(others, thresholds)) / max(1, len(others))
    return thresholds, accepted, false


def _find_least(unknown: np.ndarray, false_accepts: float) -> float:
    """The least score of which no more than a share of the unknown have as much."""
    allowed = int(false_accepts * len(unknown))
    highest = np.sort(unknown)[::-1][allowed]  # the first that must not be believed
    return float(np.nextafter(highest, np.inf))


def _answer_in_turn(
    evidence: Evidence, labels: np.ndarray, classifier: Classifier, seed: int
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    """Scores by name, which queries are unknown, and which answers right, with each part of the classes hidden."""
    class_count = evidence.logits.shape[1]
    present = np.unique(labels[labels >= 0])
    if len(present) < 2:
        return
    parts = np.array_split(np.random.default_rng(seed).permutation(present), min(_PARTS, len(present)))
    for part in parts:
        hidden = np.zeros(class_count, dtype=bool)
        hidden[part] = True
        seen = hide_classes(evidence, hidden)
        fused = compute_parts(seen, classifier).fused
        is_unknown = (labels < 0) | np.append(hidden, True)[labels]
        yield {name: score(seen, fused) for name, score in SCORES.items()}, is_unknown, fused.argmax(axis=1) == labels
