"""Fitting the chain of structure: each step is tried on images that it was not fitted on, and kept where it gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from productrec.metrics.answers import Answers, join, summarise
from productrec.recognition.fitting import KEPT_FROM
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.structure.chain import CATEGORIES, GROUPS, PRIOR, STEPS, Structured, apply_chain
from productrec.recognition.weights import split_folds

_GRIDS = {GROUPS: (0.25, 0.5, 0.75, 1.0), CATEGORIES: (0.25, 0.5, 1.0, 2.0), PRIOR: (0.25, 0.5, 0.75, 1.0)}
_FOLDS = 5
UNTRIED = {
    GROUPS: "no two of the images that tell are of one group",
    CATEGORIES: "no category of the image table has several classes",
    PRIOR: "no image that tells is of a class that is wanted",
}


@dataclass(frozen=True)
class StructureStep:
    """A step that was asked for.

    ``strength``: as all images tell; ``chance``: share of paired bootstraps in which it gained, None where it could not
    be tried, and ``reason`` says why; ``is_kept``: whether it stands.
    """

    name: str
    strength: float
    chance: float | None
    is_kept: bool
    reason: str = ""

    def describe(self) -> dict[str, Any]:
        """What is kept of it beside the predictions."""
        return asdict(self)


@dataclass(frozen=True)
class FittedStructure:
    """A fitted chain: ``strengths`` of the steps that are kept, all steps, and what they are worth.

    ``before`` and ``after``: answers without and with what is kept, those with it each by what others told.
    """

    strengths: dict[str, float]
    steps: list[StructureStep]
    before: Answers
    after: Answers


def fit_structure(
    images: Structured,
    rows: np.ndarray,
    labels: np.ndarray,
    objective: Objective,
    *,
    steps: Sequence[str],
    weights: np.ndarray | None = None,
    seed: int = 0,
) -> FittedStructure:
    """Fit the strengths of some steps on labelled images, each kept where it gains on those it was not fitted on.

    The images are parted in five, those of a group together. Each fifth is answered by the strengths that the other
    four like best, those of the steps before among them. A step is kept where that gains in at least `KEPT_FROM` of the
    paired bootstraps over what stood before it. Strengths are fitted once more on all images in the end.

    Args:
        images: of N images.
        rows: (n,) ascending, those of them that have labels.
        labels: (n,) their class positions, -1 for a class that nobody could name.
        objective: what shall be small.
        steps: names among `STEPS`, which are tried in that order, whatever the order here.
        weights: (n,) how often each of these counts, by which they are as the images that will be asked about; None
            for once each.
        seed: decides how they are parted, and the bootstraps.
    """
    groups = np.full(len(rows), -1) if images.groups is None else images.groups[rows]
    units = np.where(groups < 0, np.arange(len(rows)) + int(groups.max(initial=0)) + 1, groups)
    folds = split_folds(len(rows), min(_FOLDS, len(np.unique(units))), seed=seed, groups=units.tolist())
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    known: dict[tuple[tuple[str, float], ...], Answers] = {}

    def answer(strengths: dict[str, float]) -> Answers:
        key = tuple(strengths.items())
        if key not in known:
            known[key] = _answer(images, rows, labels, strengths)
        return known[key]

    def settle(told_by: np.ndarray, before: dict[str, float], name: str) -> dict[str, float]:
        counted = None if counts is None else counts[told_by]
        if counted is not None and not counted.any():
            return before

        def judge(strength: float) -> tuple[float, float]:
            answers = answer(before | {name: strength}).take(told_by)
            return objective.judge(answers, counted), float(np.average(answers.log_loss, weights=counted))

        return before | {name: min(_GRIDS[name], key=judge)}

    counts = weights if weights is not None and weights.any() else None
    before = stands = answer({})
    chosen: list[dict[str, float]] = [{} for _ in parts]  # by what the others of each part tell
    final: dict[str, float] = {}
    tried: list[StructureStep] = []
    for name in (name for name in STEPS if name in steps):
        if reason := _find_reason(images, groups, weights, len(parts), name):
            tried.append(StructureStep(name, 0.0, None, is_kept=False, reason=reason))
            continue
        others = [settle(told_by, one, name) for (told_by, _), one in zip(parts, chosen, strict=True)]
        answers = join([answer(one).take(own) for (_, own), one in zip(parts, others, strict=True)])
        answers = answers.take(np.argsort(np.concatenate([own for _, own in parts]), kind="stable"))
        chance = compute_chance(objective, answers, stands, weights=counts, seed=seed)
        fitted = settle(np.arange(len(rows)), final, name)
        tried.append(StructureStep(name, fitted[name], chance, is_kept=chance >= KEPT_FROM))
        if tried[-1].is_kept:
            chosen, final, stands = others, fitted, answers
    return FittedStructure(final, tried, before, stands)


def _find_reason(images: Structured, groups: np.ndarray, weights: np.ndarray | None, parts: int, name: str) -> str:
    """Why a step cannot be tried; empty where it can."""
    if parts < 2:
        return "fewer than two images, or groups of them, tell"
    is_there = {
        GROUPS: bool((groups >= 0).any()),
        CATEGORIES: images.categories is not None,
        PRIOR: images.ratios is not None and (weights is None or bool(weights.any())),
    }
    return "" if is_there[name] else UNTRIED[name]


def _answer(images: Structured, rows: np.ndarray, labels: np.ndarray, strengths: dict[str, float]) -> Answers:
    """What the chain answers to labelled images, in their order."""
    place = np.full(len(images.values), -1)
    place[rows] = np.arange(len(rows))
    seen, places = [], []
    for some, block in apply_chain(images, strengths):
        own = place[some]
        is_known = own >= 0
        seen.append(summarise(block[is_known], labels[own[is_known]]))
        places.append(own[is_known])
    return join(seen).take(np.argsort(np.concatenate(places), kind="stable"))
