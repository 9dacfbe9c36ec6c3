"""A small transformer over subword embeddings: the light text encoder that reads all of a title at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from productrec.models.text.pooling import average_tokens, mark_tokens


class TransformerEncoder(nn.Module):
    """Subword embeddings with learned positions, blocks with the norm in front, and the mean over a title's subwords.

    Sources: Vaswani et al. 2017 (arXiv 1706.03762); the norm in front of each block, which needs no warm-up of its
    own: Xiong et al. 2020 (arXiv 2002.04745).
    """

    def __init__(
        self, vocabulary_size: int, width: int, layers: int, heads: int, dropout: float, max_tokens: int
    ) -> None:
        super().__init__()
        self.feature_dim = width
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Parameter(torch.empty(max_tokens, width))
        for table in (self.embedding.weight, self.positions):
            nn.init.normal_(table, std=0.02)
        self.dropout = nn.Dropout(dropout)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) subwords of which ``lengths`` (B,) count, to (B, F) features; what fills a row up changes nothing."""
        is_token = mark_tokens(ids, lengths)
        embedded = self.dropout(self.embedding(ids) + self.positions[: ids.shape[1]])
        return average_tokens(self.blocks(embedded, src_key_padding_mask=~is_token), is_token)
