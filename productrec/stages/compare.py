"""Compare: two runs or ensembles on the images that both answered, and what they were made with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import MANIFEST_NAME, load_manifest, write_file
from productrec.assembly.compared import SPLITS, Aligned, Side, align_sides, find_target, load_sides
from productrec.competitions.contract import load_contract
from productrec.delimited import write_for_people
from productrec.errors import ArtifactError
from productrec.metrics.calibration import Reliability, compute_reliability
from productrec.metrics.paired import Paired, compare_answers, find_right
from productrec.settings.text import flatten

_IDLE = ("name", "runs")  # settings that say where a run lies
ABSENT = "-"
_PREDICTED, _TRAINED = "predicted with", "trained with"
_TOLD_FROM = 0.0005  # of a top-1 accuracy


@dataclass(frozen=True)
class ChangedImage:
    """An image that got another answer: its class, both answers with their probabilities, and what that came to."""

    image_id: str
    truth: str
    truth_name: str
    first: str
    first_name: str
    first_probability: float
    second: str
    second_name: str
    second_probability: float
    change: str


@dataclass(frozen=True)
class ClassChange:
    """Images of a class, and how many of them only the second and only the first has right."""

    key: str
    name: str
    images: int
    gained: int
    lost: int


@dataclass(frozen=True)
class SettingChange:
    """A setting, or a version, that differs, by its dotted key."""

    key: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same images.

    ``names``, ``predictions``: of both; ``split`` in words; ``paired``: figures and counts; ``images``: those whose
    answer changed, those that became wrong first; ``classes``: those with gains or losses, the greatest loss first;
    ``settings``: that differ; ``reliability``: calibration of both on these images; ``notes``: see `Aligned`.
    """

    names: tuple[str, str]
    predictions: tuple[str, str]
    split: str
    paired: Paired
    images: list[ChangedImage]
    classes: list[ClassChange]
    settings: list[SettingChange]
    reliability: tuple[Reliability, Reliability]
    notes: list[str]

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"reliability": [one.describe() for one in self.reliability]}


CHANGES = ("lost", "gained", "both wrong")


def run_compare(
    first: Path, second: Path, *, split: str | None = None, views: str | None = None, draws: int = 1000
) -> Comparison:
    """Compare two runs or ensembles; images are told by their ids, classes by their keys.

    Args:
        first, second: their folders, or ``RUN/predictions/VIEWS``.
        split: of the predictions; None for validation images, or else training images out of fold.
        views: preset of views; see `choose_predictions`.
        draws: of the bootstrap.

    Raises:
        ArtifactError: one has no predictions of the split, or not through the same views.
        DataError: they have no labelled image in common.
        RecipeError: both are the same.
    """
    sides = load_sides(find_target(first), find_target(second), split=split, views=views)
    aligned = align_sides(*sides)
    metric = load_contract(sides[0].target.recipe.competition).scored_by
    paired = compare_answers(*aligned.answers, metric=metric, draws=draws)
    top_1 = paired.figures[0]
    right = [find_right(answers) for answers in aligned.answers]
    one, other = (
        compute_reliability(np.clip(answers.confidence, 0.0, 1.0), seen)
        for answers, seen in zip(aligned.answers, right, strict=True)
    )
    return Comparison(
        (sides[0].name, sides[1].name),
        (str(sides[0].probabilities.folder), str(sides[1].probabilities.folder)),
        SPLITS.get(sides[0].probabilities.split or "", "images"),
        paired,
        _list_images(aligned, right),
        _list_classes(aligned, right),
        find_differences(*_drop_unpaired(_describe_making(sides[0]), _describe_making(sides[1]))),
        (one, other),
        aligned.notes + _tell_fitting(sides[0], top_1.first) + _tell_fitting(sides[1], top_1.second),
    )


def _list_images(aligned: Aligned, right: list[np.ndarray]) -> list[ChangedImage]:
    images = []
    for row, (image_id, truth) in enumerate(zip(aligned.ids, aligned.truths, strict=True)):
        answers = [named[row] for named in aligned.named]
        if answers[0] == answers[1]:
            continue
        change = CHANGES[0] if right[0][row] else CHANGES[1] if right[1][row] else CHANGES[2]
        told = [
            (key, aligned.names.get(key, key), float(one.confidence[row]))
            for key, one in zip(answers, aligned.answers, strict=True)
        ]
        images.append(ChangedImage(image_id, truth, aligned.names.get(truth, truth), *told[0], *told[1], change))
    return sorted(images, key=lambda image: (CHANGES.index(image.change), -image.second_probability, image.image_id))


def _list_classes(aligned: Aligned, right: list[np.ndarray]) -> list[ClassChange]:
    truths = np.array(aligned.truths)
    images = Counter(aligned.truths)
    gained, lost = Counter(truths[right[1] & ~right[0]].tolist()), Counter(truths[right[0] & ~right[1]].tolist())
    changed = [
        ClassChange(key, aligned.names.get(key, key), images[key], gained[key], lost[key])
        for key in images
        if gained[key] or lost[key]
    ]
    return sorted(changed, key=lambda one: (one.gained - one.lost, -one.lost, one.key))


def _describe_making(side: Side) -> dict[str, Any]:
    """By dotted key: what one was made with, as far as it is recorded."""
    recipe = flatten(side.target.recipe.dump())
    made: dict[str, Any] = {key: value for key, value in recipe.items() if key not in _IDLE}
    folder, manifest = side.target.folder, load_manifest(side.probabilities.folder)
    made["views"] = side.probabilities.made.get("views")
    made["table digest"] = (side.probabilities.table_fingerprint or "")[:12]
    made |= {f"{_PREDICTED} {name}": version for name, version in manifest.versions.items()}
    if (folder / MANIFEST_NAME).is_file():  # an ensemble has none
        made |= {f"{_TRAINED} {name}": version for name, version in load_manifest(folder).versions.items()}
    precision = folder / "precision.json"
    if precision.is_file():
        made |= flatten(json.loads(precision.read_text(encoding="utf-8")), "precision.")
    return made


def _drop_unpaired(first: dict[str, Any], second: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both without the versions that only one of them records."""
    keys = {key for key in first.keys() ^ second.keys() if key.startswith((_PREDICTED, _TRAINED))}
    one, other = ({key: value for key, value in made.items() if key not in keys} for made in (first, second))
    return one, other


def find_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[SettingChange]:
    """What differs of two, by key, in the order of the first; a key that one of them lacks is told as `ABSENT`."""
    texts = [{key: _write(value) for key, value in one.items()} for one in (first, second)]
    return [
        SettingChange(key, *(one.get(key, ABSENT) for one in texts))
        for key in dict.fromkeys([*first, *second])
        if texts[0].get(key) != texts[1].get(key)
    ]


def _write(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _tell_fitting(side: Side, accuracy: float) -> list[str]:
    """That a classifier or blend was fitted on these very images, and what it is worth on others of them."""
    told = side.probabilities.made.get("validation") or {}
    fair = told.get("top_1_accuracy")
    if side.probabilities.split != "val" or fair is None or abs(fair - accuracy) < _TOLD_FROM:
        return []
    return [
        f"What {side.name} was fitted on are validation images too: answered by what was fitted on others of them, its "
        f"top-1 accuracy is {100 * fair:.1f} %, not {100 * accuracy:.1f} %."
    ]


def write_changed(images: list[ChangedImage], path: Path, *, replace: bool = False) -> None:
    """Write the images that got another answer as a CSV for people: no text in it is a formula to a spreadsheet.

    Raises:
        ArtifactError: the file is there already, and ``replace`` is not given.
        StorageError: it cannot be written.
    """
    check_free(path, replace=replace)
    with write_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = [list(asdict(image).values()) for image in images]
        write_for_people(file, list(ChangedImage.__dataclass_fields__), rows)


def check_free(path: Path, *, replace: bool) -> None:
    """Refuse a CSV that is there already, before any work.

    Raises:
        ArtifactError: it is, and ``replace`` is not given.
    """
    if path.exists() and not replace:
        raise ArtifactError(
            f"{path}: is there already. Name another file with --out, or pass --replace to write over it."
        )
