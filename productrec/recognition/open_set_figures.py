"""Open-set figures: how many known products are named at few false accepts, as far as that can be told, and a curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from productrec.metrics.intervals import compute_intervals
from productrec.recognition.open_set import TOLD_FROM, OpenSetAnswers, compute_open_set_curve, is_measurable

FALSE_ACCEPTS = (0.01, 0.001)
_CURVE_POINTS = 500


@dataclass(frozen=True)
class OpenSetFigures:
    """What a score tells known products from unknown ones by.

    ``score``: see `list_scores`; ``known`` and ``unknown``: queries that it was measured on; ``true_accepts``: by
    share of false accepts, the share of known queries that are believed and named right, None where so few false
    accepts cannot be told (see `is_measurable`); ``intervals``: 95 %, by the same; ``curve``: thresholds descending,
    true and false accepts of each.
    """

    score: str
    known: int
    unknown: int
    true_accepts: dict[float, float | None]
    intervals: dict[float, tuple[float, float]]
    curve: tuple[np.ndarray, np.ndarray, np.ndarray]

    def describe(self) -> dict[str, Any]:
        """As plain values, without the curve."""
        return {
            "score": self.score,
            "known": self.known,
            "unknown": self.unknown,
            "true_accepts": {str(share): value for share, value in self.true_accepts.items()},
            "intervals": {str(share): list(ends) for share, ends in self.intervals.items()},
        }

    def list_curve(self) -> list[tuple[float, float, float]]:
        """Rows of the curve as they are kept: evenly chosen ones, the first and the last among them."""
        count = len(self.curve[0])
        rows = np.unique(np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(np.int64))
        return [
            (float(one), float(true), float(false))
            for one, true, false in zip(*(c[rows] for c in self.curve), strict=True)
        ]


def measure_open_set(seen: OpenSetAnswers, score: str, *, draws: int = 1000, seed: int = 0) -> OpenSetFigures:
    """True accepts at few false accepts: the detection and identification rate of Phillips et al. 2011.

    Args:
        seen: answers, with some classes hidden in turn.
        score: see `list_scores`.
        draws: of the bootstrap over queries, each with all its turns; 0 for no intervals.
        seed: decides every draw.
    """
    values, is_unknown = seen.scores[score], seen.is_unknown
    unknown = len(np.unique(seen.queries[is_unknown]))  # one that is unknown in every turn tells no more than one
    shares = [share for share in FALSE_ACCEPTS if is_measurable(unknown, share)]
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    # The last of equal values: a threshold lets in all of them or none.
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    queries, right = seen.queries[order], seen.is_right[order]
    others, mine = is_unknown[order], ~is_unknown[order]

    def measure(times: np.ndarray) -> dict[str, float]:
        counted = times[queries]
        false = np.cumsum(counted * others)[ends]
        true = np.cumsum(counted * right)[ends]
        known = (counted * mine).sum()
        if not false[-1] or not known:
            return dict.fromkeys(map(str, shares), float("nan"))
        let_in = {share: np.searchsorted(false, share * false[-1] * (1 + 1e-12), side="right") for share in shares}
        return {str(share): float(true[last - 1] / known) if last else 0.0 for share, last in let_in.items()}

    count = int(seen.queries.max()) + 1
    found = measure(np.ones(count))
    ranges = compute_intervals(measure, count, draws=draws, seed=seed) if draws and shares else {}
    return OpenSetFigures(
        score,
        len(np.unique(seen.queries[~is_unknown])),
        unknown,
        {share: found.get(str(share)) for share in FALSE_ACCEPTS},
        {share: ranges[str(share)] for share in shares if str(share) in ranges},
        compute_open_set_curve(values[~is_unknown], seen.is_right[~is_unknown], values[is_unknown]),
    )


def tell_open_set(values: Mapping[str, Any]) -> str:
    """What `OpenSetFigures.describe` gave, in words."""
    told = []
    for share, value in values["true_accepts"].items():
        at = f"at {100 * float(share):g} % false accepts"
        if value is None:
            told.append(
                f"{at} not measurable ({values['unknown']:,} unknown queries, {TOLD_FROM / float(share):,.0f} needed)"
            )
            continue
        ends = values["intervals"].get(share)
        ranged = "" if ends is None else f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
        told.append(f"{at} {100 * value:.1f} %{ranged} of the known are named right")
    return f"by {values['score']}, {'; '.join(told)}"
