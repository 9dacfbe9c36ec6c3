"""An ensemble on disk: how its models become one, what was tried on what images, and how the models differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from productrec.artifacts import MANIFEST_NAME, check_files, load_manifest, write_artifact, write_json
from productrec.ensembling.blend import Blend, build_blend

KIND = "ensemble"


def get_ensemble_folder(folder: Path, views: str) -> Path:
    """Where an ensemble of a folder lies, whose predictions through some views lie in ``FOLDER/predictions/VIEWS``."""
    return folder / "ensemble" / views


@dataclass(frozen=True)
class SavedEnsemble:
    """What `save_ensemble` wrote: the models' ``names``, the ``blend`` in their order, and ``fitted``, see there."""

    names: list[str]
    blend: Blend
    fitted: dict[str, Any]
    fingerprint: str


def save_ensemble(
    folder: Path,
    names: Sequence[str],
    blend: Blend,
    *,
    fitted: dict[str, Any],
    inputs: dict[str, str],
    settings: dict[str, Any],
) -> None:
    """Write an ensemble.

    Args:
        folder: to write to.
        names: of the models, in the order of the blend's weights.
        blend: how they become one.
        fitted: on what images, the way that stands, every way's scores, diversity; empty where nothing was fitted.
        inputs: fingerprints of what it was made from.
        settings: that decide it.
    """
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings) as temporary:
        write_json(temporary / "ensemble.json", {"names": list(names), **blend.describe(names), "fitted": fitted})


def load_ensemble(folder: Path) -> SavedEnsemble:
    """Read an ensemble.

    Raises:
        ArtifactError: none there, or it is damaged.
    """
    manifest = load_manifest(folder, kind=KIND)
    check_files(folder, manifest)
    values = json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
    names = [str(name) for name in values["names"]]
    return SavedEnsemble(names, build_blend(values, names), dict(values["fitted"]), manifest.fingerprint)


def find_ensemble(folder: Path, names: Sequence[str]) -> Blend | None:
    """The blend of an ensemble for its models in this order; None where there is none, or it is of other models."""
    if not (folder / MANIFEST_NAME).exists():
        return None
    saved = load_ensemble(folder)
    if set(saved.names) != set(names):
        return None
    return build_blend(saved.blend.describe(saved.names), names)
