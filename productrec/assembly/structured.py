"""What is known of the structure of some class probabilities, from their image table and a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from productrec.assembly.class_shares import count_trained, get_shares
from productrec.assembly.evidence import NO_LABEL, build_objective, get_labels, number_categories
from productrec.class_order import ClassOrder
from productrec.competitions.contract import load_contract
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable
from productrec.recipe import Recipe
from productrec.recognition.probabilities import ClassProbabilities
from productrec.recognition.structure.chain import PRIOR, Structured
from productrec.recognition.structure.fitting import FittedStructure, fit_structure
from productrec.recognition.structure.groups import number_groups
from productrec.recognition.structure.prior import estimate_shares, weigh_images


@dataclass(frozen=True)
class Labelled:
    """Validation images that can tell: their rows (n,) in the class probabilities, and class positions (n,)."""

    rows: np.ndarray
    labels: np.ndarray


def list_steps(recipe: Recipe) -> tuple[str, ...]:
    """The steps that a recipe asks for."""
    return (*recipe.predict.structure, *(() if recipe.predict.prior == "none" else (PRIOR,)))


def describe_structure(probabilities: ClassProbabilities, table: ImageTable) -> Structured:
    """What the image table knows of some class probabilities: groups, categories, images that could not be read."""
    groups = dict(zip(table.images["image_id"], table.images["group"], strict=True))
    silent = np.isin(probabilities.ids, probabilities.fallback)
    return Structured(
        probabilities.values,
        number_groups([groups[image_id] for image_id in probabilities.ids]),
        silent if silent.any() else None,
        number_categories(table, probabilities.class_ids),
    )


def find_labelled(probabilities: ClassProbabilities, table: ImageTable) -> Labelled | None:
    """Images of some class probabilities that could be read and have a label; None where no class of them is known."""
    labels = get_labels(table, probabilities.ids)
    positions = ClassOrder(probabilities.class_ids).positions_of(labels)
    rows = np.flatnonzero((labels != NO_LABEL) & ~np.isin(probabilities.ids, probabilities.fallback))
    return Labelled(rows, positions[rows]) if (positions[rows] >= 0).any() else None


def expect_shares(
    recipe: Recipe,
    table: ImageTable,
    test: ClassProbabilities | None,
    val: ClassProbabilities,
    labelled: Labelled,
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """By how much the share of each class differs from training, by split, and how often each labelled image counts.

    Where shares are estimated, those for validation images are estimated anew, from validation images that are weighed
    to be as the test images are thought to be: what is judged is the estimate and the correction by it.

    Returns:
        Ratios (C,) for ``test`` and ``val``, none where nothing is wanted; weights (n,), None for once each.
    """
    if recipe.predict.prior == "none":
        return {}, None
    trained = count_trained(table, val.class_ids, recipe.predict.gallery_splits)
    wanted = get_shares(recipe, get_class_keys(table, val.class_ids), val.names)
    if wanted is not None:
        ratios = wanted / trained
        return {"test": ratios, "val": ratios}, weigh_images(labelled.labels, wanted)
    if test is None:
        return {}, None
    wanted = estimate_shares(test.values, trained, weights=1.0 - np.isin(test.ids, test.fallback))
    weights = weigh_images(labelled.labels, wanted)
    counts = np.zeros(len(val.ids))
    counts[labelled.rows] = weights
    again = estimate_shares(val.values, trained, weights=counts)
    return {"test": wanted / trained, "val": again / trained}, weights


def fit_recipe_structure(
    recipe: Recipe,
    images: Structured,
    ratios: np.ndarray | None,
    labelled: Labelled,
    weights: np.ndarray | None,
    steps: Sequence[str],
) -> FittedStructure:
    """Fit the steps that a recipe asks for, by its contract's metric."""
    objective = build_objective(load_contract(recipe.competition))
    images = replace(images, ratios=ratios)
    return fit_structure(images, labelled.rows, labelled.labels, objective, steps=steps, weights=weights)
