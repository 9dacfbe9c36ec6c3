"""Fitting a further voter: its vote, and the weights of all parts beside it, on the queries that have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from productrec.metrics.answers import summarise
from productrec.recognition.classifier import Classifier, Evidence, compute_parts, compute_voters, list_opinions
from productrec.recognition.objective import Objective
from productrec.recognition.vote import compute_vote, soften
from productrec.recognition.voters import FurtherVoter
from productrec.recognition.ways import Ways, list_votes
from productrec.recognition.weights import fit_product

_LEAST = 10  # queries that have a voter, below which nothing is fitted

Fit = Callable[[np.ndarray], Classifier]


def try_votes(
    name: str,
    evidence: Evidence,
    labels: np.ndarray,
    k_grid: Sequence[int],
    power_grid: Sequence[float],
) -> Ways:
    """Every vote of a further voter's neighbours, and what it answers to every query; see `list_votes`."""
    seen = evidence.voters[name]
    votes = list_votes(k_grid, power_grid, seen.classes.shape[1])
    class_count = evidence.logits.shape[1]
    said = (soften(compute_vote(seen.classes, seen.similarities, class_count, vote)) for vote in votes)
    return Ways(votes, [summarise(one, labels) for one in said])


def fit_alone(name: str, evidence: Evidence, ways: Ways, objective: Objective, standing: Fit) -> Fit:
    """What fits a voter that answers the queries that have it by itself; other queries are answered by what stands."""

    def fit(rows: np.ndarray) -> Classifier:
        before = replace(standing(rows), further=())
        own = rows[evidence.voters[name].has[rows]]
        if not len(own):
            return before
        vote = ways.settings[ways.choose(own, objective)]
        return replace(before, further=(FurtherVoter(name, vote, {name: 1.0}),))

    return fit


def fit_beside(
    name: str,
    evidence: Evidence,
    labels: np.ndarray,
    ways: Ways,
    objective: Objective,
    standing: Fit,
    parts: Sequence[str],
) -> Fit:
    """What fits a voter beside all that stands, on the queries that have it and all further voters before it.

    Its vote is the best by the objective; the weights of all parts are anew those that make the queries' classes most
    likely. What stands is not touched, and still answers the queries that lack the voter. Of fewer than 10 queries
    that have it nothing is fitted.

    Args:
        name: of the voter.
        evidence: of Q queries.
        labels: (Q,) class positions, -1 where the true class is not among the classes.
        ways: of `try_votes`.
        objective: what shall be small.
        standing: fits what the voter joins.
        parts: those of `BLENDED` that may speak.
    """

    def fit(rows: np.ndarray) -> Classifier:
        before = standing(rows)
        earlier = [voter.name for voter in before.further]
        has = np.logical_and.reduce([evidence.voters[voter].has[rows] for voter in (*earlier, name)])
        own = rows[has]
        if len(own) < _LEAST:
            return before
        vote = ways.settings[ways.choose(own, objective)]
        names = [*parts, *earlier, name]
        joined = replace(before, further=(*before.further, FurtherVoter(name, vote, {name: 1.0})))
        seen = evidence.take(own)
        said = compute_parts(seen, replace(before, further=()))._asdict() | compute_voters(seen, joined)
        opinions = list_opinions(said, before, evidence.categories)
        weights, _ = fit_product([opinions[part] for part in names], labels[own], objective)
        kept = {part: weight for part, weight in zip(names, weights, strict=True) if weight > 0}
        return replace(before, further=(*before.further, FurtherVoter(name, vote, kept)))

    return fit
