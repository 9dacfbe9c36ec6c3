"""The chain of structure: groups, then categories, then the prior, in one pass over class probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from productrec.recognition.structure.categories import lift_categories
from productrec.recognition.structure.groups import pool_groups
from productrec.recognition.structure.prior import correct_prior

GROUPS, CATEGORIES, PRIOR = STEPS = ("groups", "categories", "prior")


@dataclass(frozen=True)
class Structured:
    """Class probabilities and what is known of their structure.

    ``values``: (N, C) rows sum to 1, a memory map welcome; ``groups``: (N,) as of `groups.number_groups`, None for
    none; ``silent``: (N,) bool, images of which nothing is known, None for none; ``categories``: (C,) a number each,
    None where there are none; ``ratios``: (C,) as of `prior.correct_prior`, None where no other shares are wanted.
    """

    values: np.ndarray
    groups: np.ndarray | None = None
    silent: np.ndarray | None = None
    categories: Sequence[int] | None = None
    ratios: np.ndarray | None = None


def apply_chain(
    images: Structured, strengths: Mapping[str, float], *, block_rows: int = 4096
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Class probabilities after every step of `STEPS` that has a strength above 0, a block of rows at a time.

    Yields:
        Rows (n,) and their probabilities (n, C) float32, rows sum to 1; every row once, in no order.
    """
    pooled = pool_groups(
        images.values, images.groups, strengths.get(GROUPS, 0.0), silent=images.silent, block_rows=block_rows
    )
    for rows, block in pooled:
        if images.categories is not None:
            block = lift_categories(block, images.categories, strengths.get(CATEGORIES, 0.0))
        if images.ratios is not None:
            block = correct_prior(block, images.ratios, strengths.get(PRIOR, 0.0))
        yield rows, block
