"""The catalogue: a gallery that lives, an immutable base with the changes since, searched as one."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import load_manifest
from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.locking import hold_lock
from productrec.retrieval.catalogue_loading import check_made, load_state
from productrec.retrieval.catalogue_state import Beside, read_beside, stack_rows
from productrec.retrieval.choice import Tuned, Wanted
from productrec.retrieval.embedding_set import IMAGE, EmbeddingSet, check_embeddings, check_modality
from productrec.retrieval.engine import search_flat
from productrec.retrieval.index import INDEX_KIND, check_queries, save_index
from productrec.retrieval.segments import (
    GrownRows,
    drop_changes,
    get_base_folder,
    get_grown_folder,
    list_changes,
    write_segment,
)

_WAIT_SECONDS = 60.0
_SAME = 0.999  # similarity of what one image was embedded to twice


class Catalogue:
    """The gallery of an index folder with all that was grown and removed since; searched and changed in place.

    Rows are numbered through base and changes, and keep their numbers until the catalogue is compacted.
    """

    def __init__(self, folder: Path, *, grown: Path | None = None) -> None:
        """Open the catalogue of the index in ``folder``; ``grown``: where its changes lie, None for beside it.

        Raises:
            ArtifactError: no index is there, something is damaged, or what was grown is of another network, by name.
        """
        self.folder = folder
        self.grown_folder = grown or get_grown_folder(folder)
        self._state = load_state(self.folder, self.grown_folder, None)

    @property
    def keys(self) -> list[str]:
        """Keys of all classes that ever had rows; `get_classes` speaks of their positions."""
        return self._state.keys

    @property
    def names(self) -> dict[str, str]:
        """What grown classes are called, by key."""
        return self._state.names

    @property
    def removed(self) -> set[str]:
        """Keys of the classes that were taken out."""
        return self._state.removed

    @property
    def weights_digest(self) -> str:
        """Of the network whose embeddings it takes."""
        return self._state.index.weights_digest

    @property
    def dim(self) -> int:
        """D of these embeddings."""
        return self._state.index.searcher.dim

    def __len__(self) -> int:
        """Rows that can be found."""
        return self._state.base_count + self._state.grown_count

    def get_classes(self, rows: np.ndarray) -> np.ndarray:
        """Position of the class of each row among `keys`, int64."""
        classes: np.ndarray = self._state.classes[rows]
        return classes

    def get_ids(self, rows: np.ndarray) -> list[str]:
        """Image ids of rows (N,)."""
        return self._state.get_ids(rows)

    def get_grown_rows(self) -> GrownRows:
        """The rows that can be found and were grown, after the base or into it."""
        state = self._state
        paths = dict(read_beside(state.index).paths)
        for segment in state.segments:
            paths |= dict(zip(segment.rows.ids, segment.rows.paths, strict=True))
        found = state.find(list(paths))
        rows = [image_id for image_id, row in zip(paths, found.tolist(), strict=True) if row >= 0]
        numbers = found[found >= 0]
        keys = [state.keys[position] for position in state.classes[numbers].tolist()]
        names = {key: state.names.get(key, key) for key in keys}
        return GrownRows(rows, keys, names, [paths[image_id] for image_id in rows], self.get_embeddings(numbers))

    def get_embeddings(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings (N, D) float32 of rows."""
        state = self._state
        base = state.index.searcher
        out = np.empty((len(rows), base.dim), np.float32)
        in_base = rows < base.rows
        out[in_base] = base.get_embeddings(rows[in_base])
        out[~in_base] = stack_rows(state.segments, base.dim)[rows[~in_base] - base.rows]
        return out

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Row of each image id, int64; -1 where none of that id can be found."""
        return self._state.find(ids)

    def list_ids(self) -> list[str]:
        """Image ids of the rows that can be found."""
        ids = self._state.list_ids()
        return [ids[row] for row in self.list_alive().tolist()]

    def list_alive(self) -> np.ndarray:
        """Rows that can be found, ascending."""
        return np.flatnonzero(self._state.alive)

    def has_class(self, key: str) -> bool:
        """Whether a class has rows that can be found."""
        return key in self._state.living

    def describe(self) -> dict[str, Any]:
        """Kind of index, rows, classes, segments, tombstones and recall, as plain values."""
        state = self._state
        search = state.index.notes.get("search", {"kind": "exact"})
        grown = len(state.alive) - state.index.searcher.rows
        return {
            "kind": search["kind"],
            "recall": search.get("recall"),
            "rows": len(self),
            "classes": len(state.living),
            "base": state.index.searcher.rows,
            "grown": grown,
            "segments": len(state.segments),
            "tombstones": int((~state.alive).sum()),
            "dim": self.dim,
            "views": list(state.index.notes.get("views", [])),
            "weights": self.weights_digest,
        }

    def describe_made(self) -> dict[str, Any]:
        """Views, ``side_px`` (None where an older index does not say), modality and tower of the embeddings."""
        notes = self._state.index.notes
        made = {"views": notes.get("views", []), "side_px": notes.get("side_px")}
        return made | {"modality": notes.get("modality", IMAGE), "tower": notes.get("tower", IMAGE)}

    def describe_changes(self) -> str:
        """What was grown and removed since the index was built, as a person reads it; empty where nothing was."""
        state = self._state
        paths = read_beside(state.index).paths
        grown = state.grown_count + (int((state.find(list(paths)) >= 0).sum()) if paths else 0)
        said = [f"{grown:,} images more"] if grown else []
        return ", ".join(said + ([f"{len(self.removed):,} classes removed"] if self.removed else []))

    def refresh(self) -> bool:
        """Take in what other processes have changed; whether there was anything."""
        before = self._state
        self._state = load_state(self.folder, self.grown_folder, before)
        return self._state is not before

    def search(self, queries: EmbeddingSet, k: int, *, across: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` most similar rows of each query; all that can be found, where those are fewer.

        ``across``: queries may be of another modality, which the same network embedded into one space.

        Returns:
            Rows (Q, K) int64 and similarities (Q, K) float32, descending; K may be 0, once all was removed.

        Raises:
            ArtifactError: see `productrec.retrieval.index.search_index`.
        """
        state = self._state
        base = state.index.searcher
        side_px = state.index.notes.get("side_px")
        check_queries(queries, weights_digest=self.weights_digest, dim=base.dim, side_px=side_px, where="index")
        if not across:
            check_modality(queries, state.index.notes, "index")
        wanted = np.ascontiguousarray(queries.embeddings, dtype=np.float32)
        found = base.search(wanted, min(k, state.base_count), alive=state.base_alive)
        if not state.grown_count:
            return found.rows, found.similarities
        late = search_flat(state.grown, wanted, min(k, state.grown_count), alive=state.grown_alive)
        similarities = np.concatenate([found.similarities, late.similarities], axis=1)
        rows = np.concatenate([found.rows, late.rows + base.rows], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)

    def grow(
        self,
        rows: GrownRows,
        *,
        views: Sequence[str],
        side_px: int | None,
        weights_digest: str,
        modality: str = IMAGE,
        tower: str = IMAGE,
    ) -> list[str]:
        """Add rows; once this returns they are on the disk for good, and found.

        Rows whose id is there with the same embedding are passed over, so that growing can be done again.

        Args:
            rows: N of them.
            views: names of the views that were averaged, as the base has them.
            side_px: of the squares that the network saw.
            weights_digest: of the network.
            modality: of what was embedded.
            tower: part of the network that embedded it.

        Returns:
            The ids that were added.

        Raises:
            ArtifactError: weights, size, views, modality or tower are not the base's, by name; a row is not finite or
                not of unit norm; an id is that of another image; another process writes for long.
        """
        check_embeddings(rows.embeddings, rows.ids, "grow")
        if len(set(rows.ids)) < len(rows.ids):
            twice = [image_id for image_id, count in Counter(rows.ids).items() if count > 1]
            raise ArtifactError(f"{self.folder}: image ids must be unique; {describe_offenders(twice)} come twice.")
        made = {"weights_digest": weights_digest, "views": list(views), "side_px": side_px}
        made |= {"modality": modality, "tower": tower}
        with self._hold():
            state = self._state
            check_made(self.folder, state.index, {**made, "dim": rows.embeddings.shape[1]})
            known = state.find(rows.ids)
            here = np.flatnonzero(known >= 0)
            alike = (self.get_embeddings(known[here]) * rows.embeddings[here]).sum(axis=1) >= _SAME
            keys = np.array([state.positions.get(rows.keys[row], -1) for row in here.tolist()], dtype=np.int64)
            same = alike & (state.classes[known[here]] == keys)
            if not same.all():
                raise ArtifactError(
                    f"{self.folder}: image ids must be new; {describe_offenders(rows.ids[row] for row in here[~same])} "
                    "are of other images, or stand in another class. Rename the files, or remove their classes first."
                )
            new = np.flatnonzero(known < 0).tolist()
            if not new:
                return []
            taken = GrownRows(
                [rows.ids[row] for row in new],
                [rows.keys[row] for row in new],
                {key: rows.names.get(key, key) for key in {rows.keys[row] for row in new}},
                [rows.paths[row] for row in new],
                rows.embeddings[new],
            )
            write_segment(self.grown_folder, self._next(), taken, [], {**made, "dim": self.dim})
            self.refresh()
        return taken.ids

    def remove(self, keys: Sequence[str]) -> int:
        """Take classes out, by key; how many rows went.

        Raises:
            DataError: a class has no row that can be found.
        """
        with self._hold():
            state = self._state
            before = len(self)
            unknown = [key for key in dict.fromkeys(keys) if key not in state.living]
            if unknown:
                near = difflib.get_close_matches(unknown[0], sorted(state.living), n=3)
                hint = f" Near to {unknown[0]!r}: {', '.join(near)}." if near else ""
                raise DataError(
                    f"{self.folder}: classes to remove must be in the index; {describe_offenders(unknown)} are not."
                    f"{hint}"
                )
            nothing = GrownRows([], [], {}, [], np.empty((0, self.dim), np.float32))
            made = {name: state.index.notes.get(name) for name in ("views", "side_px")}
            notes = {"weights_digest": self.weights_digest, **made, "dim": self.dim}
            write_segment(self.grown_folder, self._next(), nothing, list(dict.fromkeys(keys)), notes)
            self.refresh()
        return before - len(self)

    def compact(self, *, kind: Wanted = "auto", recall: float = 0.97) -> Tuned | None:
        """Fold changes into a new base, without the rows that are gone; as `save_index` says.

        Raises:
            ArtifactError: no row is left.
        """
        with self._hold():
            state = self._state
            rows = self.list_alive()
            if not len(rows):
                raise ArtifactError(f"{self.folder}: a gallery must hold at least one image; all were removed.")
            number = self._next() - 1
            if number == state.number:
                return None
            grown = self.get_grown_rows()
            gallery = EmbeddingSet(
                self.list_ids(),
                self.get_embeddings(rows),
                None,
                [],
                list(state.index.notes.get("views", [])),
                self.weights_digest,
                {},
                "",
                state.index.notes.get("side_px"),
                **{name: state.index.notes[name] for name in ("modality", "tower") if name in state.index.notes},
            )
            beside = Beside(dict(zip(grown.ids, grown.paths, strict=True)), state.names, sorted(state.removed))
            return self._put_base(number, gallery, state.classes[rows], state.keys, beside, kind=kind, recall=recall)

    def take_over(
        self,
        gallery: EmbeddingSet,
        classes: np.ndarray,
        keys: Sequence[str],
        beside: Beside,
        *,
        kind: Wanted = "auto",
        recall: float = 0.97,
    ) -> Tuned | None:
        """Let a gallery that lived elsewhere stand for this one: a new base, in the stead of base and changes.

        Args:
            gallery: M embeddings.
            classes: (M,) positions of their classes among ``keys``.
            keys: of all classes.
            beside: what of the gallery was grown and removed.
            kind: of index, as `compact`.
            recall: as `compact`.

        Raises:
            ArtifactError: weights, size, views, modality or tower are not the base's, or rows that can be found here
                are not in it.
        """
        made = {"weights_digest": gallery.weights_digest, "views": gallery.views, "side_px": gallery.side_px}
        made |= {"modality": gallery.modality, "tower": gallery.tower}
        with self._hold():
            check_made(self.folder, self._state.index, {**made, "dim": gallery.embeddings.shape[1]})
            ids, gone = set(gallery.ids), {key for key in self.keys if key in set(beside.removed)}
            alive = self.list_alive()
            own = [
                image_id
                for image_id, place in zip(self.get_ids(alive), self.get_classes(alive).tolist(), strict=True)
                if image_id not in ids and self.keys[place] not in gone
            ]
            if own:
                raise ArtifactError(
                    f"{self.folder}: images that are here must be in the gallery that takes its place; "
                    f"{describe_offenders(own)} are not. Grow it by them first, or copy into another folder."
                )
            return self._put_base(self._next(), gallery, classes, keys, beside, kind=kind, recall=recall)

    def _put_base(
        self,
        number: int,
        gallery: EmbeddingSet,
        classes: np.ndarray,
        keys: Sequence[str],
        beside: Beside,
        *,
        kind: Wanted,
        recall: float,
    ) -> Tuned | None:
        tuned = save_index(
            get_base_folder(self.grown_folder, number),
            gallery,
            classes.tolist(),
            inputs={"index": load_manifest(self.folder, kind=INDEX_KIND).fingerprint},
            settings={"search": kind, "recall": recall, "changes": number},
            keys=dict(enumerate(keys)),
            kind=kind,
            recall=recall,
            beside=beside.to_files(),
        )
        drop_changes(self.grown_folder, number)
        self._state = load_state(self.folder, self.grown_folder, None)
        return tuned

    def _next(self) -> int:
        base, changes = list_changes(self.grown_folder)
        return (changes[-1] if changes else base) + 1

    @contextmanager
    def _hold(self) -> Iterator[None]:
        """Be the one writer, who knows all that others have written."""
        busy = f"{self.folder}: another process is changing this index. Wait for it, and run the command again."
        with hold_lock(self.grown_folder / ".lock", busy, wait_seconds=_WAIT_SECONDS):
            self.refresh()
            yield
