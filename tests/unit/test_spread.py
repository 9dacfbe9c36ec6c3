"""Folds and seeds as members: what each differs in, where it lands and which model it is of."""

import pytest

from productrec.errors import RecipeError
from productrec.recipe import build_recipe
from productrec.recipe.spread import list_spread, name_model, spread_folds, spread_seeds

PLAIN = build_recipe({"name": "mine", "seed": 5, "train": {"epochs": 3}})
MEMBERS = build_recipe({"name": "mine", "members": {"a-b": {"train": {"epochs": 7}}, "c": {"seed": 9}}})


def test_a_recipe_is_spread_over_folds():
    spread = spread_folds(PLAIN, 3)
    members = spread.resolve_members()
    assert [str(one.run_folder) for one in members.values()] == [f"runs/mine.folds/fold-{fold}" for fold in range(3)]
    assert [one.train.fold for one in members.values()] == [0, 1, 2]
    assert {(one.seed, one.train.epochs, one.data.folds, one.table) for one in members.values()} == {
        (5, 3, 3, PLAIN.table)
    }
    assert list_spread(spread) == {"mine": ["fold-0", "fold-1", "fold-2"]}


def test_members_keep_what_is_their_own():
    spread = spread_folds(MEMBERS, 2)
    members = spread.resolve_members()
    assert list_spread(spread) == {"a-b": ["a-b-fold-0", "a-b-fold-1"], "c": ["c-fold-0", "c-fold-1"]}
    assert (members["a-b-fold-1"].train.epochs, members["a-b-fold-1"].train.fold) == (7, 1)
    assert (members["c-fold-0"].seed, members["c-fold-0"].train.fold) == (9, 0)
    seeds = spread_seeds(MEMBERS, 2).resolve_members()
    assert [one.seed for one in seeds.values()] == [0, 1, 9, 10]


def test_seeds_go_on_from_the_recipes_own():
    assert [one.seed for one in spread_seeds(PLAIN, 3).resolve_members().values()] == [5, 6, 7]


def test_what_is_no_fold_or_leaves_one_out_already_is_refused():
    assert name_model("mine.folds", "other") is None
    with pytest.raises(RecipeError, match="leaves a fold out already"):
        spread_folds(build_recipe({"name": "mine", "train": {"fold": 0}}), 2)
    for spread in (spread_folds, spread_seeds):
        with pytest.raises(RecipeError, match="must be at least 2; got 1"):
            spread(PLAIN, 1)
