"""How many members train at once where nobody says."""

import os

import pytest
import torch

from productrec.errors import RecipeError
from productrec.pipeline.side_by_side import choose_jobs
from productrec.recipe import Recipe

ON_CPU, ON_ANY = Recipe(name="cpu", device="cpu"), Recipe(name="any")


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)


@pytest.mark.parametrize(("recipes", "jobs"), [(1, 1), (3, 3), (4, 4), (7, 4)])
def test_on_a_cpu_as_many_train_as_there_are_cores(recipes: int, jobs: int) -> None:
    assert choose_jobs([ON_CPU] * recipes) == jobs


def test_elsewhere_one_trains_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_jobs([ON_CPU, ON_CPU]) == 2
    assert choose_jobs([ON_CPU, ON_ANY]) == 1
    assert choose_jobs([ON_CPU, ON_ANY], 2) == 2


@pytest.mark.parametrize(("wanted", "jobs"), [(1, 1), (2, 2), (5, 3)])
def test_what_is_wanted_is_taken_but_never_more_than_there_are_models(wanted: int, jobs: int) -> None:
    assert choose_jobs([ON_CPU] * 3, wanted) == jobs


def test_ranks_of_one_model_train_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_jobs([ON_CPU] * 3) == choose_jobs([ON_CPU] * 3, 1) == choose_jobs([ON_CPU], 4) == 1
    with pytest.raises(RecipeError, match="jobs: must be 1"):
        choose_jobs([ON_CPU] * 3, 2)
