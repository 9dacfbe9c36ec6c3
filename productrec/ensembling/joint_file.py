"""A fitted joint space on disk: which models with which weights, the classifier, and what each way scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.recognition.classifier import Classifier, build_classifier
from productrec.recognition.open_set import Threshold
from productrec.recognition.scores import Scores

KIND = "joint space"


@dataclass(frozen=True)
class SavedJoint:
    """What `save_joint` wrote.

    ``weights``: by model, of the joint space, and ``answering``: of what answers, which may be one model alone;
    ``chosen``: `joint_fitting.JOINT` or its name, and ``part`` by which it answers; ``searched``: by model, weights
    that a search found, in what share of bootstraps (``weights_chance``) they gained, and ``are_kept``, whether they
    stand; None where none were searched; ``best_alone``: title of the best model alone, and ``chance``: share of paired
    bootstraps in which the joint space was better, None where nothing could be fitted; ``scores``: by name and part;
    ``images``: that it was fitted on; ``unknown``: from when on an answer is believed.
    """

    rule: str
    weights: dict[str, float]
    answering: dict[str, float]
    chosen: str
    part: str
    classifier: Classifier
    searched: dict[str, float] | None = None
    weights_chance: float | None = None
    are_kept: bool = False
    best_alone: str | None = None
    chance: float | None = None
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    images: int = 0
    unknown: Threshold | None = None
    fingerprint: str = ""


def save_joint(folder: Path, saved: SavedJoint, *, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Write a fitted joint space."""
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings) as temporary:
        values = asdict(saved) | {"classifier": saved.classifier.describe(), "told": saved.classifier.tell()}
        values["unknown"] = None if saved.unknown is None else saved.unknown.describe()
        del values["fingerprint"]
        write_json(temporary / "joint.json", values)


def load_joint(folder: Path) -> SavedJoint:
    """Read a fitted joint space.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=KIND)
    check_files(folder, manifest)
    values = json.loads((folder / "joint.json").read_text(encoding="utf-8"))
    del values["told"]
    values["classifier"] = build_classifier(values["classifier"])
    values["unknown"] = None if values["unknown"] is None else Threshold(**values["unknown"])
    values["scores"] = {
        name: {part: Scores(**one) for part, one in parts.items()} for name, parts in values["scores"].items()
    }
    return SavedJoint(**values, fingerprint=manifest.fingerprint)
