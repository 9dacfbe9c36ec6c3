"""Choosing how images are matched: threshold and steps fitted on some classes and judged on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from productrec.errors import DataError
from productrec.metrics.intervals import compute_intervals
from productrec.metrics.matches import count_group_sizes, score_matches
from productrec.recognition.fitting import INSTEAD_FROM, KEPT_FROM
from productrec.recognition.matching import MatchRule, Neighbourhood, find_near, fit_threshold, list_matches
from productrec.recognition.titled_matching import PairScale, TitledNeighbourhood, fit_pairs

STEPS: dict[str, dict[str, Any]] = {"at_least_two": {"at_least": 2}, "both_ways": {"both_ways": True}}
PLAIN = "plain"  # the embeddings as they are
TITLES = "titles"  # the step by which titles join
_FOLDS = 5


@dataclass(frozen=True)
class LabelledPool:
    """M images of which some are judged.

    ``near``: the nearest others of each by the name of how embeddings were changed, `PLAIN` among them; ``labels``:
    (M,) classes; ``is_judged``: (M,) bool, those whose lists count, the others being there to be mistaken for theirs;
    ``weight``: how often each listed image of another class counts, see `score_matches`; ``titled``: candidates by
    image and by title, by the same names as ``near``; empty where there are no titles.
    """

    near: Mapping[str, Neighbourhood]
    labels: np.ndarray
    is_judged: np.ndarray
    weight: float = 1.0
    titled: Mapping[str, TitledNeighbourhood] = field(default_factory=dict)


@dataclass(frozen=True)
class MatchStep:
    """A step that was tried: the mean F1 with it on classes it was not fitted on, and the share of paired bootstraps
    over classes in which that is more than without it.
    """

    name: str
    f1: float
    chance: float
    is_kept: bool


@dataclass(frozen=True)
class ChosenMatching:
    """What stands: ``rule`` on the neighbours of ``embeddings``.

    ``steps``: as they were tried; ``f1``: mean over the judged images, each by a rule, steps and threshold, that was
    chosen without its fold of classes; ``interval``: 95 % of the draws of a bootstrap over classes; ``classes`` and
    ``images``: that were judged.
    """

    rule: MatchRule
    embeddings: str
    steps: tuple[MatchStep, ...]
    f1: float
    interval: tuple[float, float]
    classes: int
    images: int


def choose_matching(
    pool: LabelledPool, *, steps: Sequence[str] = tuple(STEPS), most: int = 50, seed: int = 0, draws: int = 1000
) -> ChosenMatching:
    """Fit a threshold, and try steps one after the other: titles, those of ``steps``, then each changed embedding.

    A step stays where it gains in at least `KEPT_FROM` of the paired bootstraps over classes, of judged lists that were
    made by thresholds of other classes; the best of several changed embeddings in at least `INSTEAD_FROM`. Then all of
    it is done again without each fold of the classes, and that fold judged: the F1 that is told.

    Args:
        pool: labelled images.
        steps: names in `STEPS`.
        most: of `MatchRule`.
        seed: decides folds and draws.
        draws: of each bootstrap.

    Raises:
        DataError: fewer than two classes are judged.
    """
    work = _Work(pool, most, seed, draws)
    judged = np.flatnonzero(pool.is_judged)
    classes = len(np.unique(pool.labels[judged]))
    if classes < 2:
        raise DataError(f"matching: at least two classes must be there to fit a threshold and judge it; got {classes}.")
    chosen, rule, told = work.choose(judged, steps)
    f1 = np.empty(len(judged))
    for fold in work.deal(judged):
        name, fitted, _ = work.choose(judged[~fold], steps)
        f1[fold] = work.score(name, fitted, judged[fold])
    low, high = compute_group_interval(f1, pool.labels[judged], draws=draws, seed=seed)
    return ChosenMatching(rule, chosen, tuple(told), float(f1.mean()), (low, high), classes, len(judged))


def compute_group_interval(
    values: np.ndarray, groups: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of values (N,) by bootstrap over their groups (N,), each drawn whole."""
    _, codes = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(codes, values), np.bincount(codes)

    def measure(times: np.ndarray) -> dict[str, float]:
        return {"mean": float(times @ sums / (times @ counts))}

    return compute_intervals(measure, len(counts), draws=draws, seed=seed)["mean"]


@dataclass(frozen=True)
class _Work:
    pool: LabelledPool
    most: int
    seed: int
    draws: int

    def choose(self, rows: np.ndarray, steps: Sequence[str]) -> tuple[str, MatchRule, list[MatchStep]]:
        """Embeddings, rule and the steps that were tried, by the judged images ``rows`` alone."""
        name, rule, told = PLAIN, MatchRule(0.0, most=self.most), list[MatchStep]()
        before = self.cross(name, rule, rows)
        for step in (*([TITLES] if self.pool.titled else []), *steps):
            tried = replace(rule, **(STEPS[step] if step != TITLES else {"titles": PairScale()}))
            after = self.cross(name, tried, rows)
            chance = self.compare(after, before, rows)
            told.append(MatchStep(step, float(after.mean()), chance, chance >= KEPT_FROM))
            if told[-1].is_kept:
                rule, before = tried, after
        changed = {other: self.cross(other, rule, rows) for other in self.pool.near if other != PLAIN}
        best = max(changed, key=lambda other: float(changed[other].mean()), default=None)
        for other, after in changed.items():
            chance = self.compare(after, before, rows)
            is_kept = other == best and chance >= (KEPT_FROM if len(changed) == 1 else INSTEAD_FROM)
            told.append(MatchStep(other, float(after.mean()), chance, is_kept))
            name = other if is_kept else name
        return name, self.fit(name, rule, rows), told

    def cross(self, name: str, rule: MatchRule, rows: np.ndarray) -> np.ndarray:
        """F1 of each of ``rows``, by the threshold of the classes of other folds."""
        f1 = np.empty(len(rows))
        for fold in self.deal(rows):
            f1[fold] = self.score(name, self.fit(name, rule, rows[~fold]), rows[fold])
        return f1

    def deal(self, rows: np.ndarray) -> list[np.ndarray]:
        """Folds of whole classes, each a mask of ``rows``."""
        classes, codes = np.unique(self.pool.labels[rows], return_inverse=True)
        count = min(_FOLDS, len(classes))
        dealt = np.random.default_rng(self.seed).permutation(len(classes)) % count
        return [dealt[codes] == fold for fold in range(count)]

    def fit(self, name: str, rule: MatchRule, rows: np.ndarray) -> MatchRule:
        labels = self.pool.labels
        if not len(rows):  # the only class is in the other fold
            return replace(rule, threshold=1.0)
        if rule.titles is not None:
            own = self.pool.titled[name].take(rows)
            scale = fit_pairs(own, labels[own.rows] == labels[rows, None], weight=self.pool.weight)
            rule = replace(rule, titles=scale)
        near = self.find(name, rule, rows)
        fitted = fit_threshold(
            near.similarities,
            labels[near.rows] == labels[rows, None],
            count_group_sizes(labels)[rows],
            at_least=rule.at_least,
            most=self.most,
            weight=self.pool.weight,
        )
        return replace(rule, threshold=fitted.threshold)

    def score(self, name: str, rule: MatchRule, rows: np.ndarray) -> np.ndarray:
        lists = list_matches(self.find(name, rule), rule)
        f1: np.ndarray = score_matches(lists, self.pool.labels, weight=self.pool.weight)[rows]
        return f1

    def find(self, name: str, rule: MatchRule, rows: slice | np.ndarray = slice(None)) -> Neighbourhood:
        near, titled = self.pool.near[name], self.pool.titled.get(name)
        seen = Neighbourhood(near.rows[rows], near.similarities[rows])
        return find_near(seen, None if titled is None else titled.take(rows), rule)

    def compare(self, after: np.ndarray, before: np.ndarray, rows: np.ndarray) -> float:
        """The share of bootstraps over classes in which F1 is more than before; a tie counts half."""
        _, codes = np.unique(self.pool.labels[rows], return_inverse=True)
        gains = np.bincount(codes, np.round(after - before, 12))
        changed = np.flatnonzero(gains)
        if not len(changed):
            return 0.5
        count = len(gains)
        times = np.random.default_rng(self.seed).multinomial(count, np.full(count, 1 / count), size=self.draws)
        totals = times[:, changed] @ gains[changed]
        totals = np.where(np.abs(totals) < 1e-9, 0.0, totals)
        return float(((totals > 0) + 0.5 * (totals == 0)).mean())
