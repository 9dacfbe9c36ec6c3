"""Embedding sets: what a network says of the images of one split, on disk, with the fingerprint of how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import Manifest, check_files, compute_digest, load_manifest, write_artifact, write_json
from productrec.errors import ArtifactError, describe_offenders
from productrec.retrieval.stored_rows import Stored, encode_rows, read_rows

KIND = "embedding set"
TEXT = "text"  # the modality of titles, and the tower that reads them
JOINED = "joined"  # image and title, one behind the other
IMAGE = "image"  # the modality of pictures, and the tower that sees them; older artefacts say neither
_CHECKED_AT_A_TIME = 65_536


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of some images.

    ``ids``: (N,) image ids; ``embeddings``: (N, D) float32 of unit norm; ``logits``: (N, C) float32 in the order of
    ``class_ids``, or None for a set that is only searched in; ``views``: names of the views that were averaged;
    ``weights_digest``: of the network, equal for sets that may be compared; ``broken``: unreadable ids;
    ``side_px``: of the squares that the network saw, None where that is not known; ``modality``: of what was embedded,
    and ``tower``: by which part of the network.
    """

    ids: list[str]
    embeddings: np.ndarray
    logits: np.ndarray | None
    class_ids: list[int]
    views: list[str]
    weights_digest: str
    broken: dict[str, str]
    fingerprint: str
    side_px: int | None = None
    modality: str = IMAGE
    tower: str = IMAGE


class EmbeddingWriter:
    """Fills an embedding set batch by batch, straight onto the disk; several processes may fill one together."""

    def __init__(
        self,
        folder: Path,
        ids: Sequence[str],
        dim: int,
        class_count: int | None,
        *,
        stored: Stored = "float32",
        is_first: bool = True,
    ) -> None:
        """``is_first``: makes the files; other processes, which open them later, do not."""
        self.folder = folder
        self._ids = ids
        self._embeddings = _open_rows(folder / "embeddings.npy", stored, (len(ids), dim), is_new=is_first)
        self._logits = None
        if class_count is not None:
            self._logits = _open_rows(folder / "logits.npy", "float32", (len(ids), class_count), is_new=is_first)
        self._broken: dict[int, str] = {}

    def write(self, rows: np.ndarray, embeddings: np.ndarray, logits: np.ndarray) -> None:
        """Store a batch: positions (B,), embeddings (B, D), logits (B, C)."""
        self._embeddings[rows] = encode_rows(embeddings, self._embeddings.dtype)
        if self._logits is not None:
            self._logits[rows] = logits

    def mark_broken(self, broken: dict[int, str]) -> None:
        """Positions of the images that cannot be read, with their reasons."""
        self._broken.update(broken)

    def flush(self) -> None:
        """Let other processes see what was written."""
        for array in (self._embeddings, self._logits):
            if array is not None:
                array.flush()

    def finish(self) -> dict[str, str]:
        """Drop broken rows, write the ids, and return the broken ids with their reasons."""
        kept = np.array([row not in self._broken for row in range(len(self._ids))], dtype=bool)
        arrays = {"embeddings.npy": self._embeddings}
        if self._logits is not None:
            arrays["logits.npy"] = self._logits
        for name, array in arrays.items():
            array.flush()
            if self._broken:
                np.save(self.folder / name, np.asarray(array)[kept])
        write_json(self.folder / "ids.json", [image_id for image_id, keep in zip(self._ids, kept, strict=True) if keep])
        return {self._ids[row]: reason for row, reason in sorted(self._broken.items())}


def _open_rows(path: Path, dtype: str, shape: tuple[int, int], *, is_new: bool) -> np.memmap:
    if not is_new:
        mapped: np.memmap = np.load(path, mmap_mode="r+")
        return mapped
    return np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)


@contextmanager
def write_embedding_set(
    folder: Path,
    ids: Sequence[str],
    *,
    dim: int,
    class_ids: Sequence[int],
    keep_logits: bool,
    views: Sequence[str],
    weights_digest: str,
    inputs: dict[str, str],
    settings: dict[str, Any],
    stored: Stored = "float32",
    modality: str = IMAGE,
    tower: str = IMAGE,
) -> Iterator[EmbeddingWriter]:
    """Write an embedding set; the block fills every row through the writer it is given.

    Arguments as in `EmbeddingSet`; ``stored``: type of the embeddings on disk, see `stored_rows.encode_rows`.
    """
    notes: dict[str, Any] = {"class_ids": list(class_ids), "views": list(views), "weights_digest": weights_digest}
    notes |= {"modality": modality, "tower": tower}
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings, notes=notes) as temporary:
        writer = EmbeddingWriter(temporary, ids, dim, len(class_ids) if keep_logits else None, stored=stored)
        yield writer
        notes["broken"] = writer.finish()


def count_set_bytes(rows: int, dim: int, class_count: int | None, stored: Stored = "float32") -> int:
    """Bytes of the arrays of an embedding set; ``class_count``: of its logits, None for a set without."""
    return rows * (dim * np.dtype(stored).itemsize + (class_count or 0) * np.dtype(np.float32).itemsize)


def load_embedding_set(folder: Path) -> EmbeddingSet:
    """Read an embedding set; the arrays are memory maps, of which embeddings in fewer bits are read as float32.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=KIND)
    check_files(folder, manifest)
    logits = folder / "logits.npy"
    return EmbeddingSet(
        ids=json.loads((folder / "ids.json").read_text(encoding="utf-8")),
        embeddings=read_rows(np.load(folder / "embeddings.npy", mmap_mode="r")),
        logits=np.load(logits, mmap_mode="r") if logits.exists() else None,
        class_ids=[int(class_id) for class_id in manifest.notes["class_ids"]],
        views=list(manifest.notes["views"]),
        weights_digest=read_weights_digest(folder, manifest),
        broken=dict(manifest.notes.get("broken", {})),
        fingerprint=manifest.fingerprint,
        side_px=manifest.settings.get("side_px"),
        modality=manifest.notes.get("modality", IMAGE),
        tower=manifest.notes.get("tower", IMAGE),
    )


def read_weights_digest(folder: Path, manifest: Manifest) -> str:
    """The digest of the network that an embedding set or an index was made with.

    Raises:
        ArtifactError: an earlier version of productrec wrote it.
    """
    digest = manifest.notes.get("weights_digest")
    if digest is None:
        raise ArtifactError(
            f"{folder}: was written by an earlier version of productrec. Remove it, and predict with the run again."
        )
    return str(digest)


def join_embedding_sets(sets: Sequence[EmbeddingSet], *, keep_logits: bool) -> EmbeddingSet:
    """Several sets as one, row under row; logits only where they are to be kept, since they may be many.

    Raises:
        ArtifactError: they come from different networks, or were made otherwise, by name.
    """
    if len(sets) == 1:
        return sets[0]
    _check_parts(sets, keep_logits=keep_logits)
    logits = [part.logits for part in sets if part.logits is not None]
    return EmbeddingSet(
        ids=[image_id for part in sets for image_id in part.ids],
        embeddings=np.concatenate([part.embeddings for part in sets]),
        logits=np.concatenate(logits) if keep_logits and len(logits) == len(sets) else None,
        class_ids=sets[0].class_ids,
        views=sets[0].views,
        weights_digest=sets[0].weights_digest,
        broken={image_id: reason for part in sets for image_id, reason in part.broken.items()},
        fingerprint=compute_digest([part.fingerprint for part in sets]),
        side_px=sets[0].side_px,
        modality=sets[0].modality,
        tower=sets[0].tower,
    )


def _check_parts(sets: Sequence[EmbeddingSet], *, keep_logits: bool) -> None:
    made: dict[str, list[object]] = {
        "network (weights)": [part.weights_digest[:12] for part in sets],
        "modality": [part.modality for part in sets],
        "tower": [part.tower for part in sets],
        "size": [part.embeddings.shape[1] for part in sets],
        "preprocessing (side_px)": [part.side_px for part in sets],
        "list of views": [part.views for part in sets],
    }
    if keep_logits:
        made["class order"] = [part.class_ids for part in sets]
    for what, values in made.items():
        other = next((value for value in values if value != values[0]), values[0])
        if other != values[0]:
            raise ArtifactError(
                f"gallery: its parts must come from one {what}; got {str(values[0])[:60]} and {str(other)[:60]}. "
                "Embed them again."
            )


def check_modality(queries: EmbeddingSet, notes: Mapping[str, Any], where: str) -> None:
    """Refuse queries of another modality or tower than the gallery's, as its ``notes`` say.

    Raises:
        ArtifactError: by name.
    """
    for name, got in (("modality", queries.modality), ("tower", queries.tower)):
        wanted = notes.get(name, IMAGE)
        if got != wanted:
            raise ArtifactError(
                f"{where}: queries must be of the {name} of the gallery, {wanted}; got {got}. Embed both alike."
            )


def check_embeddings(embeddings: np.ndarray, ids: Sequence[str], where: str) -> None:
    """Refuse embeddings that cannot be compared.

    Raises:
        ArtifactError: a row is not finite or not of unit norm; the ids of the first few are named.
    """
    bad = list[int]()
    for start in range(0, len(embeddings), _CHECKED_AT_A_TIME):
        norms = np.linalg.norm(embeddings[start : start + _CHECKED_AT_A_TIME], axis=1)
        odd = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-3))  # written so that NaN is bad too
        bad += (start + odd).tolist()
    if bad:
        raise ArtifactError(
            f"{where}: embeddings must be finite and of unit norm; {describe_offenders(ids[row] for row in bad)} "
            "are not. "
            "Embed them again with a checkpoint that is sound."
        )
