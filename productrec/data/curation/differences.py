"""Differences: what changed between two states of an image table; images by id and content, classes by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import pandas as pd

from productrec.data.class_keys import identify_classes
from productrec.errors import describe_offenders


@dataclass
class Differences:
    """What changed, as texts to read, each list in the tables' order; all empty where nothing did."""

    images_added: list[str] = field(default_factory=list)
    images_removed: list[str] = field(default_factory=list)
    images_moved: list[str] = field(default_factory=list)
    images_changed: list[str] = field(default_factory=list)
    states_changed: list[str] = field(default_factory=list)
    splits_changed: list[str] = field(default_factory=list)
    labels_changed: list[str] = field(default_factory=list)
    classes_added: list[str] = field(default_factory=list)
    classes_removed: list[str] = field(default_factory=list)
    classes_renamed: list[str] = field(default_factory=list)
    classes_renumbered: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not any(getattr(self, kind.name) for kind in fields(self))

    def describe(self, most: int = 5) -> list[str]:
        """A line each for images, labels and classes, of those that changed; the first ``most`` of each list."""
        lines: dict[str, list[str]] = {}
        for kind in fields(self):
            listed = getattr(self, kind.name)
            if listed:
                subject, _, what = kind.name.partition("_")
                lines.setdefault(subject, []).append(f"{what} {describe_offenders(listed, most)}")
        return [f"{subject}: {', '.join(parts)}" for subject, parts in lines.items()]


def compare_tables(
    before: tuple[pd.DataFrame, pd.DataFrame], after: tuple[pd.DataFrame, pd.DataFrame], *, splits: bool = True
) -> Differences:
    """What changed from one table to another.

    An image whose content comes back under another id has moved. A class is renamed where most of its images are of
    one class that is new. Dropped images count as readable. Contents are compared where both tables have digests.

    Args:
        before: images and classes of the earlier table.
        after: those of the later one.
        splits: false where val was held out of train in the earlier one alone: then only test is told from the rest.
    """
    old, new = (images.set_index("image_id") for images, _ in (before, after))
    old_names, new_names = (_name_labels(images, classes) for images, classes in (before, after))
    differences = Differences()
    removed = [image_id for image_id in old.index if image_id not in new.index]
    added = [image_id for image_id in new.index if image_id not in old.index]
    moved = _match_contents(old["digest"].loc[removed], new["digest"].loc[added])
    differences.images_moved = [f"{old_id} to {new_id}" for old_id, new_id in moved.items()]
    differences.images_removed = [image_id for image_id in removed if image_id not in moved]
    arrived = set(moved.values())
    differences.images_added = [image_id for image_id in added if image_id not in arrived]
    common = [image_id for image_id in old.index if image_id in new.index]
    pairs = {image_id: image_id for image_id in common} | moved
    renamed = _compare_classes(differences, before[1], after[1], pairs, old_names, new_names)
    for old_id, new_id in pairs.items():
        label, later = old_names[old_id], new_names[new_id]
        if label != later and renamed.get(label or "") != later:
            differences.labels_changed.append(f"{new_id}: {label or 'none'} to {later or 'none'}")
    old, new = old.loc[common], new.loc[common]
    for image_id, was, now in zip(common, old["digest"], new["digest"], strict=True):
        if isinstance(was, str) and isinstance(now, str) and was != now:
            differences.images_changed.append(image_id)
    for image_id, was, now in zip(common, old["status"], new["status"], strict=True):
        was, now = ("ok" if state == "dropped" else state for state in (was, now))
        if isinstance(was, str) and isinstance(now, str) and was != now:
            differences.states_changed.append(f"{image_id}: {was} to {now}")
    for image_id, was, now in zip(common, old["split"], new["split"], strict=True):
        was, now = (split if splits or split == "test" else "train" for split in (was, now))
        if was != now:
            differences.splits_changed.append(f"{image_id}: {was} to {now}")
    return differences


def _name_labels(images: pd.DataFrame, classes: pd.DataFrame) -> dict[str, str | None]:
    identities = identify_classes(classes)
    return {
        image_id: None if pd.isna(label) else identities.get(int(label), str(label))
        for image_id, label in zip(images["image_id"], images["label"], strict=True)
    }


def _match_contents(removed: pd.Series, added: pd.Series) -> dict[str, str]:
    """New id by old id, of images that are the same to the byte."""
    new_ids: dict[str, list[str]] = {}
    for image_id, digest in added.items():
        if isinstance(digest, str):
            new_ids.setdefault(digest, []).append(str(image_id))
    matched = {}
    for image_id, digest in removed.items():
        if isinstance(digest, str) and new_ids.get(digest):
            matched[str(image_id)] = new_ids[digest].pop(0)
    return matched


def _compare_classes(
    differences: Differences,
    before: pd.DataFrame,
    after: pd.DataFrame,
    pairs: dict[str, str],
    old_names: dict[str, str | None],
    new_names: dict[str, str | None],
) -> dict[str, str]:
    """Note what became of the classes; the new name of each that was renamed."""
    old = {name: number for number, name in identify_classes(before).items()}
    new = {name: number for number, name in identify_classes(after).items()}
    removed, added = _subtract(old, new), _subtract(new, old)
    became: dict[str, Counter[str | None]] = {}
    for old_id, new_id in pairs.items():
        name = old_names[old_id]
        if name is not None and name in removed:
            became.setdefault(name, Counter())[new_names[new_id]] += 1
    sizes = Counter(old_names.values())
    renamed: dict[str, str] = {}
    for name in removed:
        (target, count), *_ = became.get(name, Counter()).most_common(1) or [(None, 0)]
        if target is None and not sizes[name]:  # without images the number is all there is to tell by
            target = next((other for other in added if new[other] == old[name]), None)
            count = 1
        if target is not None and target in added and 2 * count > sizes[name] and target not in renamed.values():
            renamed[name] = target
    differences.classes_renamed = [f"{name} to {target}" for name, target in renamed.items()]
    differences.classes_removed = [name for name in removed if name not in renamed]
    differences.classes_added = [name for name in added if name not in renamed.values()]
    kept = {name: name for name in old if name in new} | renamed
    differences.classes_renumbered = [
        f"{target} from {old[name]} to {new[target]}" for name, target in kept.items() if old[name] != new[target]
    ]
    return renamed


def _subtract(names: dict[str, int], others: dict[str, int]) -> Sequence[str]:
    return [name for name in names if name not in others]
