"""Segments: what a gallery has gained and lost since its base was built, one small artefact a change, in their order.

`FOLDER.grown/000007` is the seventh change; `FOLDER.grown/base-000007` is a base that holds the first seven.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.errors import ArtifactError

SEGMENT_KIND = "index segment"
_NAME = re.compile(r"(base-)?(\d{6,})")
_ROWS, _TEXTS = "embeddings.npy", "rows.json"


@dataclass(frozen=True)
class GrownRows:
    """Rows of a gallery that came after its base.

    ``ids`` (N,): of the images; ``keys`` (N,): of their classes; ``names``: what classes are called, by key; ``paths``
    (N,): the files that were embedded; ``embeddings`` (N, D) float32, of unit norm.
    """

    ids: list[str]
    keys: list[str]
    names: dict[str, str]
    paths: list[str]
    embeddings: np.ndarray


@dataclass(frozen=True)
class Segment:
    """One change: the classes of ``removed`` go with all rows before it, then its own rows come."""

    number: int
    rows: GrownRows
    removed: list[str]
    notes: dict[str, Any]


def get_grown_folder(folder: Path) -> Path:
    """Where the changes of the index in ``folder`` lie."""
    return folder.with_name(f"{folder.name}.grown")


def list_changes(grown: Path) -> tuple[int, list[int]]:
    """The number of the newest base, 0 for the index that was grown, and those of the changes after it, ascending.

    Raises:
        ArtifactError: a change is missing.
    """
    bases, changes = [0], list[int]()
    for path in grown.iterdir() if grown.is_dir() else ():
        if found := _NAME.fullmatch(path.name):
            (bases if found[1] else changes).append(int(found[2]))
    base = max(bases)
    after = sorted(number for number in changes if number > base)
    if after != list(range(base + 1, base + 1 + len(after))):
        lost = next(number for number in range(base + 1, after[-1]) if number not in after)
        raise ArtifactError(f"{grown / f'{lost:06d}'}: this change of the index is missing. Put it back, or grow anew.")
    return base, after


def get_base_folder(grown: Path, number: int) -> Path:
    """Where the base lies that holds the first ``number`` changes."""
    return grown / f"base-{number:06d}"


def write_segment(grown: Path, number: int, rows: GrownRows, removed: Sequence[str], notes: dict[str, Any]) -> None:
    """Write a change; once this returns it is on the disk for good.

    Raises:
        ArtifactError: there is one of that number.
        StorageError: the disk refused; nothing has changed.
    """
    folder = grown / f"{number:06d}"
    if folder.exists():
        raise ArtifactError(f"{folder}: is there already; another process has written it. Run the command again.")
    with write_artifact(folder, kind=SEGMENT_KIND, notes=notes) as temporary:
        np.save(temporary / _ROWS, np.ascontiguousarray(rows.embeddings, dtype=np.float32))
        texts = {"ids": rows.ids, "keys": rows.keys, "names": rows.names, "paths": rows.paths}
        write_json(temporary / _TEXTS, {**texts, "removed": list(removed)})


def load_segment(grown: Path, number: int) -> Segment:
    """Read a change.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    folder = grown / f"{number:06d}"
    manifest = load_manifest(folder, kind=SEGMENT_KIND)
    check_files(folder, manifest)
    texts = json.loads((folder / _TEXTS).read_text(encoding="utf-8"))
    removed = texts.pop("removed")
    return Segment(number, GrownRows(embeddings=np.load(folder / _ROWS), **texts), removed, manifest.notes)


def drop_changes(grown: Path, base: int) -> None:
    """Remove what the base of this number holds: earlier bases and changes."""
    for path in list(grown.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found and (int(found[2]) < base or (int(found[2]) == base and not found[1])):
            shutil.rmtree(path, ignore_errors=True)
