"""Blending: several models' class probabilities become one, in blocks; refused where they speak of other things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from productrec.errors import ArtifactError, describe_offenders
from productrec.recognition.vote import normalise_rows
from productrec.recognition.weights import combine
from productrec.runtime import count_cores

BlendRule = Literal["mean", "geometric", "rank"]
RULES: tuple[BlendRule, ...] = ("mean", "geometric", "rank")


@dataclass(frozen=True)
class Blend:
    """How models become one: a weight each, in their order, and a rule.

    ``mean``: weighted arithmetic mean; ``geometric``: proportional to the product of each to the power of its weight,
    whose sum says how sure the answer is; ``rank``: proportional to the weighted mean of Borda's scores (C less the
    class's rank in a model, from 0), which looks at orders alone.
    """

    weights: tuple[float, ...]
    rule: BlendRule = "mean"

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain values, with the models' names."""
        return {"rule": self.rule, "weights": dict(zip(names, self.weights, strict=True))}


def build_blend(values: Mapping[str, Any], names: Sequence[str]) -> Blend:
    """What `Blend.describe` gave, for models in this order.

    Raises:
        ArtifactError: it is of other models.
    """
    weights = values["weights"]
    if set(weights) != set(names):
        raise ArtifactError(
            f"ensemble: must be of {', '.join(names)}; got one of {', '.join(weights)}. Blend these models anew."
        )
    return Blend(tuple(float(weights[name]) for name in names), values["rule"])


def check_same_order(names: Sequence[str], orders: Sequence[Sequence[object]], what: str) -> None:
    """Refuse members whose image ids or class order differ from the first one's.

    Args:
        names: of the members.
        orders: each member's ids or classes, in order.
        what: ``"image ids"`` or ``"class order"``.

    Raises:
        ArtifactError: naming the member and what differs.
    """
    first = list(orders[0])
    for name, order in zip(names[1:], orders[1:], strict=True):
        if list(order) == first:
            continue
        unlike = sorted(set(map(str, order)) ^ set(map(str, first)))
        detail = (
            f"{describe_offenders(unlike)} stand in only one of them"
            if unlike
            else "the same ones stand in another order"
        )
        raise ArtifactError(
            f"ensemble: {what} must be equal; {name} differs from {names[0]}: {detail}. "
            "Combine runs that were trained and predicted on one image table."
        )


def resolve_weights(names: Sequence[str], weights: Sequence[float] | None) -> np.ndarray:
    """Weights (V,) that sum to 1; equal ones where none are given.

    Raises:
        ArtifactError: their number is not the members', one is below zero or not finite, or none is above zero.
    """
    values = np.ones(len(names)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(values) != len(names) or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ArtifactError(
            f"ensemble: weights must be {len(names)} finite numbers from 0, not all 0, one for each of "
            f"{', '.join(names)}; got {values.tolist()}."
        )
    relative = values / values.max()  # whose sum is at most their number
    shares: np.ndarray = relative / relative.sum()
    return shares


def weigh(names: Sequence[str], weights: Sequence[float] | None, how: str = "mean") -> Blend:
    """A blend by weights that are given, or by equal ones; of the rule ``how``, where it is one, else a mean.

    Raises:
        ArtifactError: see `resolve_weights`.
    """
    rule = next((one for one in RULES if one == how), RULES[0])
    return Blend(tuple(resolve_weights(names, weights).tolist()), rule)


def score_ranks(values: np.ndarray) -> np.ndarray:
    """How many classes rank behind each class (N, C), float32; equal ones share the mean of their places.

    As C less `scipy.stats.rankdata` of the negated values, in a sixth of the time where no two are equal.
    """
    count = values.shape[1]
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    begins = np.ones(values.shape, dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    scores = np.empty(values.shape, dtype=np.float32)
    np.put_along_axis(scores, order, np.arange(count, dtype=np.float32)[None], axis=1)
    shared = np.flatnonzero(~begins.all(axis=1))
    if len(shared):
        first = np.flatnonzero(begins[shared])
        ends = np.append(first[1:], len(shared) * count)
        mean = (first % count + (ends - 1) % count) / 2
        places = np.repeat(mean.astype(np.float32), ends - first).reshape(len(shared), count)
        some = np.empty_like(places)
        np.put_along_axis(some, order[shared], places, axis=1)
        scores[shared] = some
    return scores


def blend_block(parts: Sequence[np.ndarray], blend: Blend) -> np.ndarray:
    """Probabilities (N, C) of V models as one, float32, rows sum to 1."""
    if blend.rule == "rank":
        scores = [
            np.float32(weight) * score_ranks(np.asarray(part))
            for part, weight in zip(parts, blend.weights, strict=True)
            if weight
        ]
        return normalise_rows(np.sum(scores, axis=0))
    return combine(parts, blend.weights, "linear" if blend.rule == "mean" else "product")


def blend_probabilities(
    members: Sequence[np.ndarray], blend: Blend, out: np.ndarray, *, block_rows: int = 1024
) -> None:
    """Blend all of several models' probabilities.

    Args:
        members: V arrays (N, C), memory maps welcome.
        blend: how.
        out: (N, C) to write to.
        block_rows: rows that each core holds at a time.
    """
    used = [(member, weight) for member, weight in zip(members, blend.weights, strict=True) if weight]
    reduced = Blend(tuple(weight for _, weight in used), blend.rule)

    def fill(start: int) -> None:
        rows = slice(start, start + block_rows)
        out[rows] = blend_block([np.asarray(member[rows]) for member, _ in used], reduced)

    with ThreadPoolExecutor(count_cores()) as pool:
        for _ in pool.map(fill, range(0, len(out), block_rows)):
            pass  # an error of any block is raised here
