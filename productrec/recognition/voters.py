"""Further voters: neighbours by another likeness than the image's, such as that of titles, where a query has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from productrec.recognition.vote import Vote


@dataclass(frozen=True)
class VoterEvidence:
    """What a further voter knows of Q queries.

    ``classes`` (Q, K) and ``similarities`` (Q, K) as of `Evidence`; ``has`` (Q,) bool: the queries that have such
    neighbours at all, such as images with a title. What stands in the rows of others says nothing.
    """

    classes: np.ndarray
    similarities: np.ndarray
    has: np.ndarray

    def take(self, rows: slice | np.ndarray) -> VoterEvidence:
        """That of some queries."""
        return VoterEvidence(self.classes[rows], self.similarities[rows], self.has[rows])

    def without(self, hidden: np.ndarray) -> VoterEvidence:
        """Its neighbours but those of hidden classes (C,) bool; a query that loses all of them has none."""
        is_gone = (self.classes < 0) | np.append(hidden, False)[self.classes]
        classes, similarities = np.where(is_gone, -1, self.classes), np.where(is_gone, 0.0, self.similarities)
        order = np.argsort(is_gone, axis=1, kind="stable")
        return VoterEvidence(
            np.take_along_axis(classes, order, axis=1),
            np.take_along_axis(similarities, order, axis=1).astype(np.float32),
            self.has & ~is_gone.all(axis=1),
        )


@dataclass(frozen=True)
class FurtherVoter:
    """How a voter joins a classifier.

    ``weights``: exponents of all parts, of the further voters before it and of itself, in the product that answers
    the queries that have all of these; others are answered as if it were not there.
    """

    name: str
    vote: Vote
    weights: Mapping[str, float]

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {"name": self.name, "vote": asdict(self.vote), "weights": dict(self.weights)}


def build_voter(values: Mapping[str, Any]) -> FurtherVoter:
    """What `FurtherVoter.describe` gave, as it was."""
    return FurtherVoter(str(values["name"]), Vote(**values["vote"]), dict(values["weights"]))


def align_voter(
    ids: Sequence[str], asked: Sequence[str], classes: np.ndarray, similarities: np.ndarray
) -> VoterEvidence:
    """A voter's evidence of N images, from neighbours of those of them that have any.

    Args:
        ids: (N,) of the images.
        asked: (A,) of the images that have neighbours; those that are none of the N are passed over.
        classes: (A, K) class position of each neighbour.
        similarities: (A, K).
    """
    row_of = {image_id: row for row, image_id in enumerate(asked)}
    rows = np.array([row_of.get(image_id, -1) for image_id in ids], dtype=np.int64)
    has = rows >= 0
    k = classes.shape[1]
    aligned = VoterEvidence(np.full((len(ids), k), -1, np.int64), np.zeros((len(ids), k), np.float32), has)
    aligned.classes[has], aligned.similarities[has] = classes[rows[has]], similarities[rows[has]]
    return aligned


def join_voters(parts: Iterable[tuple[int, Mapping[str, VoterEvidence]]]) -> dict[str, VoterEvidence]:
    """The voters of some queries, then of others: by how many queries each part is of and its voters.

    A part that lacks a voter has it for none of its queries. Of each voter as many neighbours stay as the least have.
    """
    listed = list(parts)
    joined = {}
    for name in dict.fromkeys(name for _, voters in listed for name in voters):
        k = min(voters[name].classes.shape[1] for _, voters in listed if name in voters)
        seen = [
            voters[name]
            if name in voters
            else VoterEvidence(
                np.full((count, k), -1, np.int64), np.zeros((count, k), np.float32), np.zeros(count, bool)
            )
            for count, voters in listed
        ]
        joined[name] = VoterEvidence(
            np.concatenate([one.classes[:, :k] for one in seen]),
            np.concatenate([one.similarities[:, :k] for one in seen]),
            np.concatenate([one.has for one in seen]),
        )
    return joined
