"""Blending: the weighted mean of several models' class probabilities, refused where they differ in what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from productrec.errors import ArtifactError, describe_offenders


def check_same_order(names: Sequence[str], orders: Sequence[Sequence[object]], what: str) -> None:
    """Refuse members whose image ids or class order differ from the first one's.

    Args:
        names: of the members.
        orders: each member's ids or classes, in order.
        what: ``"image ids"`` or ``"class order"``.

    Raises:
        ArtifactError: naming the member and what differs.
    """
    first = list(orders[0])
    for name, order in zip(names[1:], orders[1:], strict=True):
        if list(order) == first:
            continue
        unlike = sorted(set(map(str, order)) ^ set(map(str, first)))
        detail = (
            f"{describe_offenders(unlike)} stand in only one of them"
            if unlike
            else "the same ones stand in another order"
        )
        raise ArtifactError(
            f"ensemble: {what} must be equal; {name} differs from {names[0]}: {detail}. "
            "Combine runs that were trained and predicted on one image table."
        )


def resolve_weights(names: Sequence[str], weights: Sequence[float] | None) -> np.ndarray:
    """Weights (V,) that sum to 1; equal ones where none are given.

    Raises:
        ArtifactError: their number is not the members', one is below zero or not finite, or none is above zero.
    """
    values = np.ones(len(names)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(values) != len(names) or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ArtifactError(
            f"ensemble: weights must be {len(names)} finite numbers from 0, not all 0, one for each of "
            f"{', '.join(names)}; got {values.tolist()}."
        )
    relative = values / values.max()  # whose sum is at most their number
    shares: np.ndarray = relative / relative.sum()
    return shares


def blend_probabilities(
    members: Sequence[np.ndarray], weights: np.ndarray, out: np.ndarray, *, block_rows: int = 4096
) -> None:
    """Weighted arithmetic mean, block by block.

    Args:
        members: V arrays (N, C), memory maps welcome.
        weights: (V,) that sum to 1.
        out: (N, C) to write to.
        block_rows: rows held in float32 at a time.
    """
    for start in range(0, len(out), block_rows):
        block = np.zeros(out[start : start + block_rows].shape, dtype=np.float32)
        for member, weight in zip(members, weights, strict=True):
            block += np.float32(weight) * member[start : start + block_rows]
        out[start : start + block_rows] = block
