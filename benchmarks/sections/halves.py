"""Pictures whose classes are parted in halves: one to train on, the other to ask for classes that were never seen."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Pictures:
    """N labelled pictures of C classes.

    ``paths``: N, below ``root``; ``labels``: (N,) class positions; ``groups``: the coarse class or alphabet of each
    class; ``may_train``: (N,) bool, pictures that may be trained on; ``whole_groups``: whether a group lies in one
    half, or has its classes in both.
    """

    name: str
    root: Path
    paths: list[str]
    labels: np.ndarray
    groups: list[str]
    may_train: np.ndarray
    whole_groups: bool

    def take_groups(self, count: int) -> Pictures:
        """The pictures of the first ``count`` groups, by name, for a quick look."""
        kept = set(sorted(set(self.groups))[:count])
        classes = [position for position, group in enumerate(self.groups) if group in kept]
        rows = np.flatnonzero(np.isin(self.labels, classes))
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            labels=np.searchsorted(classes, self.labels[rows]),
            groups=[self.groups[position] for position in classes],
            may_train=self.may_train[rows],
        )


@dataclass(frozen=True)
class Halves:
    """Rows of pictures: ``train``, of the classes to learn from, and ``test``, of the classes that are never seen."""

    train: np.ndarray
    test: np.ndarray


def load_grocery(folder: Path) -> Pictures:
    """The labelled grocery images, grouped by coarse class; those of ``val.json`` are never trained on."""
    tree: dict[str, dict[str, list[str]]] = json.loads((folder / "product_tree.json").read_text(encoding="utf-8"))
    group_of = {int(member): coarse for level in tree.values() for coarse, ids in level.items() for member in ids}
    order = sorted(group_of)
    paths, labels, may_train = [], [], []
    for split in ("train", "val"):
        for image in json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))["images"]:
            paths.append(f"images/{image['id']}")
            labels.append(order.index(int(image["class"])))
            may_train.append(split == "train")
    groups = [group_of[class_id] for class_id in order]
    return Pictures("grocery", folder, paths, np.array(labels), groups, np.array(may_train), whole_groups=False)


def load_omniglot(archive: Path, folder: Path) -> Pictures:
    """Omniglot's drawings, grouped by alphabet, unpacked into ``folder`` once."""
    with zipfile.ZipFile(archive) as packed:
        names = sorted(name for name in packed.namelist() if name.endswith(".png"))
        if not all((folder / name).exists() for name in names):
            packed.extractall(folder, names)
    characters = [name.split("/")[-2] for name in names]
    order = sorted(set(characters))
    position_of = {character: position for position, character in enumerate(order)}
    labels = np.array([position_of[character] for character in characters])
    groups = [character.rpartition("-character")[0] for character in order]
    return Pictures("omniglot", folder, names, labels, groups, np.ones(len(names), bool), whole_groups=True)


def split_classes(groups: Sequence[str], seed: int, *, whole_groups: bool) -> np.ndarray:
    """Part classes in halves.

    Args:
        groups: of each class.
        seed: which half a class or a group falls in.
        whole_groups: give each group to one half; else each group's classes are dealt to both, and the odd ones out,
            such as a group's only class, alternately.

    Returns:
        (C,) bool: the half of each class. Halves differ by one group, or by one class.
    """
    generator = np.random.default_rng([seed, 1])
    of_class = np.asarray(groups)
    halves = np.zeros(len(of_class), bool)
    names = generator.permutation(np.unique(of_class))
    if whole_groups:
        halves[np.isin(of_class, names[::2])] = True
        return halves
    dealt = np.concatenate([generator.permutation(np.flatnonzero(of_class == name)) for name in names])
    halves[dealt[::2]] = True
    return halves


def halve(pictures: Pictures, seed: int, fold: int) -> Halves:
    """The halves of a seed; ``fold`` 0 or 1 says which of them is trained on, the other one's images all ask."""
    is_seen = split_classes(pictures.groups, seed, whole_groups=pictures.whole_groups) == bool(fold)
    seen = is_seen[pictures.labels]
    return Halves(np.flatnonzero(seen & pictures.may_train), np.flatnonzero(~seen))
