"""Choosing a re-ranking: the classifier is fitted anew on each method's lists, and the best stays where it gains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from productrec.metrics.answers import Answers
from productrec.metrics.competition import CompetitionMetric
from productrec.recognition.classifier import BLENDED, RERANKED, Evidence
from productrec.recognition.fitting import INSTEAD_FROM, KEPT_FROM, Fitted, Step, fit_classifier
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.reranked import KeptReranking
from productrec.recognition.scores import Scores, score_answers
from productrec.retrieval.reranking.declared import Reranking


@dataclass(frozen=True)
class Tried:
    """What came of the methods that were tried.

    ``steps``: one a method; ``kept``: that which stays, and its ``answers`` to the queries, each by what was fitted on
    others; None where none does.
    """

    steps: list[Step]
    kept: KeptReranking | None
    answers: Answers | None


def choose_reranking(
    fitted: Fitted,
    candidates: Iterable[tuple[Reranking, Evidence]],
    labels: np.ndarray,
    objective: Objective,
    *,
    k_grid: Sequence[int],
    power_grid: Sequence[float],
    parts: Sequence[str] = BLENDED,
    seed: int = 0,
    groups: Sequence[int] | None = None,
) -> Tried:
    """Fit a classifier on what each re-ranking makes of the neighbours, and keep the best one where it gains.

    Every method is fitted and judged as the classifier was that stands without it, on the same parts of the queries, so
    that answers are compared query by query. The best by the objective is kept where it gains in at least `KEPT_FROM`
    of the paired bootstraps; where several were tried, of which one gains by luck, in at least `INSTEAD_FROM`.

    Args:
        fitted: what stands without any.
        candidates: methods with the evidence of the same Q queries, re-ranked; taken one after another.
        labels: (Q,) class positions, -1 where the true class is not among the classes.
        objective: what shall be small.
        k_grid: of the fit that stands, and so are the others; see `fit_classifier`.
        power_grid: see there.
        parts: see there.
        seed: see there.
        groups: see there.
    """
    steps: list[Step] = []
    best: tuple[tuple[float, float], KeptReranking] | None = None
    place = 0
    for method, evidence in candidates:
        own = fit_classifier(
            evidence,
            labels,
            objective,
            k_grid=k_grid,
            power_grid=power_grid,
            parts=parts,
            seed=seed,
            groups=groups,
        )
        chance = compute_chance(objective, own.answers, fitted.answers, seed=seed)
        order = (objective.judge(own.answers), float(own.answers.log_loss.mean()))
        if best is None or order < best[0]:
            best, place = (order, KeptReranking(method, own.classifier, evidence.classes.shape[1])), len(steps)
        steps.append(Step(RERANKED, own.answers, chance, is_kept=False, told=method.tell()))
    if best is None:
        return Tried([], None, None)
    chance = steps[place].chance or 0.0
    if chance < (KEPT_FROM if len(steps) == 1 else INSTEAD_FROM):
        return Tried(steps, None, None)
    steps[place] = Step(RERANKED, steps[place].answers, chance, is_kept=True, told=steps[place].told)
    return Tried(steps, best[1], steps[place].answers)


def score_reranked(tried: Tried, *, metric: CompetitionMetric) -> dict[str, Scores]:
    """The scores of the method that is kept, by `RERANKED`, of answers by what others told; empty where none is."""
    return {} if tried.answers is None else {RERANKED: score_answers(tried.answers, metric=metric)}
