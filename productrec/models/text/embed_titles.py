"""Titles to embeddings, many at a time: each different title once, those of one length together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from productrec.models.text.tokens import Tokeniser
from productrec.models.text.tower import TextTower
from productrec.runtime import autocast


def embed_titles(
    tower: TextTower,
    tokeniser: Tokeniser,
    titles: Sequence[str],
    *,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> NDArray[np.float32]:
    """Embed titles.

    Equal titles are embedded once, so that their embeddings are equal to the bit. Batches are of similar lengths, so
    that little is computed for what fills rows up.

    Args:
        tower: on ``device``; it computes in evaluation mode, and is left in the mode that it had.
        tokeniser: the tower's own.
        titles: N, none of them blank.
        batch_size: titles at a time.
        device: where to compute.
        dtype: of activations.

    Returns:
        (N, D) of unit norm, in the order of the titles.

    Raises:
        DataError: a title is blank.
    """
    places: dict[str, int] = {}
    rows = [places.setdefault(title, len(places)) for title in titles]
    tokens = tokeniser.encode(list(places), tower.max_tokens)
    order = torch.argsort(tokens.lengths, stable=True)
    embeddings = torch.empty(len(places), tower.neck.linear.out_features)
    was_training = tower.training
    tower.eval()
    try:
        with torch.inference_mode(), autocast(device, dtype):
            for batch in torch.split(order, batch_size) if len(order) else ():
                part = tokens.take(batch)
                ids = part.ids.to(device, non_blocking=True)
                embeddings[batch] = tower(ids, part.lengths).cpu()
    finally:
        tower.train(was_training)
    return embeddings.numpy()[rows]
