"""Fine-tuning: the unseen half is never trained on nor chosen by, and budgets are equal."""

import numpy as np
import pytest
from sections.fine_tune import (
    FineTuning,
    build_fine_tuning,
    check_methods,
    count_epochs,
    list_fine_tuned,
    write_source,
)
from sections.halves import Pictures, halve

from productrec.data.table import load_table
from productrec.errors import RecipeError
from productrec.losses.catalogue import list_losses
from productrec.stages.ingest import run_ingest
from tests.integration.conftest import draw

BUDGET = FineTuning("regnetx_002", epochs=6, side_px=32, batch_size=16, rate=1e-3)
FIXED = {"name": "some", "seed": 4}


@pytest.fixture
def pictures(tmp_path):
    paths = [f"images/{number}.jpg" for number in range(24)]
    draw(tmp_path / "set", *paths)
    labels = np.repeat(np.arange(8), 3)
    may_train = np.tile([True, True, False], 8)
    return Pictures("some", tmp_path / "set", paths, labels, ["kind"] * 8, may_train, whole_groups=False)


@pytest.mark.parametrize("is_labelled", [True, False])
def test_a_table_has_the_unseen_half_as_test_and_nothing_to_choose_by(pictures, tmp_path, is_labelled):
    halves = halve(pictures, 0, 0)
    write_source(tmp_path / "source", pictures, halves, is_labelled=is_labelled)
    fixed = FIXED | {"data.source": tmp_path / "source", "data.images": pictures.root}
    recipe = build_fine_tuning("unlabelled" if not is_labelled else "circle", BUDGET, fixed=fixed)
    run_ingest(tmp_path / "source", tmp_path / "table", data=recipe.data)
    images = load_table(tmp_path / "table", root=pictures.root).images
    assert set(images["split"]) == {"train", "test"} and (images["status"] == "ok").all()
    train, test = (images[images["split"] == split] for split in ("train", "test"))
    assert set(train["path"]) == {pictures.paths[row] for row in halves.train}
    assert set(test["path"]) == {pictures.paths[row] for row in halves.test}
    assert not set(train["label"]) & set(test["label"])
    assert train["label"].nunique() == (4 if is_labelled else len(train))
    known = dict(zip(pictures.paths, pictures.labels.tolist(), strict=True))
    classes = {(known[path], label) for path, label in zip(test["path"], test["label"], strict=True)}
    assert len(classes) == 4  # one to one, whatever their numbers


def test_budgets_are_equal_and_the_last_checkpoint_is_taken():
    recipes = {name: build_fine_tuning(name, BUDGET, fixed=FIXED) for name in list_fine_tuned()}
    assert set(list_losses()) < set(recipes)
    for name, recipe in recipes.items():
        assert recipe.predict.checkpoint == "last" and recipe.data.validation_fraction == 0, name
        assert (recipe.seed, recipe.train.side_px, recipe.model.backbone) == (4, 32, "regnetx_002"), name
        assert recipe.model.pretrained is True and recipe.train.freeze_norms, name
        if name not in ("circle_cached", "unlabelled", "defaults", "cross_entropy"):
            assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.learning_rate) == (6, 16, 1e-3), name
            assert (recipe.loss.metric_weight, recipe.loss.classification_weight) == (1.0, 0.0), name
    cached = recipes["circle_cached"]
    assert cached.loss.metric.get_name() == "circle" and cached.train.epochs == 6
    assert (cached.train.batch_size, cached.train.chunk_size) == (64, 16)
    assert (recipes["defaults"].loss.metric_weight, recipes["defaults"].loss.classification_weight) == (0.5, 1.0)


def test_without_labels_an_image_is_seen_as_often_as_with_them():
    recipe = build_fine_tuning("unlabelled", BUDGET, fixed=FIXED)
    assert recipe.train.epochs == count_epochs("unlabelled", BUDGET) == 3
    assert recipe.train.images_per_class == 2 and recipe.uses_pk_sampler
    assert recipe.loss.metric.get_name() == "nt_xent"
    assert recipe.train.augmentation == "in_the_wild"  # as its recipe has it
    assert build_fine_tuning("unlabelled", BUDGET, fixed=FIXED, augmentation="none").train.augmentation == "none"


def test_any_setting_may_be_given_and_a_wrong_one_is_refused():
    settings = ("train.augmentation=light", "loss.metric.margin=0.3")
    recipe = build_fine_tuning("circle", FineTuning("regnetx_002", 6, 32, 16, 1e-3, settings), fixed=FIXED)
    assert recipe.train.augmentation == "light" and recipe.loss.metric.margin == 0.3
    with pytest.raises(RecipeError, match="train.epoch"):
        build_fine_tuning("circle", FineTuning("regnetx_002", 6, 32, 16, 1e-3, ("train.epoch=3",)), fixed=FIXED)


def test_methods_that_there_are_not_are_told():
    assert check_methods(["circle", "unlabelled"], list_fine_tuned()) is None
    assert "got tripplet" in check_methods(["circle", "tripplet"], list_fine_tuned())
