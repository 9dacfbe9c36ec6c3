"""Folds for cross-validation: stratified by class, listings and near-duplicates whole."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from productrec.errors import DataError, describe_offenders


class Folds(NamedTuple):
    """``folds`` (N,) int64 of N images; ``small_classes``: the labels that cannot stand in every fold, ascending."""

    folds: np.ndarray
    small_classes: tuple[int, ...]


def chain_equal(codes: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) that join each row with the next of the same code (N,); rows with a negative code stand alone."""
    order = np.argsort(codes, kind="stable")
    same = (codes[order[1:]] == codes[order[:-1]]) & (codes[order[1:]] >= 0)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def connect_rows(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components of rows joined by pairs (P, 2): (N,) int64, the smallest row of each row's component."""
    left, right = pairs.T
    roots = np.arange(count)
    while (roots[left] != roots[right]).any():
        lower = np.minimum(roots[left], roots[right])
        np.minimum.at(roots, roots[left], lower)
        np.minimum.at(roots, roots[right], lower)
        while (roots[roots] != roots).any():
            roots = roots[roots]
    return roots


def join_groups(*groupings: np.ndarray) -> np.ndarray:
    """Groups that keep together whatever any of several groupings keeps together.

    Args:
        groupings: each (N,) of any hashable values; a row whose value is missing (None, NaN, NA) stands alone in it.

    Returns:
        (N,) int64: the smallest row of each row's group.

    Raises:
        DataError: none is given, or their lengths differ.
    """
    lengths = {len(grouping) for grouping in groupings}
    if len(lengths) != 1:
        raise DataError(f"folds: groupings must be of one length, at least one of them; got lengths {sorted(lengths)}.")
    chains = [chain_equal(pd.factorize(np.asarray(grouping))[0]) for grouping in groupings]
    return connect_rows(lengths.pop(), np.concatenate(chains))


def assign_folds(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> Folds:
    """Deal whole groups to folds, the largest first, each to the fold that has least of its classes.

    That keeps the sum of squares over (class, fold) small, each class weighted by its size; where folds tie, the
    smallest is filled. scikit-learn's StratifiedGroupKFold takes a dense table of groups x classes, which for a million
    images would not fit any memory.

    Args:
        labels: (N,) integers.
        groups: (N,) of any hashable values; rows with a missing one stand alone. `join_groups` merges several kinds.
        count: folds, at least 2.
        seed: which of the equally good ways; the same rows, order and seed give the same folds.

    Returns:
        Folds 0 to ``count - 1``, and the classes with fewer groups than folds: those are absent from some fold.

    Raises:
        DataError: lengths differ, or there are fewer groups than folds.
    """
    if len(labels) != len(groups):
        raise DataError(f"folds: every image must have a label and a group; got {len(labels)} and {len(groups)}.")
    roots, members = np.unique(join_groups(groups), return_inverse=True)
    if not 2 <= count <= len(roots):
        raise DataError(f"folds: count must be 2 to the number of groups; got {count} folds and {len(roots)} groups.")
    classes, codes = np.unique(labels, return_inverse=True)
    cells, images = np.unique(members * len(classes) + codes, return_counts=True)
    owners, kinds = np.divmod(cells, len(classes))
    small = np.bincount(kinds, minlength=len(classes)) < count

    sizes = np.bincount(members)
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(roots)), -sizes))
    starts = np.searchsorted(owners, np.arange(len(roots) + 1)).tolist()
    kind_list, image_list, size_list = kinds.tolist(), images.tolist(), sizes.tolist()
    weights = (1 / np.bincount(codes)).tolist()
    held = [[0] * count for _ in range(len(classes))]
    totals = [0] * count
    folds = np.empty(len(roots), np.int64)
    for group in order.tolist():
        own = range(starts[group], starts[group + 1])
        if len(own) == 1:
            crowding: list[float] = held[kind_list[own[0]]]
        else:
            crowding = [
                sum(image_list[cell] * weights[kind_list[cell]] * held[kind_list[cell]][fold] for cell in own)
                for fold in range(count)
            ]
        fold = min(zip(crowding, totals, range(count), strict=True))[2]
        for cell in own:
            held[kind_list[cell]][fold] += image_list[cell]
        totals[fold] += size_list[group]
        folds[group] = fold
    return Folds(folds[members], tuple(int(label) for label in classes[small]))


def assign_table_folds(images: pd.DataFrame, count: int, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """The table with the column ``fold``, 0 to ``count - 1``, of its readable labelled training images; and findings.

    Raises:
        DataError: fewer groups than folds.
    """
    train = images[(images["split"] == "train") & images["label"].notna() & (images["status"] == "ok")]
    labels = train["label"].to_numpy(dtype=np.int64)
    dealt = assign_folds(labels, get_groups(train), count, seed)
    changed = images.copy()
    changed.loc[train.index, "fold"] = dealt.folds
    findings = []
    if dealt.small_classes:
        small = describe_offenders(dealt.small_classes)
        findings.append(f"{small} classes have fewer images or groups than {count} folds; some folds lack them.")
    return changed, findings


def get_groups(images: pd.DataFrame) -> np.ndarray:
    """The column ``group`` (N,) as `join_groups` takes it: None where a row has none."""
    return np.array([None if pd.isna(group) else group for group in images["group"]], dtype=object)
