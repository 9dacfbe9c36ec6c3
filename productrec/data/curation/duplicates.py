"""Near-duplicates among images: hash every image, find close hashes, compare those pairs' pixels, join into clusters.

A hash alone takes two photographs of one shelf for copies; comparing small pictures, aligned, tells them apart. Found
are copies that were resized, stored again, cropped by a few per cent or made a little brighter; not mirrored or turned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from productrec.data.curation.folds import chain_equal, connect_rows
from productrec.data.curation.near_hashes import find_duplicate_pairs
from productrec.data.images import Images
from productrec.data.table import DISTRACTORS, SPLITS
from productrec.errors import DataError

MOST_BITS = 14  # of 64; a crop of 4 % a side changes 9 bits in the middle and 14 at the 95th percentile
LEAST_AGREEMENT = 0.997  # correlation once aligned: copies reach 0.9975, photos taken a second apart rarely 0.995
_THUMBNAIL_PX = 64
_COLOUR_CELLS = 8
_LEAST_DEVIATION = 2.0  # grey levels; below, a picture's hash is noise
_MOST_TURN = 0.02  # shear or rotation of the alignment; copies stay below 0.01, a hand-held camera does not
_MOST_STRETCH = 0.12  # scale of the alignment beyond 1
_MOST_RESIDUAL = 0.65  # largest local difference, in standard deviations: another imprint on the same package
_MOST_COLOUR = 10.0  # mean difference in chroma levels: the same package in another colour
_LEAST_OVERLAP = 0.6
_COARSE_CELLS = 8
_LEAST_COARSE = 0.8  # correlation of coarse pictures before any alignment; cropped copies stay above 0.83
_MOST_CANDIDATES = 5  # pairs aligned at most, times the images
_COMPARED_AT_ONCE = 1 << 18


class Fingerprints(NamedTuple):
    """What is kept of N images.

    ``hashes`` (N, 1) uint64; ``thumbnails`` (N, 64, 64) uint8 grey; ``colours`` (N, 8, 8, 2) uint8 chroma;
    ``structured`` (N,) bool, false where a picture is flat or unreadable, so that only its digest can be compared.
    """

    hashes: np.ndarray
    thumbnails: np.ndarray
    colours: np.ndarray
    structured: np.ndarray


class DuplicateCluster(NamedTuple):
    """Images that are copies of each other; ``splits`` and ``labels`` are the distinct ones among them."""

    image_ids: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def crosses_splits(self) -> bool:
        """Whether what is trained on comes back in validation or test."""
        return len(self.splits) > 1

    @property
    def labels_conflict(self) -> bool:
        """Whether copies carry different labels."""
        return len(self.labels) > 1


class DuplicateReport(NamedTuple):
    """Duplicates of a table of N images.

    ``groups`` (N,) int64 is each image's cluster, named by its first member's position; ``clusters`` those of two or
    more; ``pairs`` (P, 2) int64 the pairs whose pixels agree, ``agreement`` (P,) float64 how well, descending;
    ``skipped``: candidates that were too many to be compared.
    """

    groups: np.ndarray
    clusters: tuple[DuplicateCluster, ...]
    pairs: np.ndarray
    agreement: np.ndarray
    skipped: int = 0


def compute_hash(pixels: np.ndarray) -> np.ndarray:
    """Perceptual hash: signs of the 63 lowest frequencies of the cosine transform after the mean, and of one more.

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        (1,) uint64. Copies differ in few bits; of a picture without structure the bits mean nothing.
    """
    waves = cv2.dct(_shrink(pixels).astype(np.float32))
    signs = np.append(waves[:8, :8].ravel()[1:], waves[8, 0]) > 0
    return np.packbits(signs).view(np.uint64)


def compute_fingerprints(
    images: Images, *, workers: int = 2, on_progress: Callable[[int], None] = lambda count: None
) -> Fingerprints:
    """Decode images once and keep what their comparison needs, 4 KiB an image.

    Args:
        images: N pictures; one that cannot be read counts as without structure.
        workers: threads.
        on_progress: called with 256 or fewer at a time.
    """
    count, side, cells = len(images), _THUMBNAIL_PX, _COLOUR_CELLS
    kept = Fingerprints(
        np.zeros((count, 1), np.uint64),
        np.zeros((count, side, side), np.uint8),
        np.zeros((count, cells, cells, 2), np.uint8),
        np.zeros(count, bool),
    )

    def fill(row: int) -> None:
        try:
            pixels = images.decode(row)
        except DataError:
            return
        kept.hashes[row] = compute_hash(pixels)
        kept.thumbnails[row] = _shrink(pixels)
        small = cv2.resize(pixels, (cells, cells), interpolation=cv2.INTER_AREA)
        kept.colours[row] = cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)[..., 1:]
        kept.structured[row] = kept.thumbnails[row].std() >= _LEAST_DEVIATION

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in range(0, count, 256):
            rows = range(start, min(start + 256, count))
            list(pool.map(fill, rows))
            on_progress(len(rows))
    return kept


def compare_pixels(fingerprints: Fingerprints, rows: np.ndarray, *, workers: int = 2) -> np.ndarray:
    """How well the pictures of each pair agree once one is aligned with the other.

    Args:
        fingerprints: of N images.
        rows: (P, 2) int64.
        workers: threads.

    Returns:
        (P,) float64: correlation of the aligned grey thumbnails; 0 where they cannot be copies (other colours, a
        turned view, one spot that differs).
    """
    colours = fingerprints.colours
    agreement = np.zeros(len(rows))

    def fill(pair: int) -> None:
        left, right = rows[pair]
        apart = np.abs(colours[left].astype(np.int16) - colours[right]).mean()
        if apart <= _MOST_COLOUR:
            agreement[pair] = _align(fingerprints.thumbnails[left], fingerprints.thumbnails[right])

    with ThreadPoolExecutor(max(1, workers)) as pool:
        list(pool.map(fill, range(len(rows)), chunksize=64))
    return agreement


def cluster_duplicates(count: int, pairs: np.ndarray, digests: Sequence[str | None] | None = None) -> np.ndarray:
    """Join pairs and equal digests into clusters (connected components).

    Args:
        count: N.
        pairs: (P, 2) rows in any order.
        digests: N digests of the files; one that is missing equals no other.

    Returns:
        (N,) int64: the smallest row of each row's cluster.
    """
    chains = [np.asarray(pairs, dtype=np.int64).reshape(-1, 2)]
    if digests is not None:
        chains.append(chain_equal(pd.factorize(np.asarray(digests, dtype=object))[0]))
    return connect_rows(count, np.concatenate(chains))


def find_duplicates(
    images: pd.DataFrame,
    fingerprints: Fingerprints,
    *,
    most_bits: int = MOST_BITS,
    least_agreement: float = LEAST_AGREEMENT,
    candidates: np.ndarray | None = None,
    workers: int = 2,
) -> DuplicateReport:
    """Duplicates among the rows of an image table.

    Args:
        images: N rows with ``image_id``, ``split``, ``label``, ``digest`` and ``box``.
        fingerprints: theirs, in order.
        most_bits: 0 to 64, how far hashes may be apart.
        least_agreement: 0 to 1, how well pixels must agree.
        candidates: (P, 2) more pairs of rows whose pixels are compared, whatever their hashes: those that a network
            finds close.
        workers: threads.
    """
    usable = np.flatnonzero(fingerprints.structured)
    close, bits = find_duplicate_pairs(fingerprints.hashes[usable], most_bits)
    rows, skipped = _choose_candidates(fingerprints, usable[close], bits)
    if candidates is not None:
        more = np.sort(candidates[fingerprints.structured[candidates].all(axis=1)], axis=1)
        rows = np.unique(np.concatenate([np.sort(rows, axis=1), more]), axis=0)
    agreement = compare_pixels(fingerprints, rows, workers=workers)
    order = np.argsort(-agreement, kind="stable")
    order = order[agreement[order] >= least_agreement]
    groups = cluster_duplicates(len(images), rows[order], _get_digests(images))
    shared = np.bincount(groups, minlength=len(images))[groups] > 1
    members = images[shared].groupby(groups[shared], sort=True)
    clusters = (
        DuplicateCluster(
            tuple(cluster["image_id"]),
            tuple(split for split in (*SPLITS, DISTRACTORS) if split in set(cluster["split"])),
            tuple(sorted(int(label) for label in cluster["label"].dropna().unique())),
        )
        for _, cluster in members
    )
    return DuplicateReport(groups, tuple(clusters), rows[order], agreement[order], skipped)


def _get_digests(images: pd.DataFrame) -> list[str | None]:
    """Digest of what each row shows: two boxes of one file are not the same picture."""
    return [
        None if pd.isna(digest) else str(digest) if pd.isna(box) else f"{digest} {box}"
        for digest, box in zip(images["digest"], images["box"], strict=True)
    ]


def _choose_candidates(fingerprints: Fingerprints, rows: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, int]:
    """Pairs (P, 2) worth aligning, and how many others were left out because there are too many.

    Line drawings and studio photographs share their low frequencies by the million; their coarse pictures tell most of
    them apart a thousand times faster than an alignment does.
    """
    count, side = len(fingerprints.thumbnails), fingerprints.thumbnails.shape[1]
    cells = _COARSE_CELLS
    coarse = fingerprints.thumbnails.reshape(count, cells, side // cells, cells, side // cells).mean(axis=(2, 4))
    coarse = coarse.reshape(count, -1).astype(np.float32)
    coarse -= coarse.mean(axis=1, keepdims=True)
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True).clip(min=1e-6)
    alike = [
        (coarse[part[:, 0]] * coarse[part[:, 1]]).sum(axis=1) >= _LEAST_COARSE
        for part in (rows[start : start + _COMPARED_AT_ONCE] for start in range(0, len(rows), _COMPARED_AT_ONCE))
    ]
    kept = np.flatnonzero(np.concatenate(alike)) if alike else np.empty(0, np.int64)
    most = _MOST_CANDIDATES * count
    nearest = kept[np.argsort(bits[kept], kind="stable")[:most]]
    return rows[np.sort(nearest)], max(0, len(kept) - most)


def _shrink(pixels: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA))


def _align(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of two thumbnails after the best small affine change (Evangelidis, Psarakis 2008), or 0."""
    warp: np.ndarray = np.eye(2, 3, dtype=np.float32)
    whole = np.ones_like(left)
    ends = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    try:
        _, warp = cv2.findTransformECC(left, right, warp, cv2.MOTION_AFFINE, ends, whole, 5)
    except cv2.error:  # no agreement to climb from
        return 0.0
    turn, stretch = max(abs(warp[0, 1]), abs(warp[1, 0])), max(abs(warp[0, 0] - 1), abs(warp[1, 1] - 1))
    if turn > _MOST_TURN or stretch > _MOST_STRETCH:
        return 0.0
    inverse = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(right, warp, left.shape, flags=cv2.INTER_CUBIC | inverse)
    inside = cv2.warpAffine(whole, warp, left.shape, flags=cv2.INTER_NEAREST | inverse)
    both = cv2.erode(inside, np.ones((7, 7), np.uint8), borderValue=0) > 0
    if both.mean() < _LEAST_OVERLAP:
        return 0.0
    # Blurred, since two samplings of one picture differ in its finest detail.
    a, b = (cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)[both] for grey in (left, moved))
    if min(a.std(), b.std()) < _LEAST_DEVIATION / 2:
        return 0.0
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    return float((a * b).mean()) if np.abs(a - b).max() <= _MOST_RESIDUAL else 0.0
