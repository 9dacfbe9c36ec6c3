"""Matches on disk: what each image of a split lists, and how it was told that they match."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.metrics.matches import MatchLists

KIND = "matches"


@dataclass(frozen=True)
class SavedMatches:
    """Matches of N images: ``ids`` (N,), their ``lists`` by row, and what was ``fitted``, as plain values."""

    folder: Path
    ids: list[str]
    lists: MatchLists
    fitted: dict[str, Any]
    inputs: dict[str, str]

    def name_matches(self) -> dict[str, list[str]]:
        """By image id the ids of its matches, its own first."""
        starts, rows = self.lists.starts.tolist(), self.lists.rows.tolist()
        return {
            name: [self.ids[row] for row in rows[starts[place] : starts[place + 1]]]
            for place, name in enumerate(self.ids)
        }


def save_matches(
    folder: Path,
    ids: list[str],
    lists: MatchLists,
    *,
    fitted: dict[str, Any],
    inputs: dict[str, str],
    settings: dict[str, Any],
) -> None:
    """Write matches; arguments as in `SavedMatches` and `write_artifact`."""
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings) as temporary:
        write_json(temporary / "ids.json", ids)
        np.save(temporary / "starts.npy", lists.starts)
        np.save(temporary / "rows.npy", lists.rows)
        write_json(temporary / "fitted.json", fitted)


def load_matches(folder: Path) -> SavedMatches:
    """Read matches.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=KIND)
    check_files(folder, manifest)
    return SavedMatches(
        folder=folder,
        ids=json.loads((folder / "ids.json").read_text(encoding="utf-8")),
        lists=MatchLists(np.load(folder / "starts.npy"), np.load(folder / "rows.npy")),
        fitted=json.loads((folder / "fitted.json").read_text(encoding="utf-8")),
        inputs=dict(manifest.inputs),
    )
