"""Settings of a single opinion, tried one by one: what each answers, and which is best by some queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from productrec.metrics.answers import Answers
from productrec.recognition.objective import Objective
from productrec.recognition.vote import Vote


@dataclass(frozen=True)
class Ways:
    """The settings of a single part that were tried, and what each answers to all queries."""

    settings: list[Any]
    answers: list[Answers]

    def choose(self, rows: np.ndarray, objective: Objective) -> int:
        """Number of the best by some queries: the smallest errors, then the smallest log-loss."""
        seen = [answers.take(rows) for answers in self.answers]
        return min(
            range(len(seen)), key=lambda one: (objective.judge(seen[one]), float(seen[one].log_loss.mean()), one)
        )

    def calibrate(self, rows: np.ndarray) -> int:
        """Number of the one with the smallest log-loss."""
        return min(range(len(self.answers)), key=lambda one: float(self.answers[one].log_loss[rows].mean()))


def list_votes(k_grid: Sequence[int], power_grid: Sequence[float], most: int) -> list[Vote]:
    """The votes tried of up to ``most`` neighbours: every power with every number of them, and a few others."""
    votes = [
        Vote(k, "power", power)
        for k in dict.fromkeys(min(k, most) for k in k_grid)
        for power in dict.fromkeys(power_grid)
    ]
    wide = max((vote.k for vote in votes), default=most)
    votes += [Vote(wide, "softmax", 10.0), Vote(wide, "softmax", 30.0), Vote(wide, "rank", 1.0)]
    return [*votes, Vote(wide, "power", 16.0, "max"), Vote(min(5, most), "power", 4.0, "mean")]
