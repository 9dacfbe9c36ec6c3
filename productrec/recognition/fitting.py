"""Fitting a classifier: every step is tried on queries that it was not fitted on, and kept where it gains there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from productrec.metrics.answers import Answers, join, summarise
from productrec.metrics.competition import CompetitionMetric
from productrec.recognition.classifier import BLENDED, Classifier, Evidence, compute_parts, fuse
from productrec.recognition.fitting_voters import fit_alone, fit_beside, try_votes
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.scores import Scores, score_answers
from productrec.recognition.vote import Vote, compute_softmax, compute_vote
from productrec.recognition.ways import Ways, list_votes
from productrec.recognition.weights import FITS, split_folds

KEPT_FROM = 0.8  # share of paired bootstraps in which a step must gain
INSTEAD_FROM = 0.95  # and the best of several that would take another's place: of several one gains by luck
_FOLDS = 5
_FIRST = "product by likelihood"  # of `FITS`; it won over the others where it was measured
_SCALES = tuple(float(scale) for scale in np.geomspace(0.25, 4, 9))
_PROTOTYPE_SCALES = (5.0, 10.0, 20.0, 40.0, 80.0)
_CATEGORY_SHARES = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Step:
    """A step that was tried.

    ``answers``: to the queries, of a further voter alone to those that have it, each by what was fitted on others;
    ``chance``: share of paired bootstraps in which it was better than what stood before, None for one that nothing
    stood before; ``is_kept``: whether it stands.
    """

    name: str
    answers: Answers
    chance: float | None
    is_kept: bool
    told: str = ""

    def describe(self) -> dict[str, Any]:
        """What is kept of it beside the classifier."""
        return {"step": self.name, "chance": self.chance, "kept": self.is_kept, "how": self.told}


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier, the steps that were tried on the way, and its own answers, each by what others told."""

    classifier: Classifier
    steps: list[Step]
    answers: Answers


def fit_classifier(
    evidence: Evidence,
    labels: np.ndarray,
    objective: Objective,
    *,
    k_grid: Sequence[int],
    power_grid: Sequence[float],
    parts: Sequence[str] = BLENDED,
    seed: int = 0,
    groups: Sequence[int] | None = None,
) -> Fitted:
    """Fit vote, scales and weights on queries that the network was not trained on.

    The queries are parted in five. Each fifth is answered by what was fitted on the other four, so that the answers of
    every step can be compared as if they were to new queries. All parts together stand first, in the product that
    makes the queries' own classes most likely: with few queries the part that looks best often is not (measured; see
    benchmarks/RESULTS.md). Another blend of `weights.FITS`, or a part alone, takes its place where it gains in at
    least `INSTEAD_FROM` of the paired bootstraps; a category's share in the vote is added where that gains in
    `KEPT_FROM` of them. Then each further voter of the evidence joins what stands where that gains as surely; queries
    that lack it are answered as if it were not there. What stands is fitted once more on all queries.

    Args:
        evidence: of Q queries.
        labels: (Q,) class positions; -1 (an error whatever is said) where the true class is not among the classes.
        objective: what shall be small.
        k_grid: votes to try.
        power_grid: powers to try.
        parts: those of `BLENDED` that may speak, at least one.
        seed: decides how the queries are parted, and the bootstraps.
        groups: (Q,) queries of one group, such as near-duplicates, stay in one part; None for none.

    Returns:
        The classifier, and how each step did.
    """
    everyone = np.arange(len(labels))
    if evidence.prototypes is None:
        evidence = replace(evidence, prototypes=np.zeros_like(evidence.logits, dtype=np.float32))
    ways = _try_parts(evidence, labels, k_grid, power_grid)
    folds = split_folds(len(labels), min(_FOLDS, len(labels)), seed=seed, groups=groups)
    parts_of = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]

    def cross(fit: Callable[[np.ndarray], Classifier]) -> Answers:
        """Every query's answer by what ``fit`` makes of the others; of a single query, by what it makes of itself."""
        seen = []
        for own in parts_of:
            others = np.setdiff1d(everyone, own) if len(parts_of) > 1 else own
            fused = compute_parts(evidence.take(own), fit(others)).fused
            seen.append(summarise(fused, labels[own]))
        order = np.argsort(np.concatenate(parts_of), kind="stable")
        return join(seen).take(order)

    def settle(rows: np.ndarray) -> Classifier:
        return _settle(ways, rows, objective)

    steps: list[Step] = []
    fits: dict[str, Callable[[np.ndarray], Classifier]] = {}
    for name in parts:
        fits[name] = lambda rows, name=name: replace(settle(rows), weights={name: 1.0})  # type: ignore[misc]
        steps.append(Step(name, cross(fits[name]), None, is_kept=False))
    blends = _list_blends(evidence, labels, objective, settle, parts)
    standing = blends.pop(_FIRST)
    stands = cross(standing)
    steps.append(Step("fused", stands, _compare(objective, stands, steps, seed), is_kept=True, told=_FIRST))
    others = [*((name, fits[name], steps[row].answers) for row, name in enumerate(parts))]
    others += [(name, fit, cross(fit)) for name, fit in blends.items()]
    name, fit, answers = min(others, key=lambda one: _order(objective, one[2]))
    chance = compute_chance(objective, answers, stands, seed=seed)
    steps.append(Step("instead", answers, chance, chance >= INSTEAD_FROM, name))
    if steps[-1].is_kept:
        standing, stands = fit, answers
    if evidence.categories is not None and "vote" in standing(everyone).weights:
        fit = _add_category(evidence, labels, objective, standing)
        answers = cross(fit)
        chance = compute_chance(objective, answers, stands, seed=seed)
        steps.append(Step("category", answers, chance, chance >= KEPT_FROM))
        if steps[-1].is_kept:
            standing, stands = fit, answers
    for name, voter in evidence.voters.items():
        if not voter.has.any():
            continue
        tried = try_votes(name, evidence, labels, k_grid, power_grid)
        alone = cross(fit_alone(name, evidence, tried, objective, standing))
        steps.append(Step(name, alone.take(np.flatnonzero(voter.has)), None, is_kept=False))
        fit = _remember(fit_beside(name, evidence, labels, tried, objective, standing, parts))
        answers = cross(fit)
        chance = compute_chance(objective, answers, stands, seed=seed)
        is_kept = chance >= KEPT_FROM and any(one.name == name for one in fit(everyone).further)
        steps.append(Step(f"with {name}", answers, chance, is_kept))
        if is_kept:
            standing, stands = fit, answers
    return Fitted(standing(everyone), steps, stands)


def _try_parts(
    evidence: Evidence, labels: np.ndarray, k_grid: Sequence[int], power_grid: Sequence[float]
) -> dict[str, Ways]:
    """Every setting of each part alone, and what it answers to every query."""
    class_count = evidence.logits.shape[1]
    most = evidence.classes.shape[1]
    votes = list_votes(k_grid, power_grid, most)

    def vote(how: Vote) -> np.ndarray:
        return compute_vote(evidence.classes, evidence.similarities, class_count, how)

    def scale_head(scale: float) -> np.ndarray:
        return compute_softmax(evidence.logits, scale)

    def scale_prototypes(scale: float) -> np.ndarray:
        assert evidence.prototypes is not None
        return compute_softmax(evidence.prototypes, scale)

    tried: list[tuple[str, Sequence[Any], Callable[[Any], np.ndarray]]] = [
        ("head", _SCALES, scale_head),
        ("vote", votes, vote),
        ("prototypes", _PROTOTYPE_SCALES, scale_prototypes),
    ]
    return {name: Ways(list(ways), [summarise(compute(way), labels) for way in ways]) for name, ways, compute in tried}


def _settle(ways: Mapping[str, Ways], rows: np.ndarray, objective: Objective) -> Classifier:
    """Each part alone as it is best by some queries: the vote by the objective, scales by log-loss."""
    return Classifier(
        vote=ways["vote"].settings[ways["vote"].choose(rows, objective)],
        head_scale=ways["head"].settings[ways["head"].calibrate(rows)],
        prototype_scale=ways["prototypes"].settings[ways["prototypes"].calibrate(rows)],
    )


def _order(objective: Objective, answers: Answers) -> tuple[float, float]:
    """The smaller, the better: errors, then log-loss."""
    return objective.judge(answers), float(answers.log_loss.mean())


def _compare(objective: Objective, answers: Answers, steps: Sequence[Step], seed: int) -> float:
    """Chance that answers are better than the best of some steps."""
    best = min((step.answers for step in steps), key=lambda one: _order(objective, one))
    return compute_chance(objective, answers, best, seed=seed)


def _remember(fit: Callable[[np.ndarray], Classifier]) -> Callable[[np.ndarray], Classifier]:
    """A fit that is made once for the same rows; what stands on it asks for it again."""
    known: dict[bytes, Classifier] = {}

    def recall(rows: np.ndarray) -> Classifier:
        key = rows.tobytes()
        if key not in known:
            known[key] = fit(rows)
        return known[key]

    return recall


def _list_blends(
    evidence: Evidence,
    labels: np.ndarray,
    objective: Objective,
    settle: Callable[[np.ndarray], Classifier],
    names: Sequence[str],
) -> dict[str, Callable[[np.ndarray], Classifier]]:
    """What fits a blend of all parts to some queries, by the name of how it does."""

    def build(how: str) -> Callable[[np.ndarray], Classifier]:
        def fit(rows: np.ndarray) -> Classifier:
            alone = settle(rows)
            parts = compute_parts(evidence.take(rows), alone)
            weights, rule = FITS[how]([getattr(parts, name) for name in names], labels[rows], objective)
            kept = {name: weight for name, weight in zip(names, weights, strict=True) if weight > 0}
            return replace(alone, weights=kept, rule=rule)

        return _remember(fit)

    return {how: build(how) for how in FITS}


def _add_category(
    evidence: Evidence, labels: np.ndarray, objective: Objective, standing: Callable[[np.ndarray], Classifier]
) -> Callable[[np.ndarray], Classifier]:
    """What fits, beside all that stands, the share of a category in the vote."""

    def fit(rows: np.ndarray) -> Classifier:
        before, seen = standing(rows), evidence.take(rows)
        parts = compute_parts(seen, before)._asdict()

        def judge(share: float) -> tuple[float, float]:
            fused = fuse(parts, replace(before, category_share=share), evidence.categories)
            answers = summarise(fused, labels[rows])
            return objective.judge(answers), float(answers.log_loss.mean())

        return replace(before, category_share=min(_CATEGORY_SHARES, key=judge))

    return fit


def score_fitted(
    fitted: Fitted, evidence: Evidence, labels: np.ndarray, *, metric: CompetitionMetric
) -> dict[str, Scores]:
    """Scores of every part on the queries of a fit: of those that are fitted, by answers of what others told."""
    parts = compute_parts(evidence, fitted.classifier)._asdict()
    answers = {name: summarise(part, labels) for name, part in parts.items()}
    alone = {*BLENDED, *evidence.voters}
    answers |= {step.name: step.answers for step in fitted.steps if step.name in alone}
    answers["fused"] = fitted.answers
    return {name: score_answers(one, metric=metric) for name, one in answers.items()}
