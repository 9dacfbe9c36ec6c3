"""What predict and submit take on the command line: views, settings that have no effect, runs that are not there."""

import pytest

from tests.integration.conftest import TINY
from tests.integration.test_bad_input import check_line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs/tiny", "--tta", "fliip"], ["fliip: no such run", "--views flip"]),
        (["runs/tiny", "--tta", "flip"], ["--views flip", "--tta takes no value"]),
        (["--tta", "flip", "runs/tiny"], ["--views flip"]),
        (["runs/tiny", "--tta=flip"], ["--views flip"]),
        (["runs/tiny", "--views", "fliip"], ["five_crops", "fliip"]),
    ],
)
def test_views_are_a_flag_or_a_preset(finished, productrec, arguments, words):
    check_line(productrec("predict", *arguments), 2, *words)
    assert sorted(path.name for path in (finished / "runs").iterdir()) == ["tiny"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data.source=photos", ["data.source", "ingest and run", "--images FOLDER"]),
        ("data.validation_fraction=0.5", ["belongs to ingest"]),
        ("train.epochs=5", ["belongs to train"]),
        ("model.backbone=resnet18", ["belongs to train"]),
        ("submit.out=x.csv", ["belongs to submit"]),
        ("name=other", ["belongs to train"]),
        ("data.sorce=x", ["Did you mean 'data.source'"]),
    ],
)
def test_a_setting_without_effect_is_refused(finished, productrec, setting, words):
    check_line(productrec("predict", "runs/tiny", setting), 2, setting.partition("=")[0], *words)


def test_training_does_not_pass_over_what_ingest_decides(finished, productrec):
    done = productrec("train", "tiny.yaml", *TINY, "name=other", "data.table=data/tiny", "data.validation_fraction=0.5")
    check_line(done, 2, "data.validation_fraction", "no effect on train", "ingest and run")
    assert not (finished / "runs/other").exists()


def test_another_image_folder_must_hold_the_tables_images(finished, drawn, productrec):
    (finished / "photos").mkdir()
    check_line(productrec("predict", "runs/tiny", "data.images=photos"), 3, "holds not one", "--images FOLDER")
    assert productrec("predict", "runs/tiny", f"data.images={drawn}").code == 0


@pytest.mark.parametrize("command", [["predict"], ["submit"], ["audit"], ["ensemble", "--out", "runs/x"]])
def test_a_run_that_is_not_there_names_the_nearest(finished, productrec, command):
    check_line(productrec(*command, "run/tiny"), 2, "run/tiny: no such run", "for instance runs/tiny")


def test_predictions_through_other_views_get_a_csv_of_their_own(finished, productrec):
    plain = (finished / "submissions/tiny.csv").read_bytes()
    assert productrec("predict", "runs/tiny", "--tta").code == 0
    done = productrec("submit", "runs/tiny")
    assert done.code == 0 and "submissions/tiny-zoom.csv" in done.err and "predictions/zoom/test" in done.err
    views = (finished / "submissions/tiny-zoom.csv").read_bytes()
    assert (finished / "submissions/tiny.csv").read_bytes() == plain
    assert productrec("run", "tiny.yaml", *TINY).code == 0
    assert (finished / "submissions/tiny-zoom.csv").read_bytes() == views
    assert (finished / "submissions/tiny.csv").read_bytes() == plain


def test_one_predictions_settings_do_not_become_an_ensembles_own(place, drawn, productrec):
    from tests.integration.conftest import write_recipe

    recipe = write_recipe(place, drawn, members={"a": {"seed": 1}, "b": {"seed": 2}})
    assert productrec("run", recipe, *TINY, "train.epochs=1", "--jobs", "1").code == 0
    kept = (place / "runs/tiny/recipe.yaml").read_bytes()
    assert productrec("predict", "runs/tiny", "--views", "flip", "predict.neighbours=7").code == 0
    assert (place / "runs/tiny/recipe.yaml").read_bytes() == kept
    assert productrec("submit", "runs/tiny").code == 0
    assert (place / "submissions/tiny-flip.csv").is_file()


def test_views_that_do_not_exist_are_told_before_any_training(place, drawn, productrec):
    from tests.integration.conftest import write_recipe

    check_line(productrec("run", write_recipe(place, drawn), *TINY, "predict.tta=fliip"), 2, "fliip", "five_crops")
    assert not (place / "runs").exists()


def test_a_run_in_the_folder_at_hand_is_named_by_its_name_alone(finished, productrec, monkeypatch):
    monkeypatch.chdir(finished / "runs")
    done = productrec("predict", "tiny", f"data.table={finished}/data/tiny", "predict.k_grid=[1]")
    assert done.code == 0, done.err
