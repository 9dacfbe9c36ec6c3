"""The tally of an epoch: means of losses, counts and newest figures, part of the state so that a resume goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Tally:
    """Adds up what the steps of an epoch say, on the device, without waiting for it."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._newest: dict[str, float] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """Losses of a step that was taken; a mixed batch has no metric term."""
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._steps[name] = self._steps.get(name, 0) + 1

    def count(self, name: str) -> None:
        """Something happened once more."""
        self._counts[name] = self._counts.get(name, 0) + 1

    def note(self, name: str, value: float) -> None:
        """A figure whose newest value stands for the epoch."""
        self._newest[name] = value

    def take(self) -> dict[str, float]:
        """The epoch's figures: means as ``train_NAME``, counts, newest figures; and begin anew."""
        figures = {f"train_{name}": float(total) / self._steps[name] for name, total in self._sums.items()}
        figures |= {name: float(count) for name, count in self._counts.items()} | self._newest
        self._begin()
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "sums": dict(self._sums),
            "steps": dict(self._steps),
            "counts": dict(self._counts),
            "newest": dict(self._newest),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up what `state_dict` gave."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._steps, self._counts, self._newest = dict(state["steps"]), dict(state["counts"]), dict(state["newest"])
