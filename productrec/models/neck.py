"""The neck: features become an embedding of unit norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EmbeddingNeck(nn.Module):
    """Linear, batch norm where that is wanted, unit norm: (B, F) features to (B, D) embeddings."""

    def __init__(self, feature_dim: int, embedding_dim: int, *, batch_norm: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, embedding_dim, bias=False)
        self.norm = nn.BatchNorm1d(embedding_dim) if batch_norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        # In float32: unit norm in bfloat16 would be off by up to half a percent.
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.norm(self.linear(features.float())), dim=1)
