"""The journal of a sweep: numbers, what comes of trials whose process died, and what a crash leaves behind.

A `Study` that nobody refers to any more gives its locks back, as a dead process does.
"""

from pathlib import Path

import pytest

from productrec.errors import RecipeError
from productrec.recipe import Recipe, build_recipe
from productrec.sweep.space import Choices, Range
from productrec.sweep.study import Study

RECIPE = build_recipe({"name": "tiny"})
SPACE = {"train.learning_rate": Range(1e-4, 1e-1, log=True), "train.sampler": Choices(("pk", "shuffle"))}


def open_study(folder: Path) -> Study:
    return Study(folder, SPACE, lower_is_better=False, seed=0, epochs=4)


def build(number: int, settings: dict) -> Recipe:
    return RECIPE


def list_states(study: Study) -> list[tuple[int, str]]:
    with study.hold():
        return [(row.number, row.state) for row in study.list_rows()]


def test_trials_are_numbered_in_order_until_there_are_enough(tmp_path):
    study = open_study(tmp_path)
    first, second = study.take(2, build), study.take(2, build)
    assert (first.number, second.number) == (1, 2)
    assert first.settings != second.settings
    assert study.take(2, build) is None
    study.finish(first, 0.5)
    study.give_up(second, reason="no memory")
    assert study.take(2, build) is None
    assert list_states(study) == [(1, "finished"), (2, "failed")]
    assert study.take(None, build).number == 3


def test_a_trial_that_was_stopped_is_begun_again_with_its_number(tmp_path):
    study = open_study(tmp_path)
    first, second = study.take(3, build), study.take(3, build)
    study.stop(first, reason="no time was left")
    assert list_states(study) == [(1, "stopped"), (2, "running")]
    again = study.take(3, build)
    assert (again.number, again.settings, again.goes_on) == (1, first.settings, True)
    assert not second.goes_on


def test_a_process_that_dies_is_replaced_once_and_then_its_settings_have_failed(tmp_path):
    first = open_study(tmp_path)
    dead = first.take(2, build)
    second = open_study(tmp_path)
    assert list_states(second) == [(1, "running")]
    del first
    assert list_states(second) == [(1, "stopped")]
    again = second.take(2, build)
    assert (again.number, again.settings, again.goes_on) == (1, dead.settings, True)
    del second
    third = open_study(tmp_path)
    assert list_states(third) == [(1, "failed")]
    with third.hold():
        assert third.list_rows()[0].reason == "its process died twice"
    assert third.take(2, build).number == 2


def test_draws_follow_from_seed_and_number_alone(tmp_path):
    together = open_study(tmp_path / "together")
    both = [together.take(2, build).settings for _ in range(2)]
    alone = open_study(tmp_path / "alone")
    for settings in both:
        taken = alone.take(2, build)
        assert taken.settings == settings
        alone.finish(taken, 0.5)


def test_settings_that_the_recipe_refuses_are_drawn_anew(tmp_path):
    def refuse_pk(number: int, settings: dict) -> Recipe:
        if settings["train.sampler"] == "pk":
            raise RecipeError("no pk")
        return RECIPE

    def refuse(number: int, settings: dict) -> Recipe:
        raise RecipeError("never")

    study = open_study(tmp_path)
    assert {study.take(None, refuse_pk).settings["train.sampler"] for _ in range(6)} == {"shuffle"}
    assert list_states(study) == [(number, "running") for number in range(1, 7)]
    with pytest.raises(RecipeError, match="draws in a row were refused; the last: never"):
        study.take(None, refuse)


def test_half_a_line_of_a_crash_is_taken_away(tmp_path):
    study = open_study(tmp_path)
    study.finish(study.take(2, build), 0.5)
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code": 4, "worker')
    assert open_study(tmp_path).take(2, build).number == 2
    assert list_states(open_study(tmp_path)) == [(1, "finished"), (2, "stopped")]


def test_a_pruned_trial_is_told_from_its_best_figure(tmp_path):
    study = open_study(tmp_path)
    for number in range(1, 6):
        taken = study.take(5, build)
        for epoch in range(3):
            taken.tell(epoch, 0.1 if number == 5 else 0.5)
            taken.tell(epoch, 0.9)  # a resume tells again; the first counts
        if number < 5:
            assert not taken.prune()
            study.finish(taken, 0.5)
    assert taken.prune()
    study.give_up(taken)
    with study.hold():
        row = study.list_rows()[-1]
    assert (row.state, row.value, row.epochs) == ("pruned", 0.1, 3)
