"""Moving average of the weights, which is smoother than any single step's and often recognises better."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of parameters; buffers (batch norm statistics) are averaged alike.

    The decay grows with the step as (1 + step) / (10 + step) up to its value, so that the random start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        mine, theirs = self.network.state_dict(), network.state_dict()
        # Tied weights stand under several names, and move once.
        apart = {(tensor.data_ptr(), tensor.shape): name for name, tensor in mine.items()}.values()
        pairs = [(mine[name], theirs[name].detach()) for name in apart]
        self._floats = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        self._counters = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network's weights after optimiser step number ``step`` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([mine for mine, _ in self._floats], [theirs for _, theirs in self._floats], 1 - decay)
        for mine, theirs in self._counters:
            mine.copy_(theirs)
