"""Unknown products: which score tells a known class from none of them, and from which value on it is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from productrec.metrics.answers import Answers, join, summarise
from productrec.recognition.classifier import Classifier, Evidence, compute_parts, join_evidence

_PARTS = 5
TOLD_FROM = 3  # false accepts
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


def score_beyond(evidence: Evidence, fused: np.ndarray) -> np.ndarray:
    """By how much the nearest neighbour is nearer than the nearest distractor."""
    assert evidence.distractors is not None
    beyond: np.ndarray = score_similarity(evidence, fused) - evidence.distractors
    return beyond


def score_apart(evidence: Evidence, fused: np.ndarray) -> np.ndarray:
    """Confidence times the distance (1 less the similarity) of the nearest distractor."""
    assert evidence.distractors is not None
    apart: np.ndarray = score_confidence(evidence, fused) * (1.0 - evidence.distractors)
    return apart


Score = Callable[[Evidence, np.ndarray], np.ndarray]

SCORES: dict[str, Score] = {
    "confidence": score_confidence,
    "similarity": score_similarity,
    "agreement": score_agreement,
    "confidence and agreement": score_both,
}
# Beside these, where there are distractors.
DISTRACTOR_SCORES: dict[str, Score] = {
    "similarity beyond distractors": score_beyond,
    "confidence apart from distractors": score_apart,
}


def list_scores(evidence: Evidence) -> dict[str, Score]:
    """The scores that some evidence allows, by name."""
    return SCORES if evidence.distractors is None else SCORES | DISTRACTOR_SCORES


@dataclass(frozen=True)
class Threshold:
    """From which value of a score on a class is believed.

    ``score``: of `list_scores`; ``value``: the least that is believed; ``true_accepts``: share of known queries that
    are believed and given the right class; ``false_accepts``: share of unknown queries that are believed; ``known`` and
    ``unknown``: how many queries that was measured on; ``metric_value``: of the competition's metric there, where that
    has a label for an unknown product and the value was chosen for it; ``label``: that label.
    """

    score: str
    value: float
    true_accepts: float
    false_accepts: float
    known: int
    unknown: int
    metric_value: float | None = None
    label: str | None = None

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def is_measurable(unknown: int, false_accepts: float) -> bool:
    """Whether a share of false accepts can be told from so many unknown queries: at least three of them are it."""
    return unknown * false_accepts >= TOLD_FROM


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
        evidence,
        logits=logits,
        classes=classes,
        similarities=similarities.astype(np.float32),
        prototypes=prototypes,
        voters={name: voter.without(hidden) for name, voter in evidence.voters.items()},
    )


@dataclass(frozen=True)
class OpenSetAnswers:
    """Answers to N queries of which some are unknown, because their classes were hidden or are none of the known.

    ``scores``: (N,) by the names of `list_scores`; ``answers``: by the fused probabilities, to labels that are -1 where
    a query is unknown; ``queries``: (N,) which query each is, since one comes again in every turn.
    """

    scores: dict[str, np.ndarray]
    answers: Answers
    queries: np.ndarray

    @property
    def is_unknown(self) -> np.ndarray:
        """(N,) whether each query is of no known class."""
        return np.asarray(self.answers.labels < 0)

    @property
    def is_right(self) -> np.ndarray:
        """(N,) whether each is of a known class, and that ranks first."""
        return np.asarray((self.answers.ranks == 0) & ~self.is_unknown)

    def describe(self, score: str, least: float, metric_value: float | None = None) -> Threshold:
        """What a score comes to where it is believed from a value on."""
        believed, unknown = self.scores[score] >= least, self.is_unknown
        return Threshold(
            score,
            float(least),
            float((believed & self.is_right)[~unknown].mean()),
            float(believed[unknown].mean()),
            int((~unknown).sum()),
            int(unknown.sum()),
            metric_value,
        )


def answer_in_turn(
    evidence: Evidence, labels: np.ndarray, classifier: Classifier, *, seed: int = 0
) -> OpenSetAnswers | None:
    """Answers as they would be had some products never been seen.

    The classes are parted in five by chance; each fifth is hidden in turn (`hide_classes`), its queries are unknown
    then and all others known.

    Args:
        evidence: of Q queries that the network was not trained on.
        labels: (Q,) class positions; -1 for a query that is of none of the classes, unknown from the start.
        classifier: that answers.
        seed: decides how the classes are parted.

    Returns:
        None where the queries are of fewer than two classes, or fewer than 30 are unknown.
    """
    class_count = evidence.logits.shape[1]
    present = np.unique(labels[labels >= 0])
    if len(present) < 2:
        return None
    tried = list_scores(evidence)
    scores: dict[str, list[np.ndarray]] = {name: [] for name in tried}
    answers = []
    parts = np.array_split(np.random.default_rng(seed).permutation(present), min(_PARTS, len(present)))
    for part in parts:
        hidden = np.zeros(class_count, dtype=bool)
        hidden[part] = True
        seen = hide_classes(evidence, hidden)
        fused = compute_parts(seen, classifier).fused
        for name, score in tried.items():
            scores[name].append(score(seen, fused))
        answers.append(summarise(fused, np.where(np.append(hidden, True)[labels], -1, labels)))
    queries = np.tile(np.arange(len(labels)), len(parts))
    made = OpenSetAnswers({name: np.concatenate(some) for name, some in scores.items()}, join(answers), queries)
    unknown = int(made.is_unknown.sum())
    return made if _LEAST_UNKNOWN <= unknown < len(queries) else None


def answer_beside(
    evidence: Evidence, labels: np.ndarray, distractors: Evidence, classifier: Classifier
) -> OpenSetAnswers | None:
    """Answers to queries, and to distractors that ask as if they were queries of unknown products.

    Args:
        evidence: of Q queries that the network was not trained on.
        labels: (Q,) class positions; -1 for a query that is of none of the classes, unknown too.
        distractors: what is known of U distractors, each compared with the others.
        classifier: that answers.

    Returns:
        None where no query is of a known class, or fewer than 30 are unknown.
    """
    together = join_evidence([evidence, distractors])
    truth = np.append(labels, np.full(len(distractors.logits), -1, dtype=labels.dtype))
    fused = compute_parts(together, classifier).fused
    scores = {name: score(together, fused) for name, score in list_scores(together).items()}
    made = OpenSetAnswers(scores, summarise(fused, truth), np.arange(len(truth)))
    return made if _LEAST_UNKNOWN <= int(made.is_unknown.sum()) < len(truth) else None


def answer_open(
    evidence: Evidence, labels: np.ndarray, classifier: Classifier, distractors: Evidence | None = None
) -> OpenSetAnswers | None:
    """Answers to known queries and to unknown ones: to distractors, where there are enough, else as `answer_in_turn`.

    Who gives distractors says what unknown products look like.
    """
    seen = None if distractors is None else answer_beside(evidence, labels, distractors, classifier)
    return answer_in_turn(evidence, labels, classifier) if seen is None else seen


def fit_threshold(
    evidence: Evidence, labels: np.ndarray, classifier: Classifier, *, false_accepts: float = 0.01, seed: int = 0
) -> Threshold | None:
    """The score and its least value that believe the most known queries, and of the unknown no more than a share.

    Args:
        evidence, labels, classifier, seed: as for `answer_in_turn`.
        false_accepts: share of unknown queries that may be believed; the least that can be told where they are few.

    Returns:
        None where `answer_in_turn` gives none.
    """
    seen = answer_in_turn(evidence, labels, classifier, seed=seed)
    return None if seen is None else choose_threshold(seen, false_accepts=false_accepts)


def choose_threshold(seen: OpenSetAnswers, *, false_accepts: float = 0.01) -> Threshold:
    """The threshold of `fit_threshold`, of answers that are there."""
    unknown = int(seen.is_unknown.sum())
    if not is_measurable(unknown, false_accepts):
        false_accepts = TOLD_FROM / unknown
    found = [
        seen.describe(name, _find_least(values[seen.is_unknown], false_accepts)) for name, values in seen.scores.items()
    ]
    return max(found, key=lambda one: one.true_accepts)


def believe(evidence: Evidence, fused: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Whether each answer (Q,) of a classifier is believed to be of a known class."""
    believed: np.ndarray = list_scores(evidence)[threshold.score](evidence, fused) >= threshold.value
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
