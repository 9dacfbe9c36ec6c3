"""Distractors: images of no product that is known, which a query of an unknown product may resemble."""

from __future__ import annotations

import numpy as np

_BLOCK_DISTRACTORS = 16_384


def compare_distractors(queries: np.ndarray, distractors: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Similarity (Q,) float32 of each query to the nearest distractor; -1 where there is none.

    A query's similarity to images of no class tells how little what is near to it is to be believed: Henkel and Singer,
    *Supporting Large-Scale Image Recognition with Out-of-Domain Samples*, 2020 (arXiv 2010.01650), who do so for
    landmarks.

    Args:
        queries: (Q, D) of unit norm.
        distractors: (M, D) of unit norm; may be a memory map.
        own: (Q,) the distractor that each query is itself, which it is not compared with; None where none is.
    """
    nearest = np.full(len(queries), -1.0, dtype=np.float32)
    asked = np.asarray(queries, dtype=np.float32)
    for start in range(0, len(distractors), _BLOCK_DISTRACTORS):
        block = np.asarray(distractors[start : start + _BLOCK_DISTRACTORS], dtype=np.float32)
        similarities = asked @ block.T
        if own is not None:
            rows = np.flatnonzero((own >= start) & (own < start + len(block)))
            similarities[rows, own[rows] - start] = -1.0
        np.maximum(nearest, similarities.max(axis=1), out=nearest)
    return nearest
