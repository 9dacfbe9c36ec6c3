"""Validation during training: figures of a network on held-out images, head and embedding apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from productrec.data.dataset import ViewBatch
from productrec.metrics.classification import compute_top_k_error
from productrec.metrics.retrieval import compute_self_retrieval
from productrec.models.inference import recognise_views


def validate_network(
    network: nn.Module,
    loader: Iterable[ViewBatch],
    labels: np.ndarray,
    class_ids: np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Top-1 accuracy and top-3 error of the head, Recall@1 and MAP@R of the embedding among the validation images.

    Args:
        network: a recognizer; left in the mode it was in.
        loader: plain views of N images.
        labels: (N,) class ids, also ones the network does not know.
        class_ids: (C,) class ids in the order of the logits.
        device: where to compute.
        dtype: of activations.

    Returns:
        ``top_1_accuracy``, ``top_3_error``, ``recall@1`` and ``map@r``, fractions, of the images that can be read.
    """
    kept, embeddings, values = recognise_images(network, loader, device=device, dtype=dtype)
    known = labels[kept]
    figures = {
        "top_1_accuracy": 1.0 - compute_top_k_error(values, class_ids, known, 1),
        "top_3_error": compute_top_k_error(values, class_ids, known, 3),
    }
    return figures | compute_self_retrieval(embeddings, known)


def recognise_images(
    network: nn.Module, loader: Iterable[ViewBatch], *, device: torch.device, dtype: torch.dtype
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Rows (N,) of the images that can be read, their embeddings (N, D) and logits (N, C) through the plain view.

    The network is left in the mode it was in.
    """
    was_training = network.training
    network.eval()
    embeddings: list[Tensor] = []
    logits: list[Tensor] = []
    kept: list[int] = []
    for batch in loader:
        plain, _ = recognise_views(network, batch.cuts, [(0, False)], device=device, dtype=dtype)
        good = [place for place, row in enumerate(batch.rows.tolist()) if row not in batch.broken]
        embeddings.append(plain.embeddings[good])
        logits.append(plain.logits[good])
        kept += batch.rows[good].tolist()
    network.train(was_training)
    return kept, torch.cat(embeddings).numpy(), torch.cat(logits).numpy()
