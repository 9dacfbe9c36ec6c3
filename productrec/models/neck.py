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

    def split(self, parts: Tensor) -> Tensor:
        """The embedding of features that are a sum of parts, as a sum of as many: (B, P, F) to (B, P, D).

        In evaluation the batch norm multiplies and adds; what it adds is no part's own and is given to all alike.
        """
        projected = self.linear(parts.float())
        if isinstance(self.norm, nn.BatchNorm1d):
            zero = torch.zeros(1, projected.shape[2], device=parts.device)
            added = self.norm(zero)
            projected = projected * (self.norm(zero + 1) - added) + added / parts.shape[1]
        length: Tensor = projected.sum(dim=1, keepdim=True).norm(dim=2, keepdim=True)
        embeddings: Tensor = projected / length.clamp(min=1e-12)
        return embeddings
