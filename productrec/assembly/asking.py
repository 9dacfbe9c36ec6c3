"""Asking a run about photos: the class with its confidence, whether it is a known one, the nearest products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from productrec.assembly.answering import Answered, ReadyRun
from productrec.data.images import Images
from productrec.recognition.calibration import read_similarity

UNKNOWN = "unknown"
MOST_NEAREST = 50  # neighbours among which the nearest products are looked for, so no more can be named


@dataclass(frozen=True)
class Near:
    """A product near to a photo: ``key``, ``name``, and the ``similarity`` of its nearest picture, ``image_id``.

    ``probability``: that it is the photo's, by that similarity alone; None where the run has no scale for it.
    """

    key: str
    name: str
    similarity: float
    image_id: str
    probability: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a run says of a photo.

    ``key``, ``name`` and ``confidence``: of the most probable class; ``is_known``: whether it is believed to be of a
    known class at all, None where the run has no threshold; ``nearest``: products, the most similar first, none where
    the run has no index; ``reason``: why the photo cannot be read, and then nothing else is there.
    """

    photo: str
    key: str = ""
    name: str = ""
    confidence: float = 0.0
    is_known: bool | None = None
    nearest: tuple[Near, ...] = ()
    reason: str = ""

    def say(self, *, doubts: bool = False) -> str:
        """The name of the class; with ``doubts``, that it is unknown where it is not believed to be a known one."""
        return UNKNOWN if doubts and self.is_known is False else self.name

    def describe(self, *, doubts: bool = False) -> dict[str, Any]:
        """As plain values, ready for JSON; ``doubts`` as in `say`."""
        if self.reason:
            return {"photo": self.photo, "reason": self.reason}
        return {
            "photo": self.photo,
            "class": self.say(doubts=doubts),
            "class_id": None if doubts and self.is_known is False else self.key,
            "confidence": round(self.confidence, 4),
            "most_probable": {"class": self.name, "class_id": self.key},
            "is_known": self.is_known,
            "nearest": [
                {
                    "class": near.name,
                    "class_id": near.key,
                    "similarity": round(near.similarity, 4),
                    "probability": None if near.probability is None else round(near.probability, 4),
                    "image": near.image_id,
                }
                for near in self.nearest
            ],
        }


def ask(ready: ReadyRun, photos: Images, names: Sequence[str], *, nearest: int) -> Iterator[Answer]:
    """Answers for photos, in their order.

    Args:
        ready: that is asked.
        photos: N of them.
        names: (N,) what they are called.
        nearest: products to name beside the class.
    """
    batches = ready.answer(photos, batch_size=ready.batch_size, neighbours=MOST_NEAREST)
    for seen in batches:
        for place, row in enumerate(seen.rows):
            if row in seen.broken:
                yield Answer(names[row], reason=seen.broken[row])
            else:
                yield _build_answer(ready, seen, place, names[row], nearest)


def ask_cuts(
    ready: ReadyRun, photos: Sequence[Sequence[np.ndarray]], names: Sequence[str], *, nearest: Sequence[int]
) -> list[Answer]:
    """Answers for one batch of photos, in their order, each given by its squares of ``ready.network.cut``.

    Args:
        ready: that is asked.
        photos: N of them, at least one.
        names: (N,) what they are called.
        nearest: (N,) products to name beside the class of each.
    """
    seen = ready.answer_cuts(photos, neighbours=MOST_NEAREST)
    return [_build_answer(ready, seen, row, names[row], nearest[row]) for row in seen.rows]


def _build_answer(ready: ReadyRun, seen: Answered, place: int, photo: str, nearest: int) -> Answer:
    probabilities = seen.probabilities[place]
    best = int(probabilities.argmax())
    return Answer(
        photo,
        ready.known.keys[best],
        ready.known.names[best],
        float(probabilities[best]),
        None if seen.believed is None else bool(seen.believed[place]),
        _list_nearest(ready, seen.neighbours[place], seen.similarities[place], nearest),
    )


def _list_nearest(ready: ReadyRun, rows: np.ndarray, similarities: np.ndarray, count: int) -> tuple[Near, ...]:
    """The products of the nearest pictures, each once, by its nearest."""
    if ready.catalogue is None:
        return ()
    positions = ready.known.positions[ready.catalogue.get_classes(rows)]
    known = np.flatnonzero(positions >= 0)
    first = known[np.sort(np.unique(positions[known], return_index=True)[1])][:count]
    ids = ready.catalogue.get_ids(rows[first])
    scale = None if ready.saved is None else read_similarity(ready.saved.fitted)
    chances = [None] * len(first) if scale is None else scale.compute(similarities[first]).tolist()
    return tuple(
        Near(ready.known.keys[position], ready.known.names[position], float(similarity), image_id, chance)
        for position, similarity, image_id, chance in zip(
            positions[first], similarities[first], ids, chances, strict=True
        )
    )
