"""Neighbour sets: the nearest gallery rows of every query of a split, on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.retrieval.embedding_set import EmbeddingSet
from productrec.retrieval.index import Index, search_index

NEIGHBOURS_KIND = "neighbour set"


@dataclass(frozen=True)
class Neighbours:
    """Nearest gallery rows: ``rows`` (Q, K) int64, ``similarities`` (Q, K) float32 descending, ``labels`` (Q, K)."""

    ids: list[str]
    rows: np.ndarray
    similarities: np.ndarray
    labels: np.ndarray
    fingerprint: str


def save_neighbours(
    folder: Path, index: Index, queries: EmbeddingSet, k: int, *, inputs: dict[str, str], settings: dict[str, Any]
) -> None:
    """Search and write the neighbour set."""
    rows, similarities = search_index(index, queries, k)
    write_neighbours(
        folder,
        ids=queries.ids,
        rows=rows,
        similarities=similarities,
        labels=index.labels[rows],
        inputs=inputs,
        settings=settings,
    )


def write_neighbours(
    folder: Path,
    *,
    ids: Sequence[str],
    rows: np.ndarray,
    similarities: np.ndarray,
    labels: np.ndarray,
    inputs: dict[str, str],
    settings: dict[str, Any],
) -> None:
    """Write what a search found; arguments as in `Neighbours` and `write_artifact`."""
    with write_artifact(folder, kind=NEIGHBOURS_KIND, inputs=inputs, settings=settings) as temporary:
        np.save(temporary / "rows.npy", rows)
        np.save(temporary / "similarities.npy", similarities)
        np.save(temporary / "labels.npy", labels)
        write_json(temporary / "ids.json", list(ids))


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
