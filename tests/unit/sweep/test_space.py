"""The space of a sweep: what each spec means, and what is refused before anything is trained."""

import random
from pathlib import Path

import pytest

from productrec.errors import RecipeError
from productrec.recipe import build_recipe
from productrec.sweep.space import Choices, Range, load_space, parse_spec

RECIPE = build_recipe({"name": "tiny"})


def load(folder: Path, text: str) -> dict:
    path = folder / "space.yaml"
    path.write_text(text)
    return load_space(path, RECIPE)


@pytest.mark.parametrize(
    ("line", "spec"),
    [
        ("loss.metric: [soft_triple, contrastive]", Choices(("soft_triple", "contrastive"))),
        ("train.learning_rate: {low: 1e-4, high: 1e-2, log: true}", Range(1e-4, 1e-2, log=True)),
        ("train.learning_rate: [1e-3, 2E+0, .5e-1, 1.e-2]", Choices((1e-3, 2.0, 0.05, 0.01))),
        ("train.images_per_class: {low: 4, high: 16, step: 4}", Range(4, 16, 4, whole=True)),
        ("train.epochs: {low: 4, high: 16}", Range(4, 16, 1, whole=True)),
        ("model.embedding_dim: {low: 64, high: 512, log: true}", Range(64, 512, log=True, whole=True)),
        ("train.cut_mix: {low: 0, high: 1}", Range(0.0, 1.0)),
        ("train.cut_mix: {low: 0, high: 0.5, step: 0.1}", Range(0.0, 0.5, 0.1)),
    ],
)
def test_specs(tmp_path, line, spec):
    assert list(load(tmp_path, line).values()) == [spec]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian.epochs: [1]", "unknown key 'trian'. Did you mean 'train'"),
        ("train.learning_rates: [1]", "Did you mean 'train.learning_rate'"),
        ("train.epochs: [0, 3]", "greater than or equal to 1; got 0"),
        ("train.cut_mix: {low: 0, high: 2}", "less than or equal to 1; got 2"),
        ("loss.metric: [soft_tripel]", "loss.metric"),
        ("train.learning_rate: {low: 1}", "must have low and high; got low"),
        ("train.learning_rate: {low: 2, high: 1}", "low must be below high"),
        ("train.learning_rate: {low: 0, high: 1, log: true}", "low must be above 0"),
        ("train.learning_rate: {low: a, high: 1}", "low must be a number; got 'a'"),
        ("train.learning_rate: {low: 0.1, high: .inf}", "high must be a number"),
        ("train.learning_rate: {low: 1, high: 2, log: 1}", "log must be true or false"),
        ("train.learning_rate: {low: 1, high: 2, log: true, step: 1}", "must not stand together"),
        ("train.epochs: {low: 1, high: 4, step: 2}", "some steps above low"),
        ("train.epochs: {low: 1, high: 4, step: 0}", "step must be above 0"),
        ("train.epochs: {low: 1, high: 4.5}", "is a whole number"),
        ("train.sampler: {low: 1, high: 4}", "must have a list of values"),
        ("train.sampler: pk", "must be a list of values"),
        ("train.sampler: []", "must have a value"),
        ("train.learning_rate: [0.001, 1e-3]", "must be different ones"),
        ("train: {epochs: [1, 2]}", "written with dots"),
        ("train.epochs: [1]\ntrain.epochs: [2]", "stands twice"),
        ("loss.memory: [{rows: 8}]\nloss.memory.rows: [16]", "must not be searched beside loss.memory"),
        ("predict.tta: [flip]", "must be the same in all trials"),
        ("train.keep_best_by: [map@r]", "must be the same in all trials"),
        ("name: [a]", "must be the same in all trials"),
        ("train.images_per_class: [6]", "must divide train.batch_size"),
        ("{}", "must hold a setting to search"),
        ("- a", "must hold settings by name"),
    ],
)
def test_wrong_spaces_are_refused_in_a_line(tmp_path, line, message):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, line)
    assert message in str(caught.value)
    assert str(tmp_path / "space.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match="no such space. See `productrec sweep --help`"):
        load_space(tmp_path / "absent.yaml", RECIPE)


def test_a_value_that_suits_with_others_alone_passes(tmp_path):
    assert load(tmp_path, "train.images_per_class: [4, 6]\ntrain.batch_size: [48, 64]")
    assert load(tmp_path, "train.hard_classes: [0.0, 0.5]\ntrain.sampler: [shuffle, pk]")


@pytest.mark.parametrize(
    "spec",
    [
        Range(4, 16, 4, whole=True),
        Range(1e-4, 1e-2, log=True),
        Range(0.0, 0.3, 0.1),
        Range(1, 100, log=True, whole=True),
    ],
)
def test_draws_lie_in_the_range(spec):
    source = random.Random(1)
    drawn = [spec.draw(source) for _ in range(200)]
    assert spec.low <= min(drawn) and max(drawn) <= spec.high + 1e-12
    assert all(isinstance(value, int) for value in drawn) == spec.whole
    if spec.step:
        assert len({round(value, 6) for value in drawn}) == 4


def test_whole_ends_of_a_setting_of_either_kind_make_whole_numbers():
    assert parse_spec("here", {"low": 1, "high": 3}) == Range(1, 3, 1, whole=True)
    assert parse_spec("here", {"low": 1, "high": 3.0}) == Range(1.0, 3.0)
