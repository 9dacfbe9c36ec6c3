"""Fitting a joint space: its models' weights, its vote and prototypes, and whether it beats the best model alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from productrec.ensembling.joint_weights import JointWeights, fit_joint_weights
from productrec.metrics.answers import Answers, summarise
from productrec.recognition.classifier import Classifier, Evidence, compute_parts, join_evidence
from productrec.recognition.fitting import INSTEAD_FROM, fit_classifier
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.vote import Vote, compute_nearest, compute_vote, soften

JOINT = "joint"
PARTS = ("vote", "prototypes")  # what speaks: a joint space has no head
UNFITTED = Classifier(weights={"vote": 0.5, "prototypes": 0.5}, rule="product")
ALONE_FROM = INSTEAD_FROM  # share of paired bootstraps; 0.5 would take whatever looks best
_VOTE = Vote()  # by which weights are judged

See = Callable[[np.ndarray, np.ndarray], Evidence]  # by shares (V,), of some queries (rows)


@dataclass(frozen=True)
class JointFitted:
    """What answers.

    ``shares``: (V,) of the models, those of one model alone where that was better, and ``classifier``; ``chosen``:
    `JOINT` or that model's name, and ``part`` (fused, or vote) by which it answers; ``weights``: how the joint space's
    were found; ``answers``: by `JOINT` and each model's name, by part (nearest, vote, prototypes, and fused of vote and
    prototypes), each but those of the nearest by what other queries told; ``best_alone``: the best model and its part,
    and ``chance``: share of paired bootstraps in which the joint space was better than that; ``evidence``: of the
    queries, by what answers.
    """

    shares: np.ndarray
    classifier: Classifier
    chosen: str
    part: str
    weights: JointWeights
    answers: dict[str, dict[str, Answers]]
    best_alone: tuple[str, str]
    chance: float
    evidence: Evidence


def answer_by_vote(candidates_classes: np.ndarray, similarities: np.ndarray, labels: np.ndarray, count: int) -> Answers:
    """Answers of a fixed vote among neighbours (Q, K), by which weights are judged; ``count``: of the classes."""
    return summarise(soften(compute_vote(candidates_classes, similarities, count, _VOTE)), labels)


def fit_joint(
    see: See,
    answer: Callable[[np.ndarray], Answers],
    names: Sequence[str],
    labels: np.ndarray,
    objective: Objective,
    *,
    k_grid: Sequence[int],
    power_grid: Sequence[float],
    shares: np.ndarray | None = None,
    seed: int = 0,
    groups: Sequence[int] | None = None,
) -> JointFitted:
    """Fit a joint space on queries that none of its models was trained on, and each model alone beside it.

    Every query is answered by weights and classifier that were fitted on others. The joint space answers, unless the
    best of the models alone, by its vote or by vote and prototypes, is better so in at least `ALONE_FROM` of the paired
    bootstraps: of several one looks better by luck (measured; see benchmarks/RESULTS.md). All are fitted once more on
    all queries.

    Args:
        see: the evidence of some queries by some shares; its logits are not asked.
        answer: answers to all queries by some shares, quickly; the weights are searched by them.
        names: of the V models.
        labels: (Q,) class positions, -1 where the true class is not among the classes.
        objective: what shall be small.
        k_grid, power_grid: see `fit_classifier`.
        shares: (V,) that are given; searched where None.
        seed: decides every draw.
        groups: (Q,) queries of one group stay together; None for none.
    """
    everyone, count = np.arange(len(labels)), len(names)
    if shares is None:
        weights = fit_joint_weights(answer, count, len(labels), objective, groups=groups, seed=seed)
    else:
        weights = JointWeights(shares, np.tile(shares, (len(labels), 1)), shares, None, is_kept=False)
    evidence = {JOINT: _see_each(see, weights.by_query)}
    evidence |= {name: see(np.eye(count)[place], everyone) for place, name in enumerate(names)}
    how: dict[str, Any] = {"k_grid": k_grid, "power_grid": power_grid, "parts": PARTS, "seed": seed, "groups": groups}
    fits = {name: fit_classifier(one, labels, objective, **how) for name, one in evidence.items()}
    answers: dict[str, dict[str, Answers]] = {}
    for name, fitted in fits.items():
        one = evidence[name]
        nearest = summarise(compute_nearest(one.classes, one.similarities, one.logits.shape[1]), labels)
        told = {step.name: step.answers for step in fitted.steps if step.name in PARTS}
        answers[name] = {"nearest": nearest} | told | {"fused": fitted.answers}

    def order(name: str, part: str) -> tuple[float, float]:
        seen = answers[name][part]
        return objective.judge(seen), float(seen.log_loss.mean())

    best_alone = min(((name, part) for name in names for part in (*PARTS, "fused")), key=lambda way: order(*way))
    chance = compute_chance(objective, answers[JOINT]["fused"], answers[best_alone[0]][best_alone[1]], seed=seed)
    ways = [(name, part) for name in names for part in ("fused", "vote")]
    chosen, part = min(ways, key=lambda way: order(*way))
    if compute_chance(objective, answers[chosen][part], answers[JOINT]["fused"], seed=seed) < ALONE_FROM:
        chosen, part = JOINT, "fused"
    classifier = fits[chosen].classifier
    if part == "vote":
        classifier = replace(classifier, weights={"vote": 1.0}, category_share=0.0)
    stands = weights.shares if chosen == JOINT else np.eye(count)[list(names).index(chosen)]
    return JointFitted(stands, classifier, chosen, part, weights, answers, best_alone, chance, evidence[chosen])


def answer_joint(evidence: Evidence, classifier: Classifier) -> np.ndarray:
    """Class probabilities (Q, C) float32 of some queries by a fitted joint space."""
    return compute_parts(evidence, classifier).fused


def _see_each(see: See, by_query: np.ndarray) -> Evidence:
    """The evidence of all queries, each by its own shares (Q, V)."""
    shares, which = np.unique(by_query, axis=0, return_inverse=True)
    which = which.reshape(-1)
    rows = [np.flatnonzero(which == number) for number in range(len(shares))]
    seen = join_evidence([see(own, some) for own, some in zip(shares, rows, strict=True)])
    return seen.take(np.argsort(np.concatenate(rows), kind="stable"))
