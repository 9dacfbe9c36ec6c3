"""A bidirectional GRU over subword embeddings: the light text encoder of the visual-semantic embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class GRUEncoder(nn.Module):
    """Subword embeddings and a bidirectional GRU; a title's features are the mean of both directions' last states.

    Source: Faghri et al. 2018, VSE++ (arXiv 1707.05612, section 3), whose GRU reads forwards alone; the mean of both
    directions is that of Lee et al. 2018 (arXiv 1803.08024). Embeddings are as wide as states, and of subwords.
    """

    def __init__(self, vocabulary_size: int, width: int, layers: int, dropout: float) -> None:
        """``dropout``: of embeddings, and between layers."""
        super().__init__()
        self.feature_dim = width
        self.embedding = nn.Embedding(vocabulary_size, width)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)  # as VSE++ has it
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(
            width, width, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) subwords of which ``lengths`` (B,) count, to (B, F) features; what fills a row up changes nothing."""
        embedded = self.dropout(self.embedding(ids))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)  # (layers x 2, B, F), in the batch's own order
        return torch.mean(last[-2:].float(), dim=0)
