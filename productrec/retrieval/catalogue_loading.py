"""What of a catalogue is read from the disk: its newest base, and the changes that came after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from productrec.artifacts import load_manifest
from productrec.console import warn
from productrec.errors import ArtifactError
from productrec.retrieval.catalogue_state import State, apply_changes
from productrec.retrieval.embedding_set import IMAGE
from productrec.retrieval.index import INDEX_KIND, Index, load_index
from productrec.retrieval.segments import get_base_folder, get_grown_folder, list_changes, load_segment

_TRIES = 3


def load_state(folder: Path, grown: Path, before: State | None) -> State:
    """The state on the disk now of the catalogue of an index.

    Args:
        folder: of the index.
        grown: where its changes lie.
        before: a state of earlier, of which what still stands is not read again.

    Returns:
        ``before`` itself, where nothing has changed.

    Raises:
        ArtifactError: no index is there, something is damaged or missing, or changes are of another network, by name.
    """
    for attempt in range(_TRIES):
        number, changes = list_changes(grown)
        try:
            return _read(folder, grown, before, number, changes)
        except ArtifactError:
            # Another process may have compacted it meanwhile, and removed what was listed.
            if attempt == _TRIES - 1 or list_changes(grown) == (number, changes):
                raise
    raise AssertionError("every try returns or raises")


def _read(folder: Path, grown: Path, before: State | None, number: int, changes: list[int]) -> State:
    known = [one.number for one in before.segments] if before is not None and before.number == number else None
    if before is not None and known == changes:
        return before
    if before is not None and known is not None and known == changes[: len(known)]:
        index, segments = before.index, list(before.segments)
    else:
        index, segments = _load_base(folder, grown, number), []
    for change in changes[len(segments) :]:
        segment = load_segment(grown, change)
        check_made(folder, index, segment.notes)
        segments.append(segment)
    return apply_changes(index, number, tuple(segments))


def _load_base(folder: Path, grown: Path, number: int) -> Index:
    if not number:
        return load_index(folder)
    index = load_index(get_base_folder(grown, number))
    table = load_manifest(folder, kind=INDEX_KIND)
    if table.notes.get("weights_digest") != index.weights_digest:
        _refuse(folder, "weights", index.weights_digest[:12], str(table.notes.get("weights_digest"))[:12])
    manifest = load_manifest(index.folder, kind=INDEX_KIND)
    if manifest.inputs["index"] != table.fingerprint:
        warn(
            f"{folder}: was made anew since {grown.name} was compacted; images that are new in it "
            "are not in the catalogue. Grow it by them."
        )
    return index


def check_made(folder: Path, index: Index, notes: dict[str, Any]) -> None:
    """Refuse rows that were not made as those of the base were; what an older base does not say is passed over.

    Raises:
        ArtifactError: weights, size, preprocessing, views, modality or tower differ, by name.
    """
    told = {
        "modality": IMAGE,
        "tower": IMAGE,
        **index.notes,
        "weights_digest": index.weights_digest,
        "dim": index.searcher.dim,
    }
    if difference := find_difference(told, notes):
        _refuse(folder, *difference)


def find_difference(told: dict[str, Any], notes: dict[str, Any]) -> tuple[str, object, object] | None:
    """What of weights, size, preprocessing and views differs: its name, what is told of the base, and of grown rows."""
    words = {"weights_digest": "weights", "dim": "size", "side_px": "preprocessing (side_px)", "views": "views"}
    words |= {"modality": "modality", "tower": "tower"}
    for name, what in words.items():
        wanted, got = told.get(name), notes.get(name)
        if wanted is not None and got is not None and wanted != got:
            short = [value[:12] if isinstance(value, str) else value for value in (wanted, got)]
            return what, short[0], short[1]
    return None


def _refuse(folder: Path, what: str, wanted: object, got: object) -> None:
    raise ArtifactError(
        f"{folder}: {what} of grown rows must be those of the index, {wanted}; got {got}. Take the run's own network "
        f"and views; where the run was trained anew, remove {get_grown_folder(folder)} and grow again, or carry the "
        "catalogue over from the earlier run with `productrec index renew`."
    )
