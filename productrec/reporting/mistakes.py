"""Mistakes: images whose label does not rank first, with the nearest products and where the right class stood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.reporting.answered import Answered


@dataclass(frozen=True)
class Near:
    """A product near to a query: its image's id, its class id and its similarity."""

    image_id: str
    label: int
    similarity: float


@dataclass(frozen=True)
class Mistake:
    """An image that is named wrong.

    ``label`` and ``best``: class ids, true and answered; ``rank``: how many classes rank before the label; ``nearest``:
    products, the most similar first; ``right_place``: among how many neighbours the first of the right class is the
    last (1 for the nearest), None where there is none among the ``looked_at``; ``right``: that neighbour;
    ``is_known``: whether the label is one of the classes that could be answered.
    """

    image_id: str
    label: int
    best: int
    confidence: float
    rank: int
    nearest: tuple[Near, ...] = ()
    right_place: int | None = None
    right: Near | None = None
    looked_at: int = 0
    is_known: bool = True


@dataclass(frozen=True)
class SplitNeighbours:
    """The neighbours of a split's images, as an index found them.

    ``ids``: (Q,) of the images; ``gallery_ids``: (M,); ``rows``: (Q, K) of the gallery, the most similar first;
    ``labels`` and ``similarities``: (Q, K), class ids and similarities of these.
    """

    ids: Sequence[str]
    gallery_ids: Sequence[str]
    rows: np.ndarray
    labels: np.ndarray
    similarities: np.ndarray


def choose_mistakes(answered: Answered, *, most: int, most_of_pair: int = 3) -> np.ndarray:
    """Rows (M,) of the mistakes to show: the surest first, few of one pair of classes, so that many pairs are seen."""
    wrong = np.flatnonzero(answered.is_wrong)
    seen: Counter[tuple[int, int]] = Counter()
    chosen = list[int]()
    for row in wrong[np.argsort(-answered.confidence[wrong], kind="stable")].tolist():
        pair = (int(answered.labels[row]), int(answered.best[row]))
        if seen[pair] < most_of_pair:
            seen[pair] += 1
            chosen.append(row)
            if len(chosen) == most:
                break
    return np.array(chosen, dtype=np.int64)


def describe_mistakes(
    answered: Answered, rows: np.ndarray, neighbours: SplitNeighbours | None, *, nearest: int = 10
) -> list[Mistake]:
    """The mistakes at ``rows`` (M,), each with its neighbours where these are known.

    Args:
        answered: answers to a split.
        rows: of these.
        neighbours: of the same split; None where they are not at hand.
        nearest: products to show of each.
    """
    row_of = {} if neighbours is None else {image_id: row for row, image_id in enumerate(neighbours.ids)}
    found = []
    for row in rows.tolist():
        image_id, label = answered.ids[row], int(answered.labels[row])
        plain = (image_id, label, int(answered.best[row]), float(answered.confidence[row]), int(answered.ranks[row]))
        is_known = bool(answered.answers.labels[row] >= 0)
        if neighbours is None or image_id not in row_of:
            found.append(Mistake(*plain, is_known=is_known))
            continue
        query = row_of[image_id]
        labels = np.asarray(neighbours.labels[query])
        right = np.flatnonzero(labels == label)
        place = int(right[0]) if len(right) else None
        found.append(
            Mistake(
                *plain,
                nearest=tuple(_get_near(neighbours, query, column) for column in range(min(nearest, len(labels)))),
                right_place=None if place is None else place + 1,
                right=None if place is None else _get_near(neighbours, query, place),
                looked_at=len(labels),
                is_known=is_known,
            )
        )
    return found


def _get_near(neighbours: SplitNeighbours, query: int, column: int) -> Near:
    return Near(
        neighbours.gallery_ids[int(neighbours.rows[query, column])],
        int(neighbours.labels[query, column]),
        float(neighbours.similarities[query, column]),
    )
