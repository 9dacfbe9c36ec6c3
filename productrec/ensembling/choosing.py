"""Choosing a blend: every way is fitted on some labelled images and compared on others, beside the best model alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from productrec.ensembling.blend import Blend, blend_block
from productrec.ensembling.selection import select_greedily
from productrec.metrics.answers import Answers, join, summarise
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.weights import Fit, fit_mean, fit_mixture, fit_product, split_folds

_FOLDS = 5
_HELD_NUMBERS = 1 << 26  # of all models' probabilities: a quarter of a gigabyte, and fits hold five times as much
BEST = "best"

BlendFit = Callable[[Sequence[np.ndarray], np.ndarray, Objective], Blend]


@dataclass(frozen=True)
class Trial:
    """A way that was tried: its answers to all images, each by what was fitted on others; ``blend``: fitted on all.

    ``chance``: in what share of paired bootstraps its answers are better than the best model's.
    """

    answers: Answers
    blend: Blend
    chance: float


@dataclass(frozen=True)
class ChosenBlend:
    """The way that stands, by its name, and all that were tried.

    ``alone``: (V) answers of each model; ``rows``: of the images, those that were looked at.
    """

    way: str
    trials: dict[str, Trial]
    alone: list[Answers]
    rows: np.ndarray

    @property
    def blend(self) -> Blend:
        """How the models are blended."""
        return self.trials[self.way].blend


def take_best(parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective) -> Blend:
    """The model with the fewest errors alone; between equal ones the smaller log-loss wins."""
    answers = [summarise(part, labels) for part in parts]
    best = min(range(len(parts)), key=lambda one: (*_order(objective, answers[one]), one))
    return Blend(tuple(float(one == best) for one in range(len(parts))))


def _weigh_equally(rule: str) -> BlendFit:
    def fit(parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective) -> Blend:
        return Blend((1 / len(parts),) * len(parts), rule)  # type: ignore[arg-type]

    return fit


def _weigh(fit: Fit) -> BlendFit:
    def blend(parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective) -> Blend:
        weights, rule = fit(parts, labels, objective)
        return Blend(tuple(weights), "mean" if rule == "linear" else "geometric")

    return blend


def _select(parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective) -> Blend:
    return Blend(tuple(select_greedily(parts, labels, objective)))


WAYS: dict[str, BlendFit] = {
    BEST: take_best,
    "mean": _weigh_equally("mean"),
    "geometric": _weigh_equally("geometric"),
    "rank": _weigh_equally("rank"),
    "greedy": _select,
    "coordinates": _weigh(fit_mean),
    "mixture": _weigh(fit_mixture),
    "stacking": _weigh(fit_product),
}
# How a person reads them.
WAY_TITLES = {
    BEST: "best model alone",
    "mean": "equal mean",
    "geometric": "equal geometric mean",
    "rank": "equal mean of ranks",
    "greedy": "greedy selection",
    "coordinates": "mean, coordinate search",
    "mixture": "mean by likelihood",
    "stacking": "logistic stacking",
}


def draw_fitted(count: int, members: int, classes: int, *, most: int, seed: int = 0) -> np.ndarray:
    """Rows, ascending, that blends are fitted on: as many as memory holds of all models, ``most`` at most."""
    held = max(1, _HELD_NUMBERS // (members * classes))
    return np.sort(np.random.default_rng(seed).permutation(count)[: min(most, held)])


def choose_blend(
    parts: Sequence[np.ndarray],
    labels: np.ndarray,
    objective: Objective,
    *,
    ways: Mapping[str, BlendFit] = WAYS,
    groups: Sequence[int] | None = None,
    seed: int = 0,
    rows: np.ndarray | None = None,
) -> ChosenBlend:
    """Fit every way in nested validation and take the one with the smallest log-loss there.

    The images are parted in five; each fifth is answered by what was fitted on the other four. So the best model alone
    is there as it would be chosen without knowing the fifth, and what is told of the way that stands is of images that
    its weights were not fitted on. Log-loss chooses between ways and not errors, of which a few hundred images have too
    few to tell (measured; see benchmarks/RESULTS.md); ways themselves are fitted for the objective. A mean of ranks has
    no log-loss that says anything and stands only where it is the one way.

    Args:
        parts: V arrays (N, C) of probabilities, in memory.
        labels: (N,) class positions, -1 for none of the classes.
        objective: what shall be small.
        ways: to try, by name.
        groups: (N,) images of one group stay together; None for none.
        seed: decides how images are parted, and the bootstraps.
        rows: what the images are in the whole, for whom it concerns; None for themselves.
    """
    folds = split_folds(len(labels), min(_FOLDS, len(labels)), seed=seed, groups=groups)
    places = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    everyone = np.arange(len(labels))
    order = np.argsort(np.concatenate(places), kind="stable")
    answers: dict[str, list[Answers]] = {name: [] for name in ways}
    for own in places:
        others = np.setdiff1d(everyone, own) if len(places) > 1 else own
        fitted, asked = [part[others] for part in parts], [part[own] for part in parts]
        for name, fit in ways.items():
            blend = fit(fitted, labels[others], objective)
            answers[name].append(summarise(blend_block(asked, blend), labels[own]))
    joined = {name: join(seen).take(order) for name, seen in answers.items()}
    alone = [summarise(part, labels) for part in parts]
    before = joined.get(BEST) or alone[0]
    trials = {
        name: Trial(seen, ways[name](parts, labels, objective), compute_chance(objective, seen, before, seed=seed))
        for name, seen in joined.items()
    }
    way = min(trials, key=lambda name: float(trials[name].answers.log_loss.mean()))
    return ChosenBlend(way, trials, alone, everyone if rows is None else rows)


def _order(objective: Objective, answers: Answers) -> tuple[float, float]:
    return objective.judge(answers), float(answers.log_loss.mean())
