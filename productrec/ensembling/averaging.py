"""Averaging: the mean of embeddings of models that share one space, such as a run's epochs, and whether they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.console import warn
from productrec.ensembling.blend import resolve_weights
from productrec.ensembling.concatenation import BLOCK_ROWS, check_members, normalise_embeddings
from productrec.errors import ArtifactError, describe_offenders
from productrec.retrieval.engine import search_rows

ALIGNED_FROM = 0.5  # agreement of neighbours
_SAMPLE = 2000
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Alignment:
    """How far two models' embeddings lie in one space, measured on a sample.

    ``same``: mean cosine between the two embeddings of one image; ``different``: of two images; ``agreement``: of an
    image's nearest others by the first model, the share that is also found by comparing the first model's embedding of
    it with the second model's of the others. Models that were trained apart have cosines near 0 for both, and agree no
    more than by chance.
    """

    same: float
    different: float
    agreement: float

    @property
    def is_aligned(self) -> bool:
        """Whether their mean means something."""
        return self.agreement >= ALIGNED_FROM and self.same > self.different

    def tell(self) -> str:
        """The figures in words."""
        return (
            f"cosine {self.same:.2f} between embeddings of one image, {self.different:.2f} between those of different "
            f"images; {self.agreement:.0%} of the nearest images are the same across the two"
        )


def measure_alignment(first: np.ndarray, second: np.ndarray, *, sample: int = _SAMPLE, seed: int = 0) -> Alignment:
    """Measure whether two models' embeddings (N, D) of the same images lie in one space.

    Args:
        first, second: of any norm but 0; at least two images.
        sample: images at most, drawn with ``seed``.
        seed: decides the sample.

    Raises:
        ArtifactError: sizes differ, or there are fewer than two images.
    """
    if first.shape != second.shape or len(first) < 2:
        raise ArtifactError(
            f"alignment: embeddings must be of one size and of at least 2 images; got {first.shape} and {second.shape}."
        )
    rows = np.sort(np.random.default_rng(seed).permutation(len(first))[:sample])
    own, other = normalise_embeddings(first[rows]), normalise_embeddings(second[rows])
    count, everyone = len(rows), np.arange(len(rows))
    same = float((own * other).sum(axis=1).mean())
    total = float(own.sum(axis=0, dtype=np.float64) @ other.sum(axis=0, dtype=np.float64))
    different = (total - count * same) / (count * (count - 1))
    k = min(_NEIGHBOURS, count - 1)
    within = search_rows(own, own, k, own_rows=everyone)[0]
    across = search_rows(own, other, k, own_rows=everyone)[0]
    agreement = np.mean([len(np.intersect1d(*pair)) / k for pair in zip(within, across, strict=True)])
    return Alignment(same, different, float(agreement))


def average_embeddings(
    names: Sequence[str],
    ids: Sequence[Sequence[str]],
    embeddings: Sequence[np.ndarray],
    *,
    weights: Sequence[float] | None = None,
    out: np.ndarray | None = None,
    block_rows: int = BLOCK_ROWS,
) -> np.ndarray:
    """The weighted mean of unit rows, brought to unit norm again: for models whose spaces are aligned.

    A warning with the figures of `measure_alignment` is given where a member is not aligned with the first one.

    Args:
        names: of the V members.
        ids: each member's image ids.
        embeddings: V arrays (N, D), memory maps welcome.
        weights: (V,) from 0; equal where None.
        out: (N, D) float32 to write to; a new array where None.
        block_rows: rows held in memory at a time.

    Returns:
        ``out``.

    Raises:
        ArtifactError: sizes or ids differ, the weights do not fit, a row is not finite or is zero, or a mean is zero.
    """
    sizes = {name: rows.shape[1] for name, rows in zip(names, embeddings, strict=True)}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ArtifactError(
            f"average: embeddings must be of one size; got {told}. Concatenate them, which takes any sizes."
        )
    check_members(names, ids, embeddings)
    shares = resolve_weights(names, weights)
    if len(ids[0]) > 1:
        for name, rows in zip(names[1:], embeddings[1:], strict=True):
            measured = measure_alignment(embeddings[0], rows)
            if not measured.is_aligned:
                warn(
                    f"{name} and {names[0]} do not embed into one space ({measured.tell()}): their mean says less than "
                    "either. Concatenate them, or multiply their similarities."
                )
    if out is None:
        out = np.empty(embeddings[0].shape, np.float32)
    bad = list[int]()
    for start in range(0, len(out), block_rows):
        block = slice(start, start + block_rows)
        mean = sum(
            np.float32(share) * normalise_embeddings(rows[block])
            for share, rows in zip(shares, embeddings, strict=True)
        )
        norms = np.linalg.norm(mean, axis=1, keepdims=True)
        bad += (start + np.flatnonzero(norms[:, 0] < 1e-6)).tolist()
        out[block] = mean / np.maximum(norms, 1e-12)
    if bad:
        raise ArtifactError(
            f"average: members must not cancel each other out; {describe_offenders(ids[0][row] for row in bad)} do. "
            "Concatenate them."
        )
    return out
