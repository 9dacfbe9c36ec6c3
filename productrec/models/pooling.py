"""Pooling: a feature map becomes one vector."""

import torch
from torch import Tensor, nn


def compute_gem_pooling(features: Tensor, power: Tensor | float, *, floor: float = 1e-6) -> Tensor:
    """Generalised mean over positions (Radenovic et al. 2018, arXiv 1711.02512, eq. 3).

    Args:
        features: (B, C, H, W); values under ``floor`` count as ``floor``.
        power: 1 is average pooling, towards infinity it becomes max pooling.
        floor: keeps the root's gradient finite.

    Returns:
        (B, C) float32.
    """
    values = features.float().clamp(min=floor)
    return values.pow(power).mean(dim=(2, 3)).pow(1.0 / power)


class GeMPooling(nn.Module):
    """`compute_gem_pooling` with a learned power."""

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(float(power)))

    def forward(self, features: Tensor) -> Tensor:
        # The power stays where the root is well behaved, however far the optimiser pushes it.
        return compute_gem_pooling(features, self.power.clamp(1.0, 20.0))


class AveragePooling(nn.Module):
    """Mean over positions, in float32."""

    def forward(self, features: Tensor) -> Tensor:
        return features.float().mean(dim=(2, 3))
