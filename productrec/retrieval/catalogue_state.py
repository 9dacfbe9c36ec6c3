"""The state of a catalogue: what its base and the changes since come to, row by row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.engine import Engine, build_engine
from productrec.retrieval.index import Index
from productrec.retrieval.segments import Segment

_BESIDE = "grown.json"


@dataclass(frozen=True)
class Beside:
    """What a compacted base keeps of the changes in it.

    ``paths``: files of grown images, by image id; ``names``: what grown classes are called, by key; ``removed``: keys
    of classes that were taken out.
    """

    paths: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def to_files(self) -> dict[str, object]:
        """The same as JSON files that lie beside an index."""
        return {_BESIDE: asdict(self)}


def read_beside(index: Index) -> Beside:
    """What a base keeps of the changes in it; nothing, where it is the index that was grown."""
    path = index.folder / _BESIDE
    return Beside(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Beside()


@dataclass(frozen=True)
class State:
    """What is searched; never changed, so that a search goes on while another thread renews it."""

    index: Index
    number: int
    segments: tuple[Segment, ...]
    keys: list[str]
    names: dict[str, str]
    classes: np.ndarray
    alive: np.ndarray
    grown: Engine
    removed: set[str]

    @cached_property
    def base_alive(self) -> np.ndarray | None:
        """(M,) bool of the base's rows, None where all are alive."""
        alive = self.alive[: self.index.searcher.rows]
        return None if alive.all() else alive

    @cached_property
    def grown_alive(self) -> np.ndarray | None:
        """The same of the rows after these."""
        alive = self.alive[self.index.searcher.rows :]
        return None if alive.all() else alive

    @cached_property
    def base_count(self) -> int:
        """Rows of the base that are alive."""
        return int(self.alive[: self.index.searcher.rows].sum())

    @cached_property
    def grown_count(self) -> int:
        """Rows after these that are alive."""
        return int(self.alive[self.index.searcher.rows :].sum())

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each key."""
        return {key: position for position, key in enumerate(self.keys)}

    @cached_property
    def living(self) -> set[str]:
        """Keys of the classes that have rows."""
        return {self.keys[position] for position in np.unique(self.classes[self.alive]).tolist() if position >= 0}

    @cached_property
    def _late_ids(self) -> list[str]:
        return [image_id for segment in self.segments for image_id in segment.rows.ids]

    @cached_property
    def _late_rows(self) -> dict[str, int]:
        return {image_id: self.index.searcher.rows + row for row, image_id in enumerate(self._late_ids)}

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Row of each image id, int64; -1 where none of that id is alive."""
        late = np.array([self._late_rows.get(image_id, -1) for image_id in ids], dtype=np.int64)
        rows = np.where(late >= 0, late, self.index.find(ids)) if len(ids) else late
        return np.where((rows >= 0) & self.alive[np.maximum(rows, 0)], rows, -1)

    def get_ids(self, rows: np.ndarray) -> list[str]:
        """Image id of each row (N,)."""
        count = self.index.searcher.rows
        early = iter(self.index.get_ids(rows[rows < count]))
        return [next(early) if row < count else self._late_ids[row - count] for row in rows.tolist()]

    def list_ids(self) -> list[str]:
        """Image ids of all rows, of those that are gone too."""
        return self.index.load_ids() + self._late_ids


def apply_changes(index: Index, number: int, segments: tuple[Segment, ...]) -> State:
    """The state that changes make of a base.

    Raises:
        ArtifactError: the base does not know its classes by their keys.
    """
    beside = read_beside(index)
    keys = list(index.keys.values())
    if not keys:
        raise ArtifactError(
            f"{index.folder}: was written before class names were kept in it. Predict with the run again."
        )
    names: dict[str, str] = dict(beside.names)
    position = {key: place for place, key in enumerate(keys)}
    base_classes = index.classes
    alive = np.ones(len(base_classes) + sum(len(segment.rows.ids) for segment in segments), dtype=bool)
    classes = np.concatenate([base_classes, np.zeros(len(alive) - len(base_classes), np.int64)])
    removed, end = set(beside.removed), len(base_classes)
    for segment in segments:
        gone = [position[key] for key in segment.removed if key in position]
        if gone:
            alive[:end] &= ~np.isin(classes[:end], gone)
        removed |= set(segment.removed)
        for key in segment.rows.keys:
            if key not in position:
                position[key] = len(keys)
                keys.append(key)
        names |= segment.rows.names
        stop = end + len(segment.rows.ids)
        classes[end:stop] = [position[key] for key in segment.rows.keys]
        removed -= set(segment.rows.keys)
        end = stop
    grown = build_engine(stack_rows(segments, index.searcher.dim))
    return State(index, number, segments, keys, names, classes, alive, grown, removed)


def stack_rows(segments: Sequence[Segment], dim: int) -> np.ndarray:
    """The embeddings (N, D) float32 of the rows of all changes, in their order."""
    return np.concatenate([np.empty((0, dim), np.float32), *(segment.rows.embeddings for segment in segments)])
