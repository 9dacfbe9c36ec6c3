"""Calibration: whether answers that are said to be right with some probability are right as often as that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from productrec.errors import DataError
from productrec.metrics.wilson import compute_wilson_interval

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of like confidence: its mean, the share that is right with its 95 % interval, and how many they are."""

    confidence: float
    accuracy: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """A calibration curve: its bins, the least confident first, and the expected calibration error.

    ``error``: mean over all answers of how far their bin's mean confidence is from its accuracy.
    """

    bins: tuple[ReliabilityBin, ...]
    error: float

    @property
    def count(self) -> int:
        """Answers in all."""
        return sum(one.count for one in self.bins)

    @property
    def confidence(self) -> float:
        """Mean confidence of all answers."""
        return sum(one.confidence * one.count for one in self.bins) / self.count

    @property
    def accuracy(self) -> float:
        """Share of all answers that is right."""
        return sum(one.accuracy * one.count for one in self.bins) / self.count

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {"error": self.error, "bins": [asdict(one) for one in self.bins]}

    def tell(self) -> str:
        """In words."""
        return (
            f"mean confidence {100 * self.confidence:.1f} %, accuracy {100 * self.accuracy:.1f} %, expected "
            f"calibration error {100 * self.error:.1f} % ({len(self.bins)} bins of {self.count:,} answers)"
        )


def build_reliability(values: dict[str, Any]) -> Reliability:
    """A calibration curve from what `Reliability.describe` gave."""
    return Reliability(tuple(ReliabilityBin(**one) for one in values["bins"]), float(values["error"]))


def compute_reliability(confidence: np.ndarray, is_right: np.ndarray, *, bins: int = BINS) -> Reliability:
    """The calibration curve of answers, in bins of equally many, and their expected calibration error.

    The error is that of Guo et al., ICML 2017, section 2; bins of equal count are those of Nguyen and O'Connor, EMNLP
    2015, and keep bins from being empty where a network is sure of nearly all. Answers of equal confidence stand in the
    order they are given, so that a bin's edge may run between them. Of few answers even perfect ones have an error
    above 0: of n a bin about 0.4 / sqrt(n) at an accuracy of one half.

    Args:
        confidence: (N,) in [0, 1].
        is_right: (N,) bool.
        bins: at most; of fewer answers one each.

    Raises:
        DataError: no answers, not one confidence an answer, or one that is no probability.
    """
    if not len(confidence) or confidence.shape != is_right.shape or bins < 1:
        raise DataError(
            f"calibration: confidence and is_right must be (N,) of at least one answer, and bins at least 1; got "
            f"shapes {confidence.shape} and {is_right.shape}, and {bins}. Take both from the same answers."
        )
    if not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):
        raise DataError(
            f"calibration: confidence must be in [0, 1]; got {confidence.min()} to {confidence.max()}. "
            "Take probabilities, not logits or similarities."
        )
    order = np.argsort(confidence, kind="stable")
    found = []
    for rows in np.array_split(order, min(bins, len(order))):
        accuracy = float(is_right[rows].mean())
        found.append(
            ReliabilityBin(
                float(confidence[rows].mean()), accuracy, *compute_wilson_interval(accuracy, len(rows)), len(rows)
            )
        )
    error = sum(abs(one.accuracy - one.confidence) * one.count for one in found) / len(order)
    return Reliability(tuple(found), float(error))
