"""Where a similarity comes from: the share of each cell of an image in the inner product of two embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from productrec.errors import DataError
from productrec.models.recognizer import Recognizer


@torch.inference_mode()
def split_embeddings(network: Recognizer, images: Tensor) -> Tensor:
    """Embeddings as sums over the cells of the feature map, those of Stylianou et al., WACV 2019, for any pooling.

    With average pooling and a linear neck each cell's part is exactly what the cell brings. With GeM pooling it is the
    first order (see `GeMPooling.split`); what a batch norm adds is spread evenly. The sum over cells is the embedding
    always.

    Args:
        network: in evaluation mode.
        images: (B, S, S, 3) uint8 RGB.

    Returns:
        (B, H, W, D) float32, H by W the feature map; H = W = 1 for a backbone that keeps no map.
    """
    maps = network.extract_maps(images)
    height, width = maps.shape[2:]
    cells = network.pooling.split(maps).flatten(2).transpose(1, 2)  # type: ignore[operator]
    parts: Tensor = network.neck.split(cells)  # type: ignore[operator]
    return parts.reshape(len(images), height, width, -1)


def compute_similarity_shares(
    network: Recognizer, squares: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]], *, batch_size: int = 16
) -> list[np.ndarray]:
    """Shares (H, W) float32 of each cell of an image in its similarity to another; they sum to that similarity.

    Args:
        network: in evaluation mode, on the CPU.
        squares: (S, S, 3) uint8 RGB each, as the network saw them for the plain view.
        pairs: numbers of two images: whose cells, and similar to which.
        batch_size: images at a time.

    Raises:
        DataError: an image is no square of three channels, or is of another size than the first.
    """
    shapes = {square.shape for square in squares}
    if len(shapes) > 1 or any(len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 for shape in shapes):
        raise DataError(f"similarity shares: squares must be (S, S, 3) of one size; got {sorted(shapes)}.")
    parts = [
        split_embeddings(network, torch.from_numpy(np.stack(squares[start : start + batch_size])))
        for start in range(0, len(squares), batch_size)
    ]
    cells = torch.cat(parts) if parts else torch.empty(0, 1, 1, 1)
    embeddings = cells.sum(dim=(1, 2))
    return [(cells[whose] @ embeddings[other]).numpy() for whose, other in pairs]
