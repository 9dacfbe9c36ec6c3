"""The remote catalogue: a gallery that lives in a Milvus server, with the public face of `Catalogue`."""

from __future__ import annotations

import difflib
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np

from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.retrieval.catalogue_loading import find_difference
from productrec.retrieval.embedding_set import IMAGE, EmbeddingSet, check_embeddings, check_modality
from productrec.retrieval.index import check_queries
from productrec.retrieval.milvus import MOST_NEIGHBOURS, Address, Server, parse_address
from productrec.retrieval.remote_search import search_remote
from productrec.retrieval.remote_tables import (
    About,
    Block,
    RemoteClass,
    Tables,
    check_texts,
    find_tables,
    gather,
    hash_texts,
    read_about,
    read_classes,
    scan_rows,
    write_about,
    write_classes,
    write_rows,
)
from productrec.retrieval.segments import GrownRows

_SAME = 0.999  # similarity of what one image was embedded to twice
_WHOLE = ("row", "class_code", "image_id", "path", "embedding")


class _State(NamedTuple):
    """What is known of the server's side; never changed, so that a search goes on while another thread renews it."""

    tables: Tables
    about: About
    codes: list[int]
    classes: list[RemoteClass]
    positions: dict[int, int]


class RemoteCatalogue:
    """A catalogue by its address. Rows are numbers that stand for image ids, wherever they are read.

    Any number of processes may search, grow and remove: each change is of rows by their ids.
    """

    def __init__(self, address: str | Address, tables: Tables | None = None) -> None:
        """Open ``http://HOST:PORT/NAME``; ``tables``: of a copy that the name does not stand for yet.

        Raises:
            ArtifactError: there is no complete catalogue of that name.
            RecipeError: the address is none, or pymilvus is not installed.
            StorageError: no server answers.
        """
        self.address = parse_address(address) if isinstance(address, str) else address
        if self.address.name is None:
            raise ArtifactError(f"{self.address}: must end in the name of a catalogue; got none.")
        self.server = Server(self.address.uri)
        self._tables = tables
        self._state = self._load()
        self._seen: dict[int, tuple[int, str]] = {}  # class code and id of the rows that the last search found

    def _load(self) -> _State:
        tables = self._find_tables()
        if tables is None:
            raise ArtifactError(
                f"{self.address}: no catalogue of this name. Copy one there: productrec index copy RUN {self.address}"
            )
        about = read_about(self.server, tables, self.address)
        classes = read_classes(self.server, tables)
        return _State(
            tables, about, list(classes), list(classes.values()), {code: place for place, code in enumerate(classes)}
        )

    def _find_tables(self) -> Tables | None:
        assert self.address.name is not None
        return self._tables or find_tables(self.server, self.address.name)

    @property
    def about(self) -> About:
        """What is told of the catalogue."""
        return self._state.about

    @property
    def keys(self) -> list[str]:
        """Keys of all classes that ever had rows; `get_classes` speaks of their positions."""
        return [one.key for one in self._state.classes]

    @property
    def names(self) -> dict[str, str]:
        """What grown classes are called, by key."""
        return {one.key: one.name for one in self._state.classes if one.name}

    @property
    def removed(self) -> set[str]:
        """Keys of the classes that were taken out."""
        return {one.key for one in self._state.classes if one.is_removed}

    @property
    def weights_digest(self) -> str:
        """Of the network whose embeddings it takes."""
        return self.about.weights_digest

    @property
    def dim(self) -> int:
        """D of these embeddings."""
        return self.about.dim

    def __len__(self) -> int:
        """Rows that can be found."""
        return self.server.count(self._state.tables.rows)

    def get_classes(self, rows: np.ndarray) -> np.ndarray:
        """Position of the class of each row among `keys`, int64."""
        seen = self._look_up(rows)
        codes = np.array([seen[row][0] for row in rows.ravel().tolist()], np.int64)
        return self.get_positions(codes).reshape(rows.shape)

    def get_positions(self, codes: np.ndarray) -> np.ndarray:
        """Position among `keys` of each class (N,) as it is written in a row.

        Raises:
            ArtifactError: a class is not known here; another process has added it.
        """
        positions = self._state.positions
        unknown = set(codes.tolist()) - set(positions)
        if unknown:
            raise ArtifactError(f"{self.address}: {len(unknown)} classes were added meanwhile. Run the command again.")
        return np.array([positions[code] for code in codes.tolist()], np.int64)

    def scan(self) -> Iterator[Block]:
        """All rows that can be found, a block at a time."""
        return scan_rows(self.server, self._state.tables, self.dim)

    def get_ids(self, rows: np.ndarray) -> list[str]:
        """Image ids of rows (N,)."""
        seen = self._look_up(rows)
        return [seen[row][1] for row in rows.tolist()]

    def _look_up(self, rows: np.ndarray) -> dict[int, tuple[int, str]]:
        seen = self._seen
        wanted = np.unique(rows).tolist()
        lost = [row for row in wanted if row not in seen]
        if lost:
            found = self.server.get(self._state.tables.rows, lost, ["row", "class_code", "image_id"])
            seen = seen | {one["row"]: (one["class_code"], one["image_id"]) for one in found}
            gone = [row for row in wanted if row not in seen]
            if gone:
                raise ArtifactError(f"{self.address}: {len(gone)} rows were removed meanwhile. Run the command again.")
        return seen

    def get_grown_rows(self) -> GrownRows:
        """The rows that can be found and were grown."""
        state = self._state
        blocks = list(scan_rows(self.server, state.tables, self.dim, where="is_grown == true"))
        known = [(block, place) for block in blocks for place in range(len(block.ids))]
        known = [(block, place) for block, place in known if int(block.codes[place]) in state.positions]
        told = [state.classes[state.positions[int(block.codes[place])]] for block, place in known]
        embeddings = np.array([block.embeddings[place] for block, place in known], np.float32)
        return GrownRows(
            [block.ids[place] for block, place in known],
            [one.key for one in told],
            {one.key: one.name or one.key for one in told},
            [block.paths[place] for block, place in known],
            embeddings.reshape(len(known), self.dim),
        )

    def get_embeddings(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings (N, D) float32 of rows."""
        found = self.server.get(self._state.tables.rows, np.unique(rows).tolist(), ["row", "embedding"])
        vectors = {one["row"]: one["embedding"] for one in found}
        return np.array([vectors[row] for row in rows.tolist()], np.float32).reshape(len(rows), self.dim)

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Row of each image id, int64; -1 where none of that id can be found."""
        rows = hash_texts(ids)
        found = self.server.get(self._state.tables.rows, rows.tolist(), ["row", "image_id"])
        known = {one["row"]: one["image_id"] for one in found}
        return np.array(
            [row if known.get(row) == image_id else -1 for row, image_id in zip(rows.tolist(), ids, strict=True)],
            np.int64,
        )

    def list_ids(self) -> list[str]:
        """Image ids of the rows that can be found."""
        blocks = self.server.scan(self._state.tables.rows, ["image_id"], row_bytes=256)
        return [one["image_id"] for block in blocks for one in block]

    def has_class(self, key: str) -> bool:
        """Whether a class has rows that can be found."""
        return self.server.count(self._state.tables.rows, f"class_code == {hash_texts([key])[0]}") > 0

    def describe(self) -> dict[str, Any]:
        """Kind of index, effort, recall, rows, classes and what the server is, as plain values."""
        about, rows = self.about, self._state.tables.rows
        grown = self.server.count(rows, "is_grown == true")
        return {
            "kind": about.kind,
            "effort": about.effort,
            "recall": about.recall,
            "rows": len(self),
            "classes": len(self.keys) - len(self.removed),
            "base": about.base,
            "grown": grown,
            "removed": len(self.removed),
            "dim": about.dim,
            "views": about.views,
            "weights": about.weights_digest,
            "server": self.server.version,
        }

    def describe_changes(self) -> str:
        """What was grown and removed since the index was built, as a person reads it; empty where nothing was."""
        grown = self.server.count(self._state.tables.rows, "is_grown == true")
        said = [f"{grown:,} images more"] if grown else []
        return ", ".join(said + ([f"{len(self.removed):,} classes removed"] if self.removed else []))

    def refresh(self) -> bool:
        """Take in the classes that other processes have added or removed; whether there was anything."""
        tables, state = self._find_tables(), self._state
        if tables == state.tables and read_about(self.server, tables, self.address).change == state.about.change:
            return False
        self._state = self._load()
        self._seen = {}
        return True

    def search(self, queries: EmbeddingSet, k: int, *, effort: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` most similar rows of each query; all that can be found, where those are fewer.

        Classes that another process has added since `refresh` are passed over.

        Args:
            queries: Q embeddings.
            k: neighbours of each.
            effort: lists (``ivf_sq8``) or open candidates (``hnsw``) that are looked into; None for the catalogue's.

        Returns:
            Rows (Q, K) int64 and similarities (Q, K) float32, descending, exact whatever the kind; K may be 0.

        Raises:
            ArtifactError: see `productrec.retrieval.index.search_index`, or ``k`` is more than Milvus finds.
            StorageError: the server does not answer.
        """
        about = self.about
        check_queries(
            queries, weights_digest=about.weights_digest, dim=about.dim, side_px=about.side_px, where=str(self.address)
        )
        check_modality(queries, asdict(about), str(self.address))
        if k > MOST_NEIGHBOURS:
            raise ArtifactError(f"{self.address}: k must be at most {MOST_NEIGHBOURS:,}, as Milvus is; got {k:,}.")
        state = self._state
        rows, similarities, self._seen = search_remote(
            self.server,
            state.tables,
            about,
            state.positions.keys(),
            np.ascontiguousarray(queries.embeddings, dtype=np.float32),
            k,
            effort=about.effort if effort is None else effort,
        )
        return rows, similarities

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
        """Add rows; as `Catalogue.grow`, once this returns the server has them, and they are found.

        Raises:
            ArtifactError: see `Catalogue.grow`, or a name is too long for the server.
            StorageError: the server does not answer; run it again, what is there is passed over.
        """
        check_embeddings(rows.embeddings, rows.ids, "grow")
        if len(set(rows.ids)) < len(rows.ids):
            twice = [image_id for image_id, count in Counter(rows.ids).items() if count > 1]
            raise ArtifactError(f"{self.address}: image ids must be unique; {describe_offenders(twice)} come twice.")
        self.refresh()
        made = {"weights_digest": weights_digest, "views": list(views), "side_px": side_px}
        made |= {"modality": modality, "tower": tower}
        self._check_made({**made, "dim": rows.embeddings.shape[1]})
        check_texts(self.address, [*rows.ids, *rows.keys, *rows.names.values(), *rows.paths])
        numbers, codes = hash_texts(rows.ids), hash_texts(rows.keys)
        records = self.server.get(self._state.tables.rows, numbers.tolist(), _WHOLE)
        known = gather(records, self.dim)
        here = {row: place for place, row in enumerate(known.rows.tolist())}
        new, wrong = [], []
        for place, row in enumerate(numbers.tolist()):
            if row not in here:
                new.append(place)
                continue
            one = here[row]
            alike = float(known.embeddings[one] @ rows.embeddings[place]) >= _SAME
            if not (alike and known.codes[one] == codes[place] and known.ids[one] == rows.ids[place]):
                wrong.append(rows.ids[place])
        if wrong:
            raise ArtifactError(
                f"{self.address}: image ids must be new; {describe_offenders(wrong)} are of other images, or stand in "
                "another class. Rename the files, or remove their classes first."
            )
        if not new:
            return []
        grown = dict.fromkeys(rows.keys[place] for place in new)
        tables = self._state.tables
        write_classes(self.server, tables, [RemoteClass(key, rows.names.get(key, key), False) for key in grown])
        block = Block(
            numbers[new],
            codes[new],
            [rows.ids[place] for place in new],
            [rows.paths[place] for place in new],
            rows.embeddings[new],
        )
        write_rows(self.server, tables, block, is_grown=np.ones(len(new), dtype=bool))
        self._tell_change()
        return block.ids

    def _check_made(self, notes: dict[str, Any]) -> None:
        if difference := find_difference(asdict(self.about), notes):
            what, wanted, got = difference
            raise ArtifactError(
                f"{self.address}: {what} of grown rows must be those of the index, {wanted}; got {got}. Take the "
                "network and views that the copied index was made with."
            )

    def remove(self, keys: Sequence[str]) -> int:
        """Take classes out, by key; how many rows went.

        Raises:
            DataError: a class has no row that can be found; then none goes.
            StorageError: the server does not answer; run it again.
        """
        self.refresh()
        wanted = list(dict.fromkeys(keys))
        unknown = [key for key in wanted if not self.has_class(key)]
        if unknown:
            living = [one.key for one in self._state.classes if not one.is_removed]
            near = difflib.get_close_matches(unknown[0], living, n=3)
            raise DataError(
                f"{self.address}: classes must be in the index; {describe_offenders(unknown)} are not."
                + (f" Near to {unknown[0]!r}: {', '.join(near)}." if near else "")
            )
        state, before = self._state, len(self)
        codes = hash_texts(wanted).tolist()
        told = [state.classes[state.positions[code]] for code in codes]
        # Marked first: after a kill the classes still have rows, so that the same command goes on.
        write_classes(self.server, state.tables, [one._replace(is_removed=True) for one in told])
        self.server.delete(state.tables.rows, f"class_code in {codes}")
        self._tell_change()
        return before - len(self)

    def _tell_change(self) -> None:
        write_about(self.server, self._state.tables, replace(self.about, change=secrets.token_hex(8)))
        self.refresh()
