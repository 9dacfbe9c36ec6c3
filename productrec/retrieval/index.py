"""The index: exact inner-product search over a gallery; the one user of FAISS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.errors import ArtifactError
from productrec.retrieval.embedding_set import EmbeddingSet, check_embeddings, read_weights_digest

INDEX_KIND = "index"
NEIGHBOURS_KIND = "neighbour set"
_QUERIES_AT_A_TIME = 1024  # of a range search, whose answers have no bound


@dataclass(frozen=True)
class Index:
    """A searchable gallery.

    ``labels`` (M,) are the class ids of its rows; ``keys``: what these classes are known by whatever their ids, empty
    in an older artefact; ``weights_digest``: of the network whose embeddings it takes.
    """

    engine: faiss.Index
    labels: np.ndarray
    weights_digest: str
    fingerprint: str
    keys: dict[int, str]


@dataclass(frozen=True)
class Neighbours:
    """Nearest gallery rows: ``rows`` (Q, K) int64, ``similarities`` (Q, K) float32 descending, ``labels`` (Q, K)."""

    ids: list[str]
    rows: np.ndarray
    similarities: np.ndarray
    labels: np.ndarray
    fingerprint: str


def save_index(
    folder: Path,
    gallery: EmbeddingSet,
    labels: Sequence[int],
    *,
    inputs: dict[str, str],
    settings: dict[str, Any],
    keys: Mapping[int, str] | None = None,
) -> None:
    """Build the index of a gallery and write it.

    Args:
        folder: where to.
        gallery: M embeddings.
        labels: (M,) class id of each row.
        inputs: fingerprints for the manifest.
        settings: of the manifest.
        keys: what each class is known by, whatever its id.

    Raises:
        ArtifactError: the gallery is empty, or a row is not finite or not of unit norm.
    """
    if not len(gallery.ids):
        raise ArtifactError(f"{folder}: a gallery must hold at least one image; got none.")
    check_embeddings(gallery.embeddings, gallery.ids, "gallery")
    engine = build_engine(gallery.embeddings)
    notes = {"weights_digest": gallery.weights_digest}
    with write_artifact(folder, kind=INDEX_KIND, inputs=inputs, settings=settings, notes=notes) as temporary:
        faiss.write_index(engine, str(temporary / "index.faiss"))
        np.save(temporary / "labels.npy", np.asarray(labels, dtype=np.int64))
        write_json(temporary / "gallery.json", gallery.ids)
        write_json(temporary / "keys.json", {str(class_id): key for class_id, key in (keys or {}).items()})


def count_index_bytes(rows: int, dim: int) -> int:
    """Bytes of the arrays of an index: embeddings and labels."""
    return rows * (dim * np.dtype(np.float32).itemsize + np.dtype(np.int64).itemsize)


def build_engine(embeddings: np.ndarray) -> faiss.Index:
    """Exact inner-product search over embeddings (M, D)."""
    engine = faiss.IndexFlatIP(embeddings.shape[1])
    engine.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    return engine


def load_index(folder: Path) -> Index:
    """Read an index; it lies on the GPU where FAISS finds one.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=INDEX_KIND)
    check_files(folder, manifest)
    engine = faiss.read_index(str(folder / "index.faiss"))
    labels = np.load(folder / "labels.npy")
    known = folder / "keys.json"
    keys = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    return Index(
        move_to_gpu(engine),
        labels,
        read_weights_digest(folder, manifest),
        manifest.fingerprint,
        {int(class_id): str(key) for class_id, key in keys.items()},
    )


def move_to_gpu(engine: faiss.Index) -> faiss.Index:
    """The index on the first GPU, or as it is where FAISS finds none or the GPU refuses it (too full, too old)."""
    if not count_gpus():
        return engine
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, engine)
    except RuntimeError:
        return engine


def count_gpus() -> int:
    """GPUs that FAISS can search on."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def search_index(index: Index, queries: EmbeddingSet, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` most similar gallery rows of each query (all of them, where the gallery is smaller).

    Returns:
        Rows (Q, K) int64 and similarities (Q, K) float32, descending.

    Raises:
        ArtifactError: the queries are of another network, or a row is not finite or not of unit norm.
    """
    if queries.weights_digest != index.weights_digest:
        raise ArtifactError(
            "index: queries must come from the network that made the gallery; "
            f"got weights {queries.weights_digest[:12]} and {index.weights_digest[:12]}. "
            "Embed both with one checkpoint."
        )
    check_embeddings(queries.embeddings, queries.ids, "queries")
    count = min(k, len(index.labels))
    if not len(queries.ids):
        return np.empty((0, count), np.int64), np.empty((0, count), np.float32)
    similarities, rows = index.engine.search(np.ascontiguousarray(queries.embeddings, dtype=np.float32), count)
    if (rows < 0).any():
        raise ArtifactError(
            "index: the search gave rows that are not in the gallery; the index is damaged. Build it again."
        )
    return rows, similarities


def search_rows(
    queries: np.ndarray, gallery: np.ndarray, k: int, *, own_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` most similar gallery rows of each query, its own row left out by number, not by similarity.

    Args:
        queries: (Q, D) float32, unit rows.
        gallery: (M, D) float32, unit rows.
        k: how many; all there are, where those are fewer.
        own_rows: (Q,) each query's row in the gallery; None where no query is in it.

    Returns:
        Rows (Q, K) int64 and similarities (Q, K) float32, descending.
    """
    engine = move_to_gpu(build_engine(gallery))
    wanted = np.ascontiguousarray(queries, dtype=np.float32)
    if own_rows is None:
        similarities, rows = engine.search(wanted, min(k, len(gallery)))
        return rows, similarities
    similarities, rows = engine.search(wanted, min(k + 1, len(gallery)))
    # Among more than k + 1 equal rows a query's own may be missing; then its last neighbour goes.
    is_own = rows == own_rows[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    shape = (len(rows), rows.shape[1] - 1)
    return rows[~is_own].reshape(shape), similarities[~is_own].reshape(shape)


def search_close_pairs(embeddings: np.ndarray, least_similarity: float, *, most: int) -> np.ndarray:
    """Pairs of rows at least as similar as ``least_similarity``, the most similar first.

    Args:
        embeddings: (N, D) float32, unit rows.
        least_similarity: below 1.
        most: pairs at most, and twice as many at most in memory.

    Returns:
        (P, 2) int64, the lower row first.
    """
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    engine = build_engine(rows)
    pairs, similarities = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    for start in range(0, len(rows), _QUERIES_AT_A_TIME):
        limits, near, neighbours = engine.range_search(rows[start : start + _QUERIES_AT_A_TIME], least_similarity)
        queries = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64))
        upper = neighbours > queries
        pairs = np.concatenate([pairs, np.stack([queries[upper], neighbours[upper]], axis=1)])
        similarities = np.concatenate([similarities, near[upper]])
        if len(pairs) > most:
            order = np.argsort(-similarities, kind="stable")[:most]
            pairs, similarities = pairs[order], similarities[order]
    return pairs[np.argsort(-similarities, kind="stable")].astype(np.int64)


def save_neighbours(
    folder: Path, index: Index, queries: EmbeddingSet, k: int, *, inputs: dict[str, str], settings: dict[str, Any]
) -> None:
    """Search and write the neighbour set."""
    rows, similarities = search_index(index, queries, k)
    with write_artifact(folder, kind=NEIGHBOURS_KIND, inputs=inputs, settings=settings) as temporary:
        np.save(temporary / "rows.npy", rows)
        np.save(temporary / "similarities.npy", similarities)
        np.save(temporary / "labels.npy", index.labels[rows])
        write_json(temporary / "ids.json", queries.ids)


def count_neighbours_bytes(queries: int, k: int) -> int:
    """Bytes of the arrays of a neighbour set: rows, similarities and labels."""
    return queries * k * (2 * np.dtype(np.int64).itemsize + np.dtype(np.float32).itemsize)


def load_neighbours(folder: Path) -> Neighbours:
    """Read a neighbour set.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=NEIGHBOURS_KIND)
    check_files(folder, manifest)
    return Neighbours(
        ids=json.loads((folder / "ids.json").read_text(encoding="utf-8")),
        rows=np.load(folder / "rows.npy", mmap_mode="r"),
        similarities=np.load(folder / "similarities.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy", mmap_mode="r"),
        fingerprint=manifest.fingerprint,
    )
