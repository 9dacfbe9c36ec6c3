"""Concatenation: several models' embeddings as one, whose inner product is the weighted mean of their similarities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from productrec.ensembling.blend import check_same_order, resolve_weights
from productrec.errors import ArtifactError, describe_offenders

BLOCK_ROWS = 16_384


def check_members(names: Sequence[str], ids: Sequence[Sequence[str]], embeddings: Sequence[np.ndarray]) -> None:
    """Refuse members that are not of the same images in the same order, or that have a row without a direction.

    Args:
        names: of the V members.
        ids: each member's image ids.
        embeddings: V arrays (N, D_m) of their own sizes, memory maps welcome; they are read in blocks.

    Raises:
        ArtifactError: naming the member and the images.
    """
    check_same_order(names, ids, "image ids")
    for name, own, rows in zip(names, ids, embeddings, strict=True):
        if rows.ndim != 2 or len(rows) != len(own):
            raise ArtifactError(
                f"{name}: embeddings must be one row for each of {len(own)} images; got shape {rows.shape}. Embed them "
                "again."
            )
        bad = list[int]()
        for start in range(0, len(rows), BLOCK_ROWS):
            norms = np.linalg.norm(np.asarray(rows[start : start + BLOCK_ROWS], dtype=np.float64), axis=1)
            bad += (start + np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))).tolist()
        if bad:
            raise ArtifactError(
                f"{name}: embeddings must be finite and not zero; {describe_offenders(own[row] for row in bad)} are "
                "not. Embed them again with a checkpoint that is sound."
            )


def normalise_embeddings(rows: np.ndarray) -> np.ndarray:
    """Embeddings (B, D) as float32 of unit norm."""
    values = np.asarray(rows, dtype=np.float32)
    norms: np.ndarray = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / norms
    return unit


def concatenate_embeddings(
    names: Sequence[str],
    ids: Sequence[Sequence[str]],
    embeddings: Sequence[np.ndarray],
    *,
    weights: Sequence[float] | None = None,
    out: np.ndarray | None = None,
    block_rows: int = BLOCK_ROWS,
) -> np.ndarray:
    """Unit rows whose inner product is the weighted mean of the members' cosine similarities.

    Each member's rows are brought to unit norm and scaled by sqrt(w_m / sum w), then put side by side.

    Args:
        names: of the V members.
        ids: each member's image ids.
        embeddings: V arrays (N, D_m), whose sizes may differ, memory maps welcome.
        weights: (V,) from 0, one a member; equal where None. The columns of a member of weight 0 are zeros.
        out: (N, sum of D_m) float32 to write to, such as a memory map; a new array where None.
        block_rows: rows held in memory at a time.

    Returns:
        ``out``.

    Raises:
        ArtifactError: ids differ, a row is not finite or is zero, the weights do not fit, or ``out`` has another shape.
    """
    check_members(names, ids, embeddings)
    shares = resolve_weights(names, weights)
    shape = (len(ids[0]), sum(rows.shape[1] for rows in embeddings))
    if out is None:
        out = np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32:
        raise ArtifactError(
            f"concatenation: out must be float32 of shape {shape}; got {out.dtype} of shape {out.shape}."
        )
    for start in range(0, shape[0], block_rows):
        block = slice(start, start + block_rows)
        out[block] = join_parts([rows[block] for rows in embeddings], shares)
    return out


def join_parts(parts: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """V blocks (B, D_m) side by side, each of unit norm times the root of its share (V,) of 1."""
    scales = np.sqrt(shares).astype(np.float32)
    return np.concatenate(
        [scale * normalise_embeddings(part) for part, scale in zip(parts, scales, strict=True)], axis=1
    )
