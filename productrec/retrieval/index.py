"""The index: a gallery made searchable, as it lies on disk, with the classes of its rows and the network behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.class_order import ClassOrder
from productrec.errors import ArtifactError
from productrec.retrieval.blocks import CheckedBlocks, write_block_digests
from productrec.retrieval.choice import EXACT_UP_TO, Tuned, Wanted, choose_kinds, tune_effort
from productrec.retrieval.embedding_set import EmbeddingSet, check_embeddings, check_modality, read_weights_digest
from productrec.retrieval.engine import (
    build_engine,
    build_structure,
    count_codes,
    has_kind,
    map_rows,
    read_structure,
    write_engine,
)
from productrec.retrieval.id_places import PLACE_BYTES, find_places, read_names, write_names, write_places
from productrec.retrieval.searcher import Effort, Searcher
from productrec.runtime import measure_free_memory

INDEX_KIND = "index"
NO_CLASS = -1  # label of a row of a gallery without classes, whose key is empty
_ROWS, _DIGESTS, _STRUCTURE, _PLACES = "index.faiss", "index.blocks", "structure.faiss", "places.npy"
_NAMES, _NAME_ENDS = "names.bin", "name_ends.npy"


@dataclass(frozen=True)
class Index:
    """A searchable gallery.

    ``labels`` (M,) are the class ids of its rows; ``keys``: what these classes are known by whatever their ids, empty
    in an older artefact; ``weights_digest``: of the network whose embeddings it takes; ``notes``: what the manifest
    says of the gallery's views and of the search.
    """

    searcher: Searcher
    labels: np.ndarray
    weights_digest: str
    fingerprint: str
    keys: dict[int, str]
    folder: Path
    notes: dict[str, Any]

    @cached_property
    def classes(self) -> np.ndarray:
        """(M,) int64 position of each row's class among ``keys``, -1 where it is none of them."""
        return ClassOrder(list(self.keys)).positions_of(self.labels)

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Row of each image id, int64; -1 where it is not there."""
        path = self.folder / _PLACES
        if path.exists():
            return find_places(path, ids)
        return np.array([self._rows_by_id.get(image_id, -1) for image_id in ids], dtype=np.int64)

    def get_ids(self, rows: np.ndarray) -> list[str]:
        """Image id of each row (N,)."""
        names, ends = self.folder / _NAMES, self.folder / _NAME_ENDS
        if names.exists():
            return read_names(names, ends, rows)
        return [self._ids[row] for row in rows.tolist()]

    @cached_property
    def _ids(self) -> list[str]:
        return self.load_ids()

    @cached_property
    def _rows_by_id(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self._ids)}

    def load_ids(self) -> list[str]:
        """Image ids of the rows (M)."""
        ids: list[str] = json.loads((self.folder / "gallery.json").read_text(encoding="utf-8"))
        return ids


def save_index(
    folder: Path,
    gallery: EmbeddingSet,
    labels: Sequence[int],
    *,
    inputs: dict[str, str],
    settings: dict[str, Any],
    keys: Mapping[int, str] | None = None,
    kind: Wanted = "exact",
    recall: float = 0.97,
    beside: Mapping[str, object] | None = None,
) -> Tuned | None:
    """Build the index of a gallery and write it.

    Args:
        folder: where to.
        gallery: M embeddings.
        labels: (M,) class id of each row.
        inputs: fingerprints for the manifest.
        settings: of the manifest.
        keys: what each class is known by, whatever its id.
        kind: of index; ``auto`` chooses, see `productrec.retrieval.choice.choose_kinds`.
        recall: share of the ten nearest rows that an approximate index must find.
        beside: more JSON files to write, by name.

    Returns:
        How an approximate index searches, and the recall measured on rows of the gallery; None for exact search.

    Raises:
        ArtifactError: the gallery is empty, a row is not finite or not of unit norm, or the installed FAISS does not
            have the kind.
    """
    if not len(gallery.ids):
        raise ArtifactError(f"{folder}: a gallery must hold at least one image; got none.")
    if kind in ("hnsw", "ivf", "rabitq") and not has_kind(kind):
        raise ArtifactError(f"{folder}: the installed FAISS has no index of kind {kind}. Choose ivf, or update FAISS.")
    check_embeddings(gallery.embeddings, gallery.ids, "gallery")
    notes: dict[str, Any] = {"weights_digest": gallery.weights_digest, "views": gallery.views}
    notes |= {"modality": gallery.modality, "tower": gallery.tower}
    notes |= {"side_px": gallery.side_px, "rows": len(gallery.ids), "dim": gallery.embeddings.shape[1]}
    with write_artifact(folder, kind=INDEX_KIND, inputs=inputs, settings=settings, notes=notes) as temporary:
        write_engine(build_engine(gallery.embeddings), temporary / _ROWS)
        write_block_digests(temporary / _ROWS, temporary / _DIGESTS)
        tuned = _build(temporary, kind, recall, notes)
        np.save(temporary / "labels.npy", np.asarray(labels, dtype=np.int64))
        write_json(temporary / "gallery.json", gallery.ids)
        write_places(temporary / _PLACES, gallery.ids)
        write_names(temporary / _NAMES, temporary / _NAME_ENDS, gallery.ids)
        write_json(temporary / "keys.json", {str(class_id): key for class_id, key in (keys or {}).items()})
        for name, value in (beside or {}).items():
            write_json(temporary / name, value)
    return tuned


def _build(folder: Path, wanted: Wanted, recall: float, notes: dict[str, Any]) -> Tuned | None:
    """Write the structure that the rows in ``folder`` are to be searched by, if any."""
    flat = map_rows(folder / _ROWS)
    notes["search"] = {"kind": "exact"}
    for kind in choose_kinds(wanted, rows=flat.ntotal, dim=flat.d, memory_bytes=measure_free_memory()):
        if kind == "exact":
            break
        structure = build_structure(kind, flat)
        tuned = tune_effort(Searcher(flat, kind=kind, structure=structure, use_gpu=False), recall)
        if tuned is not None:
            write_engine(structure, folder / _STRUCTURE, with_rows=False)
            measured = {"recall": round(tuned.recall, 4), "standard_error": round(tuned.error, 4)}
            notes["search"] = {"kind": kind, **tuned.effort._asdict(), **measured}
            return tuned
    return None


def count_index_bytes(rows: int, dim: int) -> int:
    """Bytes of an index's arrays: embeddings, labels, places and ends of ids, and, of many rows, codes of lists."""
    codes = count_codes(dim) // 2 + np.dtype(np.int64).itemsize if rows > EXACT_UP_TO else 0
    return rows * (dim * np.dtype(np.float32).itemsize + np.dtype(np.int64).itemsize + PLACE_BYTES + codes)


def load_index(folder: Path) -> Index:
    """Read an index: its rows are mapped, and checked block by block as they are touched.

    It is searched on the GPU where FAISS finds one that works.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=INDEX_KIND)
    in_blocks = _DIGESTS in manifest.files  # not in an artefact of an earlier version
    check_files(folder, manifest, unread=(_ROWS,) if in_blocks else ())
    blocks = CheckedBlocks(folder / _ROWS, folder / _DIGESTS) if in_blocks else None
    if blocks is not None:
        blocks.check_spans(np.zeros(1, np.int64), 1)  # FAISS reads the head of the file
    flat = map_rows(folder / _ROWS)
    search = manifest.notes.get("search", {"kind": "exact"})
    structure = read_structure(folder / _STRUCTURE, flat) if search["kind"] != "exact" else None
    row_bytes = flat.ntotal * flat.d * np.dtype(np.float32).itemsize
    searcher = Searcher(
        flat,
        kind=search["kind"],
        structure=structure,
        effort=Effort(int(search.get("lists", 0)), int(search.get("candidates", 1))),
        blocks=blocks,
        header_bytes=int(manifest.files[_ROWS]["bytes"]) - row_bytes,
    )
    known = folder / "keys.json"
    keys = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    return Index(
        searcher,
        np.load(folder / "labels.npy", mmap_mode="r"),
        read_weights_digest(folder, manifest),
        manifest.fingerprint,
        {int(class_id): str(key) for class_id, key in keys.items()},
        folder,
        manifest.notes,
    )


def has_keys(folder: Path) -> bool:
    """Whether an index knows its classes by their keys, as all do but those of earlier versions."""
    known = folder / "keys.json"
    return known.exists() and bool(json.loads(known.read_text(encoding="utf-8")))


def check_queries(queries: EmbeddingSet, *, weights_digest: str, dim: int, side_px: int | None, where: str) -> None:
    """Refuse queries that cannot be compared with a gallery.

    Args:
        queries: Q embeddings.
        weights_digest: of the gallery's network.
        dim: D of the gallery.
        side_px: of the squares that the gallery's network saw; None where that is not known.
        where: begins the message.

    Raises:
        ArtifactError: weights, preprocessing or size differ, by name, or a row is not finite or not of unit norm.
    """
    if queries.weights_digest != weights_digest:
        raise ArtifactError(
            f"{where}: queries must come from the network that made the gallery; "
            f"got weights {queries.weights_digest[:12]} and {weights_digest[:12]}. Embed both with one checkpoint."
        )
    if queries.embeddings.shape[1] != dim:
        raise ArtifactError(
            f"{where}: queries must have the size of the gallery's embeddings, {dim}; got "
            f"{queries.embeddings.shape[1]}. Embed both with one checkpoint."
        )
    if None not in (queries.side_px, side_px) and queries.side_px != side_px:
        raise ArtifactError(
            f"{where}: queries must be seen as squares of side_px {side_px}, as the gallery was; got "
            f"{queries.side_px}. Embed both with the same settings."
        )
    check_embeddings(queries.embeddings, queries.ids, "queries")


def search_index(index: Index, queries: EmbeddingSet, k: int, *, across: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` most similar gallery rows of each query (all of them, where the gallery is smaller).

    ``across``: queries may be of another modality, which the same network embedded into one space.

    Returns:
        Rows (Q, K) int64 and similarities (Q, K) float32, descending.

    Raises:
        ArtifactError: the queries are of another network, size or preprocessing, a row is not finite or not of unit
            norm, or what the search touched of the index is damaged.
    """
    searcher = index.searcher
    side_px = index.notes.get("side_px")
    check_queries(queries, weights_digest=index.weights_digest, dim=searcher.dim, side_px=side_px, where="index")
    if not across:
        check_modality(queries, index.notes, "index")
    similarities, rows = searcher.search(queries.embeddings, min(k, len(index.labels)))
    if (rows < 0).any():
        raise ArtifactError(
            "index: the search gave rows that are not in the gallery; the index is damaged. Build it again."
        )
    return rows, similarities
