"""Images of one group, such as the pictures of one listing, show one product, and so answer together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from productrec.recognition.vote import normalise_rows

ALONE = -1
_TINY = 1e-30  # below it a probability counts as this, since the logarithm of none is infinite


def number_groups(names: Sequence[object]) -> np.ndarray:
    """A number from 0 for each group of at least two images, (N,) int64; `ALONE` for every other image.

    Args:
        names: (N,) the group's name, for each image; anything but text is none.
    """
    texts = [name if isinstance(name, str) and name else "" for name in names]
    unique, numbers, counts = np.unique(np.array(texts, dtype=object), return_inverse=True, return_counts=True)
    is_group = (counts > 1) & (unique != "")
    renumbered = np.where(is_group, np.cumsum(is_group) - 1, ALONE)
    groups: np.ndarray = renumbered[numbers.reshape(-1)].astype(np.int64)
    return groups


def pool_groups(
    values: np.ndarray,
    groups: np.ndarray | None,
    power: float,
    *,
    silent: np.ndarray | None = None,
    block_rows: int = 4096,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw each image's probabilities to those of its group, a block of rows at a time.

    p'(c|x) is proportional to p(c|x)^(1 - power) g(c)^power, where g is the geometric mean over the group, the
    logarithmic opinion pool (Genest and Zidek, Statistical Science 1(1), 1986). The mean, not the product: pictures of
    one listing are much alike, and a product would take them for as many independent witnesses.

    Args:
        values: (N, C) rows sum to 1, a memory map welcome.
        groups: (N,) a number from 0 for each group, `ALONE` for an image of none; None for no groups.
        power: from 0 (each image by itself, unchanged) to 1 (all images of a group answer alike).
        silent: (N,) bool, images of which nothing is known: they have no say, and their group answers for them.
        block_rows: rows that are held at a time; groups may be larger and lie anywhere.

    Yields:
        Rows (n,) and their probabilities (n, C) float32; every row of ``values`` once, in no order.
    """
    if groups is None or not power:
        groups = np.full(len(values), ALONE)
    alone = np.flatnonzero(groups < 0)
    for start in range(0, len(alone), block_rows):
        rows = alone[start : start + block_rows]
        yield rows, np.array(values[rows], dtype=np.float32)
    together = np.flatnonzero(groups >= 0)
    order = together[np.argsort(groups[together], kind="stable")]
    for first, last in _pack(groups[order], block_rows):
        yield from _pool(values, order[first:last], groups, power, silent, block_rows)


def _pack(numbers: np.ndarray, block_rows: int) -> Iterator[tuple[int, int]]:
    """Bounds of whole groups (ascending ``numbers``), together at most ``block_rows`` or a single larger one."""
    ends = np.append(np.flatnonzero(np.diff(numbers)) + 1, len(numbers)).tolist() if len(numbers) else []
    first = last = 0
    for end in ends:
        if end - first > block_rows and last > first:
            yield first, last
            first = last
        last = end
    if last > first:
        yield first, last


def _pool(
    values: np.ndarray,
    rows: np.ndarray,
    groups: np.ndarray,
    power: float,
    silent: np.ndarray | None,
    block_rows: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pool whole groups; of one that is larger than a block, the mean is made first."""
    starts = np.append(0, np.flatnonzero(np.diff(groups[rows])) + 1)
    members = np.diff(np.append(starts, len(rows)))
    speaks = np.ones(len(rows)) if silent is None else (~silent[rows]).astype(np.float64)
    counts = np.add.reduceat(speaks, starts)
    own_groups = np.repeat(np.arange(len(starts)), members)
    totals = np.zeros((len(starts), values.shape[1]))
    blocks = [slice(start, start + block_rows) for start in range(0, len(rows), block_rows)]
    logs = np.empty(0)
    for block in blocks:  # several only of a single group
        logs = np.log(np.maximum(np.asarray(values[rows[block]], dtype=np.float32), np.float32(_TINY)))
        totals += np.add.reduceat(logs * speaks[block, None], starts if len(blocks) == 1 else [0], axis=0)
    means = (totals / np.maximum(counts, 1)[:, None]).astype(np.float32)
    for block in blocks:
        if len(blocks) > 1:
            logs = np.log(np.maximum(np.asarray(values[rows[block]], dtype=np.float32), np.float32(_TINY)))
        own = own_groups[block]
        shares = np.where(speaks[block] > 0, power, 1.0)
        shares[counts[own] == 0] = 0.0  # nobody of the group knows anything
        share = shares.astype(np.float32)[:, None]
        mixed = (1 - share) * logs + share * means[own]
        yield rows[block], normalise_rows(np.exp(mixed - mixed.max(axis=1, keepdims=True)))
