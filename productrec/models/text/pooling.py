"""Pooling of subwords: which of a row count, and their mean."""

from __future__ import annotations

import torch
from torch import Tensor


def mark_tokens(ids: Tensor, lengths: Tensor) -> Tensor:
    """(B, L) bool, where the subwords ``ids`` (B, L) of titles of ``lengths`` (B,) are their own and no filling."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths.to(ids.device)[:, None]


def average_tokens(features: Tensor, is_token: Tensor) -> Tensor:
    """Mean (B, F) float32 of the features (B, L, F) where ``is_token`` (B, L); each row has at least one."""
    counted = features.float().masked_fill(~is_token[..., None], 0.0)
    return counted.sum(dim=1) / is_token.sum(dim=1, keepdim=True)
