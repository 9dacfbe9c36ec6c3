"""Pooling: a feature map becomes one vector."""

import torch
from torch import Tensor, nn

_FLOOR = 1e-6


def compute_gem_pooling(features: Tensor, power: Tensor | float, *, floor: float = _FLOOR) -> Tensor:
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
        return compute_gem_pooling(features, self._limit_power())

    def split(self, features: Tensor) -> Tensor:
        """What each position has brought, (B, C, H, W) float32, which sum to what `forward` gives.

        A position has its share in the sum of powers: its value times the derivative by it. Positions do not add up in
        the mean itself, so that this is the first order of what leaving one out would change.
        """
        power = self._limit_power()
        powers = features.float().clamp(min=_FLOOR).pow(power)
        pooled = compute_gem_pooling(features, power)
        return pooled[:, :, None, None] * powers / powers.sum(dim=(2, 3), keepdim=True)

    def _limit_power(self) -> Tensor:
        """The power, where the root is well behaved, however far the optimiser has pushed it."""
        return self.power.clamp(1.0, 20.0)


class AveragePooling(nn.Module):
    """Mean over positions, in float32."""

    def forward(self, features: Tensor) -> Tensor:
        return features.float().mean(dim=(2, 3))

    def split(self, features: Tensor) -> Tensor:
        """What each position has brought, (B, C, H, W) float32, which sum to what `forward` gives; exact."""
        return features.float() / (features.shape[2] * features.shape[3])
