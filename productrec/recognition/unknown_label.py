"""Unknown products in a competition that has a label for them: where it stands in an answer, and from when on it leads.

An answer that is not believed begins with the label for unknown products, followed by the classes; one that is believed
begins with its best class, and the label stands second, before what is less probable still.
"""

from __future__ import annotations

import numpy as np

from productrec.metrics.answers import Answers
from productrec.metrics.competition import CompetitionMetric
from productrec.recognition.open_set import OpenSetAnswers, Threshold

_CANDIDATES = 60  # values of each score that are tried


def place_unknown(answers: Answers, believed: np.ndarray, class_count: int) -> Answers:
    """Answers with the label for unknown products among the classes, at position ``class_count``.

    Args:
        answers: to N queries by known classes, whose label is -1 where they are of none of these.
        believed: (N,) bool.
        class_count: C.
    """
    is_unknown = answers.labels < 0
    behind = answers.ranks + (~believed | (answers.ranks > 0))
    return Answers(
        np.where(is_unknown, class_count, answers.labels),
        np.where(is_unknown, np.where(believed, 1, 0), behind),
        np.where(believed, answers.best, class_count),
        np.where(believed, answers.confidence, 1 - answers.confidence),
        answers.log_loss,
    )


def choose_for_metric(
    seen: OpenSetAnswers, metric: CompetitionMetric, class_count: int, *, unknown_share: float | None = None
) -> Threshold:
    """The score and its least value by which a competition's metric is best, the label for unknown products included.

    Args:
        seen: answers, with some classes hidden in turn.
        metric: of the competition.
        class_count: C.
        unknown_share: of the competition's images, which is what the answers are weighed to; None: as they are, where
            about one in five is unknown.
    """
    unknown = seen.is_unknown
    weights = None
    if unknown_share is not None:
        weights = np.where(unknown, unknown_share / unknown.sum(), (1 - unknown_share) / (~unknown).sum())
        weights *= len(unknown)

    def judge(score: str, least: float) -> float:
        placed = place_unknown(seen.answers, seen.scores[score] >= least, class_count)
        return metric.measure(placed, weights)

    tried: list[tuple[float, int, str, float, float]] = []
    for score, values in seen.scores.items():
        for least in [*np.unique(np.quantile(values, np.linspace(0, 1, _CANDIDATES), method="higher")), np.inf]:
            value = judge(score, float(least))
            tried.append((metric.orient(value), -len(tried), score, float(least), value))
    _, _, score, least, value = max(tried)
    top = float(np.nextafter(seen.scores[score].max(), np.inf))
    return seen.describe(score, min(least, top), value)
