"""The most similar negative pair of a batch that leaves out an anchor's class."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.pair_weighting import PairWalk
from productrec.losses.engine.weighing import PairWeighting


def add_hardest_other_pairs(comparison: Comparison) -> Comparison:
    """A comparison with a threshold an anchor: the largest similarity of a negative pair without a row of its class.

    Only three pairs can be meant: the most similar of all, and, for the anchors of its two classes, the most similar
    ones without the one class or without the other. So it takes one walk over the batch and memory of O(N).

    Args:
        comparison: N anchors and M references; a pair is an anchor and a reference.

    Returns:
        The same in the computing type, so that a gradient that reaches a row twice is rounded once; thresholds (N,),
        -inf where there is no such pair, whose gradient reaches the rows of the pairs.
    """
    walk = PairWalk(comparison, PairWeighting(), None)
    with torch.no_grad():
        best, second = _find_hardest_negatives(walk, comparison)
        row = best.similarities.argmax()
        labels = comparison.labels
        of_row, of_column = labels[row], best.classes[row]
        pairs = [(row, best.columns[row], best.similarities[row])]
        for left_out in (of_row, of_column):
            second_counts = best.classes == left_out
            similarities = torch.where(second_counts, second.similarities, best.similarities)
            similarities = similarities.masked_fill(labels == left_out, -torch.inf)
            other = similarities.argmax()
            column = torch.where(second_counts[other], second.columns[other], best.columns[other])
            pairs.append((other, column, similarities[other]))
        rows, columns, seen = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        chosen = torch.where(labels == of_row, 1, torch.where(labels == of_column, 2, 0))
    anchors = comparison.embeddings.to(walk.anchors.dtype)
    references = None if comparison.references is None else comparison.references.to(walk.anchors.dtype)
    similarities = (anchors[rows] * (anchors if references is None else references)[columns]).sum(dim=1)
    thresholds = torch.where(seen > -torch.inf, similarities, -torch.inf)[chosen]
    return replace(comparison, embeddings=anchors, references=references, thresholds=thresholds)


class _Hardest(NamedTuple):
    """A negative of each anchor, all (N,): its similarity, -inf where there is none, its column and its class."""

    similarities: Tensor
    columns: Tensor
    classes: Tensor


def _find_hardest_negatives(walk: PairWalk, comparison: Comparison) -> tuple[_Hardest, _Hardest]:
    """The most similar negative of each anchor, and the most similar one of yet another class."""
    classes = comparison.compared_labels
    best: list[_Hardest] = []
    second: list[_Hardest] = []
    for start, stop in walk.blocks:
        _, negatives = walk.take(start, stop)
        for hardest in (best, second):
            similarities, columns = negatives.max(dim=1)
            hardest.append(_Hardest(similarities, columns, classes[columns]))
            if hardest is best:
                negatives.masked_fill_(classes == hardest[-1].classes[:, None], -torch.inf)
    return _join(best), _join(second)


def _join(blocks: list[_Hardest]) -> _Hardest:
    return _Hardest(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))
