"""The data sets of the staircase, each as a source folder and the recipe that is trained on it."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.demo.drawn.competition import draw_competition
from productrec.recipe import Recipe, change_recipe, load_recipe
from productrec.recipe.spread import spread_folds

_PACKAGE = Path(__file__).resolve().parents[2]
_SKUS, _TRAIN_IMAGES, _VAL_IMAGES, _ASKED_IMAGES = 40, 24, 2, 25
_FEW = 5  # images of a class
DRAWN = {"drawn, easy": 0.25, "drawn, as the demo": 0.5, "drawn, hard": 0.75}
GROCERY, GROCERY_FEW = "grocery", "grocery, five images a class"
CASES = (GROCERY, GROCERY_FEW, *DRAWN)


@dataclass(frozen=True)
class Case:
    """A data set and a seed: the recipe, whose table has folds, and whose images are asked about once all is fitted.

    ``asked``: split of the table; ``hidden``: file of its labels (id, class) where the table holds none.
    """

    name: str
    seed: int
    recipe: Recipe
    asked: str
    hidden: Path | None = None

    @property
    def key(self) -> str:
        """A folder's name."""
        return f"{''.join(letter if letter.isalnum() else '-' for letter in self.name)}-{self.seed}"

    def list_runs(self, folds: int) -> dict[str, Recipe]:
        """What is trained: the recipe itself as ``whole``, and a run a fold."""
        return {"whole": self.recipe, **spread_folds(self.recipe, folds).resolve_members()}


def prepare_case(name: str, seed: int, work: Path, *, data: Path, folds: int, changes: dict[str, Any]) -> Case:
    """The case with its source folder; its table is not made yet.

    Args:
        name: of `CASES`.
        seed: of weights, of order, and of what is drawn or left out.
        work: where everything lands.
        data: the folder that holds ``grocery``.
        folds: of the training images.
        changes: settings beside the case's own, such as the device.
    """
    place = work / Case(name, seed, Recipe(name="any"), "").key
    grocery = data / "grocery"
    own: dict[str, Any] = {
        "name": "whole",
        "seed": seed,
        "runs": place / "runs",
        "data.table": place / "table",
        "data.folds": folds,
        "predict.checkpoint": "last",  # the best one would be chosen by images that are asked about
        "train.validate_every": 1000,
    }
    if name in DRAWN:
        source = place / "source"
        if not source.exists():
            draw_competition(
                source,
                skus=_SKUS,
                train_images=_TRAIN_IMAGES,
                val_images=_VAL_IMAGES,
                test_images=_ASKED_IMAGES,
                difficulty=DRAWN[name],
                seed=seed,
            )
        recipe = load_recipe(_PACKAGE / "productrec" / "demo" / "demo.yaml")
        recipe = recipe.resolve_members()["pairs"]
        hidden = source / "hidden" / "test_labels.csv"
        return Case(name, seed, change_recipe(recipe, own | {"data.source": source} | changes, name), "test", hidden)
    recipe = load_recipe(_PACKAGE / "pipelines" / "grocery.yaml")
    if name == GROCERY_FEW:
        source = place / "source"
        write_few(grocery, source, seed)
        # A fifth of the images, and so more passes over them.
        own |= {"data.source": source, "data.images": grocery / "images", "train.epochs": 40}
    else:
        own |= {"data.source": grocery}
    return Case(name, seed, change_recipe(recipe, own | changes, name), "val")


def write_few(grocery: Path, source: Path, seed: int) -> None:
    """Grocery with a few training images of each class, chosen by ``seed``; all others are asked about."""
    source.mkdir(parents=True, exist_ok=True)
    train = json.loads((grocery / "train.json").read_text(encoding="utf-8"))
    val = json.loads((grocery / "val.json").read_text(encoding="utf-8"))
    of_class: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for image in train["images"]:
        of_class[int(image["class"])].append(image)
    generator = np.random.default_rng([seed, _FEW])
    kept: list[dict[str, Any]] = []
    for class_id in sorted(of_class):
        images = of_class[class_id]
        kept += [images[row] for row in generator.permutation(len(images))[:_FEW]]
    chosen = {image["id"] for image in kept}
    rest = [image for image in train["images"] if image["id"] not in chosen] + val["images"]
    (source / "train.json").write_text(json.dumps(train | {"images": kept}), encoding="utf-8")
    (source / "val.json").write_text(json.dumps(val | {"images": rest}), encoding="utf-8")
    shutil.copyfile(grocery / "product_tree.json", source / "product_tree.json")
