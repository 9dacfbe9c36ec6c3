"""One recipe as several that differ in a fold or a seed alone: a recipe with members, which are trained as such."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from productrec.errors import RecipeError
from productrec.recipe.loss import CHOICES
from productrec.recipe.whole import Recipe, change_recipe
from productrec.settings.text import merge

FOLDS, SEEDS = "folds", "seeds"


def spread_folds(recipe: Recipe, count: int) -> Recipe:
    """A recipe whose members leave out a fold each; with members, each of them does.

    Its runs land in ``RUNS/NAME.folds``, as ``fold-0`` or, of a member M, ``M-fold-0``.

    Raises:
        RecipeError: fewer than two folds, or a fold is left out already.
    """
    if count < 2:
        raise RecipeError(f"--folds: must be at least 2; got {count}.")
    if any(member.train.fold is not None for member in recipe.resolve_members().values()):
        raise RecipeError("--folds: the recipe leaves a fold out already. Take train.fold out of it.")
    changed = change_recipe(recipe, {"data.folds": count}, "--folds")
    return _spread(changed, FOLDS, {f"fold-{fold}": {"train": {"fold": fold}} for fold in range(count)})


def spread_seeds(recipe: Recipe, count: int) -> Recipe:
    """A recipe whose members have a seed each, from the recipe's own on; with members, each of them has.

    Its runs land in ``RUNS/NAME.seeds``, as ``seed-0`` or, of a member M, ``M-seed-0``.

    Raises:
        RecipeError: fewer than two seeds.
    """
    if count < 2:
        raise RecipeError(f"--seeds: must be at least 2; got {count}.")
    return _spread(recipe, SEEDS, {f"seed-{number}": {"seed": number} for number in range(count)})


def list_spread(recipe: Recipe) -> dict[str, list[str]]:
    """The members of a spread recipe, by the model that they are of, in their order.

    >>> list_spread(spread_folds(Recipe(name="mine"), 2))
    {'mine': ['fold-0', 'fold-1']}
    """
    models: dict[str, list[str]] = {}
    for name in recipe.members:
        model = name_model(recipe.name, name)
        assert model is not None, "members of a spread recipe are named by it"
        models.setdefault(model, []).append(name)
    return models


def name_model(spread: str, member: str) -> str | None:
    """The model that a member of a spread recipe is of: a member of the recipe that was spread, or that recipe.

    Args:
        spread: name of the spread recipe.
        member: a name; None is returned for one of no fold and no seed.
    """
    named = re.fullmatch(r"(?:(.+)-)?(?:fold|seed)-\d+", member)
    return None if named is None else named.group(1) or spread.rpartition(".")[0]


def _spread(recipe: Recipe, kind: str, variants: Mapping[str, Mapping[str, Any]]) -> Recipe:
    members: dict[str, dict[str, Any]] = {}
    for model, resolved in recipe.resolve_members().items():
        for variant, changes in variants.items():
            own = {key: value + resolved.seed if key == "seed" else value for key, value in changes.items()}
            known = recipe.members.get(model)
            name = variant if known is None else f"{model}-{variant}"
            members[name] = own if known is None else merge(known, own, choices=CHOICES)
    data = recipe.data.model_copy(update={"table": recipe.table})  # which else might follow from the name
    return recipe.model_copy(update={"name": f"{recipe.name}.{kind}", "members": members, "data": data})
