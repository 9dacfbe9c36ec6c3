"""A run's classifier on disk: its settings, what was fitted on what, how each step did, and the class prototypes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.recognition.classifier import Classifier, build_classifier
from productrec.recognition.open_set import Threshold
from productrec.recognition.reranked import KeptReranking, build_kept

KIND = "classifier"
_DISTRACTORS = "distractors.npy"


@dataclass(frozen=True)
class SavedClassifier:
    """What `save_classifier` wrote.

    ``prototypes``: (C, D) float32 in the order of ``keys``, what the classes are known by; ``categories``: (C,) a
    number for each class's category, None where all are of one; ``fitted``: on what and how, empty where nothing could
    be; ``unknown``: from when on an answer is believed, None where that could not be told; ``index``: fingerprint of
    the index whose neighbours vote; ``reranked``: what answers instead, where a re-ranking was kept; ``distractors``:
    (M, D) float32 embeddings of images that are of no class, None where there are none.
    """

    classifier: Classifier
    prototypes: np.ndarray
    keys: list[str]
    categories: list[int] | None
    fitted: dict[str, Any]
    unknown: Threshold | None
    index: str
    fingerprint: str
    reranked: KeptReranking | None = None
    distractors: np.ndarray | None = None

    @property
    def voters(self) -> tuple[str, ...]:
        """Names of the further voters that are asked."""
        ways = [self.classifier, *([] if self.reranked is None else [self.reranked.classifier])]
        return tuple(dict.fromkeys(voter.name for way in ways for voter in way.further))

    def tell(self) -> str:
        """How it answers, in words."""
        return self.classifier.tell() if self.reranked is None else self.reranked.tell()


def save_classifier(
    folder: Path,
    classifier: Classifier,
    *,
    prototypes: np.ndarray,
    keys: Sequence[str],
    categories: Sequence[int] | None,
    fitted: Mapping[str, Any],
    unknown: Threshold | None,
    inputs: dict[str, str],
    settings: dict[str, Any],
    reranked: KeptReranking | None = None,
    distractors: np.ndarray | None = None,
) -> None:
    """Write a classifier; arguments as in `SavedClassifier`, ``inputs`` with the fingerprint of the ``index``."""
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings) as temporary:
        values = {
            "classifier": classifier.describe(),
            "told": classifier.tell() if reranked is None else reranked.tell(),
            "reranked": None if reranked is None else reranked.describe(),
            "fitted": dict(fitted),
            "unknown": None if unknown is None else unknown.describe(),
            "keys": list(keys),
            "categories": None if categories is None else [int(number) for number in categories],
        }
        write_json(temporary / "classifier.json", values)
        np.save(temporary / "prototypes.npy", prototypes)
        if distractors is not None:
            np.save(temporary / _DISTRACTORS, distractors)


def load_classifier(folder: Path) -> SavedClassifier:
    """Read a classifier.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=KIND)
    check_files(folder, manifest)
    values = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    return SavedClassifier(
        classifier=build_classifier(values["classifier"]),
        prototypes=np.load(folder / "prototypes.npy", mmap_mode="r"),
        keys=[str(key) for key in values["keys"]],
        categories=values["categories"],
        fitted=dict(values["fitted"]),
        unknown=None if values["unknown"] is None else Threshold(**values["unknown"]),
        index=manifest.inputs["index"],
        fingerprint=manifest.fingerprint,
        reranked=None if values.get("reranked") is None else build_kept(values["reranked"]),
        distractors=np.load(folder / _DISTRACTORS, mmap_mode="r") if (folder / _DISTRACTORS).exists() else None,
    )
