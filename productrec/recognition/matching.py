"""Matches of images among each other: who is listed for whom, by a threshold on their similarity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from productrec.metrics.matches import MatchLists
from productrec.recognition.titled_matching import PairScale, TitledNeighbourhood

_DIGITS = 12  # sums of F1 that differ by less are equal


@dataclass(frozen=True)
class MatchRule:
    """From when on two images match.

    ``threshold``: similarity at least, or, where ``titles`` rate pairs of images, probability at least; ``at_least``:
    images in a list at least, the image itself and its nearest ones, however far away; ``both_ways``: an image also
    lists those that list it; ``most``: images in a list at most.
    """

    threshold: float
    at_least: int = 1
    both_ways: bool = False
    most: int = 50
    titles: PairScale | None = None


class Neighbourhood(NamedTuple):
    """The nearest others of each of M images of a pool: ``rows`` (M, K) and ``similarities`` (M, K), descending."""

    rows: np.ndarray
    similarities: np.ndarray


class FittedThreshold(NamedTuple):
    """A similarity, and the mean F1 of the lists that it makes."""

    threshold: float
    f1: float


def find_near(near: Neighbourhood, titled: TitledNeighbourhood | None, rule: MatchRule) -> Neighbourhood:
    """The nearest others of each image as a rule sees them: by image, or by the probability of image and title."""
    return near if rule.titles is None or titled is None else Neighbourhood(*rule.titles.rate(titled, rule.most))


def build_rule(values: Mapping[str, Any]) -> MatchRule:
    """A rule from its plain values, also from before titles joined."""
    titles = values.get("titles")
    return MatchRule(**{**values, "titles": None if titles is None else PairScale(**titles)})


def list_matches(near: Neighbourhood, rule: MatchRule) -> MatchLists:
    """Each image's matches: itself, then those that are similar enough, the most similar first."""
    count, depth = near.rows.shape
    is_near = near.similarities >= np.float64(rule.threshold)
    kept = np.clip(is_near.sum(axis=1), min(rule.at_least - 1, depth), max(0, min(rule.most - 1, depth)))
    is_kept = np.arange(depth) < kept[:, None]
    owners, columns = np.nonzero(is_kept)
    others, similarities = near.rows[owners, columns], near.similarities[owners, columns]
    if rule.both_ways:
        owners, others, similarities = _add_reverse(owners, others, similarities, count)
        order = np.lexsort((others, -similarities, owners))
        owners, others = owners[order], others[order]
        ranks = np.arange(len(owners)) - np.searchsorted(owners, owners)
        owners, others = owners[ranks < rule.most - 1], others[ranks < rule.most - 1]
    counts = 1 + np.bincount(owners, minlength=count)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.empty(starts[-1], dtype=np.int64)
    rows[starts[:-1]] = np.arange(count)
    is_other = np.ones(len(rows), dtype=bool)
    is_other[starts[:-1]] = False
    rows[is_other] = others
    return MatchLists(starts, rows)


def _add_reverse(
    owners: np.ndarray, others: np.ndarray, similarities: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows below ``count`` and their reverses, each once."""
    keys, first = np.unique(np.concatenate([owners * count + others, others * count + owners]), return_index=True)
    return keys // count, keys % count, np.concatenate([similarities, similarities])[first]


def fit_threshold(
    similarities: np.ndarray,
    is_match: np.ndarray,
    sizes: np.ndarray,
    *,
    at_least: int = 1,
    most: int = 50,
    weight: float = 1.0,
) -> FittedThreshold:
    """The threshold of the highest mean F1, searched among all that make different lists.

    As a threshold falls past a similarity, one list grows by one image and its F1 changes; the changes of all lists,
    sorted by similarity and summed up, are the mean F1 at every threshold. That costs one sort of Q K numbers. Of
    equally good ones the highest is taken, halfway to the next similarity below.

    Args:
        similarities: (Q, K) of each image's nearest others, descending.
        is_match: (Q, K) bool, which of them are of its class.
        sizes: (Q,) how many images of the pool are of its class, itself among them; at least 1.
        at_least: of `MatchRule`.
        most: of `MatchRule`.
        weight: of `score_matches`.
    """
    depth = max(0, min(similarities.shape[1], most - 1))
    near = similarities[:, :depth].astype(np.float64)
    hits = 1 + np.cumsum(is_match[:, :depth], axis=1)
    wrong = np.cumsum(~is_match[:, :depth], axis=1)
    f1 = np.empty((len(near), depth + 1))
    f1[:, 0] = 2 / (1 + sizes)
    f1[:, 1:] = 2 * hits / (hits + weight * wrong + sizes[:, None])
    forced = min(at_least - 1, depth)
    f1[:, :forced] = f1[:, [forced]]  # shorter lists are filled up to this one
    start = f1[:, 0].sum()
    if not near.size:
        return FittedThreshold(1.0, float(start / max(1, len(near))))
    order = np.argsort(-near, axis=None, kind="stable")
    ordered = near.ravel()[order]
    sums = start + np.cumsum(np.diff(f1, axis=1).ravel()[order])
    ends = np.flatnonzero(np.append(np.diff(ordered) < 0, True))  # equal similarities are passed together
    sums = np.round(np.concatenate([[start], sums[ends]]) / len(near), _DIGITS)
    best = int(sums.argmax())
    levels = ordered[ends]
    if best == 0:
        threshold = np.nextafter(levels[0], np.inf)
    elif best == len(levels):
        threshold = levels[-1]
    else:
        threshold = (levels[best - 1] + levels[best]) / 2
    return FittedThreshold(float(threshold), float(sums[best]))
