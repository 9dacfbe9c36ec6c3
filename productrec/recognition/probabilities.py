"""Class probabilities: the artefact between recognition, ensembling and submission.

They are float32, as they are computed and scored: float16 has 8,192 times fewer steps, and none below 6e-8, so that
behind a sure class all others would tie at zero and be ranked by their position.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import MANIFEST_NAME, check_files, load_manifest, write_artifact, write_json
from productrec.errors import ArtifactError, describe_offenders

KIND = "class probabilities"


@dataclass(frozen=True)
class ClassProbabilities:
    """Probabilities of every image of a split.

    ``ids``: (N,); ``class_ids``: (C,); ``values``: (N, C) float32 whose rows sum to 1 within rounding; ``names``: (C,)
    class names; ``keys``: (C,) what the classes are known by whatever their ids, empty in an older artefact;
    ``fallback``: ids that got the class prior because their image cannot be read; ``made``: how; ``split``: whose
    images; ``table``: folder of the image table they were made from, ``table_fingerprint`` and ``rows`` digests of it
    and of the split's rows, None in an older artefact; ``doubted``: ids that are not believed to be of any of the
    classes, None where no threshold tells.
    """

    folder: Path
    ids: list[str]
    class_ids: list[int]
    names: list[str]
    values: np.ndarray
    fallback: list[str]
    made: dict[str, Any]
    fingerprint: str
    keys: list[str] = field(default_factory=list)
    split: str | None = None
    table: Path | None = None
    table_fingerprint: str | None = None
    rows: str | None = None
    doubted: list[str] | None = None


@contextmanager
def write_probabilities(
    folder: Path,
    *,
    ids: Sequence[str],
    class_ids: Sequence[int],
    names: Sequence[str],
    fallback: Sequence[str],
    made: dict[str, Any],
    inputs: dict[str, str],
    settings: dict[str, Any],
    keys: Sequence[str] = (),
    table: Path | None = None,
    rows: str | None = None,
    doubted: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Write class probabilities; the block fills the (N, C) float32 memory map it is given.

    ``keys``, ``table``, ``rows`` and ``doubted`` as in `ClassProbabilities`, the last of which the block may still
    fill; the table's fingerprint is the input ``table``.

    Raises:
        ArtifactError: a row is not finite or does not sum to 1.
    """
    # Relative, so that both may move together.
    table_path = None if table is None else os.path.relpath(table.resolve(), folder.resolve())
    notes = {"made": made, "fallback": list(fallback), "table": table_path, "rows": rows}
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings, notes=notes) as temporary:
        shape = (len(ids), len(class_ids))
        path = temporary / "probabilities.npy"
        # An empty memory map cannot be made; an empty array can.
        values = np.lib.format.open_memmap(path, "w+", np.float32, shape) if len(ids) else np.empty(shape, np.float32)
        yield values
        check_rows(values, ids, str(folder))
        if isinstance(values, np.memmap):
            values.flush()
        else:
            np.save(path, values)
        write_json(temporary / "ids.json", list(ids))
        if doubted is not None:
            write_json(temporary / "doubted.json", list(doubted))
        write_json(temporary / "classes.json", {"ids": list(class_ids), "names": list(names), "keys": list(keys)})


def count_probabilities_bytes(rows: int, class_count: int) -> int:
    """Bytes of the array of class probabilities."""
    return rows * class_count * np.dtype(np.float32).itemsize


def load_probabilities(folder: Path) -> ClassProbabilities:
    """Read class probabilities; ``values`` is a memory map.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=KIND)
    check_files(folder, manifest)
    classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    return ClassProbabilities(
        folder=folder,
        ids=json.loads((folder / "ids.json").read_text(encoding="utf-8")),
        class_ids=[int(class_id) for class_id in classes["ids"]],
        names=[str(name) for name in classes["names"]],
        values=np.load(folder / "probabilities.npy", mmap_mode="r"),
        fallback=list(manifest.notes.get("fallback", [])),
        made=dict(manifest.notes.get("made", {})),
        fingerprint=manifest.fingerprint,
        keys=[str(key) for key in classes.get("keys", [])],
        split=manifest.settings.get("split"),
        table=None if manifest.notes.get("table") is None else (folder / manifest.notes["table"]).resolve(),
        table_fingerprint=manifest.inputs.get("table"),
        rows=manifest.notes.get("rows"),
        doubted=_read_doubted(folder / "doubted.json"),
    )


def find_table_folder(probabilities: ClassProbabilities, otherwise: Path) -> Path | None:
    """The image table that some predictions were made from, or another; None where neither is on this machine."""
    known = [] if probabilities.table is None else [probabilities.table]
    return next((folder for folder in (*known, otherwise) if (folder / MANIFEST_NAME).exists()), None)


def _read_doubted(path: Path) -> list[str] | None:
    return [str(image_id) for image_id in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else None


def check_rows(values: np.ndarray, ids: Sequence[str], where: str, *, block_rows: int = 4096) -> None:
    """Refuse probabilities that are not: each row must be finite and sum to 1 within rounding."""
    bad: list[str] = []
    for start in range(0, len(values), block_rows):
        sums = np.asarray(values[start : start + block_rows], dtype=np.float32).sum(axis=1)
        bad += [ids[start + row] for row in np.flatnonzero(~(np.abs(sums - 1) < 1e-3)).tolist()]
    if bad:
        raise ArtifactError(f"{where}: rows must be finite and sum to 1; {describe_offenders(bad)} do not.")
