"""Pairs of near hashes among very many, exactly: by buckets that any near pair must share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from productrec.errors import DataError

_WIDEST_BAND = 20  # bits, so that a table of all keys fits the cache
_CANDIDATE_COST = 10  # comparing one gathered candidate, in units of one pair of a dense block
_CHUNK = 1 << 21  # candidates compared at once


def find_duplicate_pairs(hashes: np.ndarray, most_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of hashes that differ in at most ``most_bits`` bits, none missed.

    Multi-index hashing (Norouzi, Punjani, Fleet 2012): of m bands of bits, hashes that differ in r bits differ in at
    most r // m of one band, so that buckets of near-equal bands hold every pair. Where buckets would be so large that
    this saves nothing, all pairs are compared.

    Args:
        hashes: (N, W) uint64.
        most_bits: 0 to 64 W.

    Returns:
        Rows (P, 2) int64, the smaller first, and how many bits differ (P,) int64, ascending. Of equal hashes only the
        first is compared with others; the rest are paired with it, so that many equal hashes give one pair each.

    Raises:
        DataError: the hashes are not (N, W) uint64, or ``most_bits`` is negative.
    """
    if hashes.ndim != 2 or hashes.dtype != np.uint64 or most_bits < 0:
        raise DataError(
            "duplicates: hashes must be (N, W) uint64 and most_bits at least 0; "
            f"got {hashes.shape} {hashes.dtype} and {most_bits}."
        )
    distinct, first, inverse = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    leaders = first[inverse.reshape(-1)]
    followers = np.flatnonzero(leaders != np.arange(len(hashes)))
    near, distances = _find_near(distinct, most_bits)
    rows = np.concatenate([np.stack([leaders[followers], followers], 1), np.sort(first[near], axis=1)])
    bits = np.concatenate([np.zeros(len(followers), np.int64), distances])
    order = np.lexsort((rows[:, 1], rows[:, 0], bits))
    return rows[order], bits[order]


def _find_near(hashes: np.ndarray, most_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (P, 2) of distinct hashes (N, W) within ``most_bits``, and their distances (P,)."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    least = -(-bits.shape[1] // _WIDEST_BAND)
    # At most what a plan costs: by Cauchy and Schwarz, no two sets of buckets meet more often than each meets itself.
    costs = {
        bands: sum(
            sum(math.comb(width, flips) for flips in range(radius + 1))
            * ((np.bincount(keys).astype(float) ** 2).sum() / 2 + len(keys))
            for keys, width, radius in _split_bands(bits, bands, most_bits)
        )
        for bands in range(least, least + 3)
    }
    plan = min(costs, key=lambda bands: costs[bands])
    if costs[plan] * _CANDIDATE_COST >= len(hashes) ** 2 / 2:
        plan = 0
    pairs, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for left, right in _walk_buckets(bits, plan, most_bits) if plan else _walk_all(len(hashes)):
        apart = np.zeros(np.broadcast_shapes(left.shape, right.shape), np.uint16)
        for word in hashes.T:
            apart += _count_bits(word[left] ^ word[right])
        close = np.nonzero((apart <= most_bits) & (left != right))
        pairs.append(np.stack([np.broadcast_to(side, apart.shape)[close] for side in (left, right)], axis=1))
        distances.append(apart[close].astype(np.int64))
    rows = np.sort(np.concatenate(pairs), axis=1)
    # A pair that is close in several bands is met in each.
    _, once = np.unique(rows[:, 0] * len(hashes) + rows[:, 1], return_index=True)
    return rows[once], np.concatenate(distances)[once]


def _split_bands(bits: np.ndarray, bands: int, most_bits: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Keys (N,), width and radius of each band; close hashes are within the radius in one band at least."""
    least, rest = divmod(most_bits, bands)
    for band in range(bands):
        radius = least if band <= rest else least - 1
        if radius >= 0:
            # Every bands-th bit: neighbouring frequencies are alike and would crowd few buckets.
            columns = bits[:, band::bands]
            width = columns.shape[1]
            yield columns @ (1 << np.arange(width)), width, radius


def _walk_buckets(bits: np.ndarray, bands: int, most_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidates (M,) and (M,), a few millions at a time."""
    for keys, width, radius in _split_bands(bits, bands, most_bits):
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        edges = np.searchsorted(keys, np.arange((1 << width) + 1))
        for flipped in itertools.chain.from_iterable(
            itertools.combinations(range(width), k) for k in range(radius + 1)
        ):
            partners = keys ^ sum(1 << bit for bit in flipped)
            starts = edges[partners] if flipped else np.arange(1, len(keys) + 1)
            counts = np.where(keys <= partners, edges[partners + 1] - starts, 0)  # each pair from one side alone
            ends = np.cumsum(counts)
            cuts = np.searchsorted(ends, np.arange(0, ends[-1] + _CHUNK, _CHUNK), side="right")
            for low, high in itertools.pairwise(np.unique(cuts)):
                part = counts[low:high]
                left = np.repeat(np.arange(low, high), part)
                shift = np.repeat(starts[low:high] - (ends[low:high] - part) + ends[low] - part[0], part)
                yield order[left], order[np.arange(len(left)) + shift]


def _walk_all(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs as blocks (B, 1) and (1, M)."""
    block = max(1, _CHUNK // max(1, count))
    for start in range(0, count, block):
        yield np.arange(start, min(start + block, count))[:, None], np.arange(start, count)[None]


def _count_bits(words: np.ndarray) -> np.ndarray:
    """Bits set in each of the uint64 ``words``."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words))
    return np.asarray(np.unpackbits(words.view(np.uint8).reshape(*words.shape, 8), axis=-1).sum(axis=-1))
