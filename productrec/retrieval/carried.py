"""A catalogue carried elsewhere: an index folder with all that was grown and removed since, without photos' paths."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from productrec.artifacts import change_artifact
from productrec.retrieval.catalogue_state import read_beside
from productrec.retrieval.index import load_index
from productrec.retrieval.segments import (
    get_base_folder,
    get_grown_folder,
    list_changes,
    load_segment,
    write_segment,
)


def carry_catalogue(folder: Path, target: Path) -> None:
    """Copy the catalogue of the index in ``folder`` to ``target``; grown photos are known by their ids there.

    Whoever opens the copy checks it; a catalogue that is changed meanwhile may give one that is refused.

    Raises:
        ArtifactError: a change is missing or damaged.
    """
    shutil.copytree(folder, target)
    grown, new = get_grown_folder(folder), get_grown_folder(target)
    number, changes = list_changes(grown)
    if number:
        base = get_base_folder(new, number)
        shutil.copytree(get_base_folder(grown, number), base)
        beside = read_beside(load_index(base))
        told = replace(beside, paths={image_id: image_id for image_id in beside.paths})
        change_artifact(base, files={name: json.dumps(value) for name, value in told.to_files().items()})
    for change in changes:
        segment = load_segment(grown, change)
        rows = replace(segment.rows, paths=list(segment.rows.ids))
        write_segment(new, change, rows, segment.removed, segment.notes)
