"""A sweep finds a recipe, prunes, goes on after a kill as if nothing had happened, and shares its folder."""

import csv
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import optuna
import pytest
import yaml

from productrec.data.table import load_table, save_table
from productrec.sweep import study as sweep_study
from tests.integration.conftest import TINY, write_recipe
from tests.warm import start_command, wait_for

SPACE = "train.learning_rate: {low: 1e-4, high: 1e-1, log: true}\nloss.metric: [soft_triple, multi_similarity]\n"
FOLDER = Path("runs/tiny.sweep")


@pytest.fixture
def begun(place, drawn, productrec):
    """A working folder with a table, a recipe and a space; gives a function that sweeps there."""
    recipe = write_recipe(place, drawn)
    Path("space.yaml").write_text(SPACE)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    return lambda *more: productrec("sweep", recipe, "space.yaml", *TINY, *more)


def read_trials() -> list[dict[str, str]]:
    with (FOLDER / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def list_weights() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/checkpoints"))


def hide_minutes(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


def test_a_killed_sweep_ends_like_a_whole_one_with_a_recipe_to_train(begun, productrec):
    whole = begun("--trials", "3")
    assert whole.code == 0, whole.err
    rows = read_trials()
    assert [row["state"] for row in rows] == ["finished"] * 3
    best = max(rows, key=lambda row: float(row["competition"]))
    assert list_weights() == [f"tiny-00{best['trial']}"]
    kept = yaml.safe_load((FOLDER / "best.yaml").read_text())
    assert kept["train"]["learning_rate"] == float(best["train.learning_rate"])
    assert kept["loss"]["metric"]["name"] == best["loss.metric"]
    for number in (1, 2, 3):
        lines = (FOLDER / f"tiny-00{number}" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
    assert "trials of runs/tiny.sweep" in whole.out and "soft_triple" in whole.out

    again = begun("--trials", "3")
    assert again.code == 0 and "begins" not in again.err
    other = begun("--trials", "3", "train.epochs=1")
    assert other.code == 4 and "train.epochs" in other.err

    trained = productrec("train", FOLDER / "best.yaml")
    assert trained.code == 0, trained.err
    assert Path("runs/tiny-best/manifest.json").exists()

    FOLDER.rename("whole")
    process = start_command(["sweep", "tiny.yaml", "space.yaml", *TINY, "--trials=3"], cwd=Path.cwd())
    wait_for(FOLDER / "tiny-002/checkpoints/last/manifest.json", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    resumed = begun("--trials", "3")
    assert resumed.code == 0, resumed.err
    assert "trial 1 " not in resumed.err.partition("best recipe")[0]
    assert hide_minutes(read_trials()) == hide_minutes(rows)
    assert yaml.safe_load((FOLDER / "best.yaml").read_text()) == kept


def test_hopeless_trials_are_pruned_and_their_weights_removed(begun, monkeypatch):
    # Every figure is below 2.
    monkeypatch.setattr(sweep_study, "build_pruner", lambda epochs: optuna.pruners.ThresholdPruner(lower=2.0))
    done = begun("--trials", "2", "train.keep_best_by=recall@1")
    assert done.code == 0, done.err
    rows = read_trials()
    assert [row["state"] for row in rows] == ["pruned", "pruned"]
    assert [row["epochs"] for row in rows] == ["1", "1"]
    assert all(float(row["recall@1"]) >= 0 for row in rows)
    assert list_weights() == []
    assert (FOLDER / "tiny-001/metrics.jsonl").exists() and (FOLDER / "tiny-001/recipe.yaml").exists()
    assert not (FOLDER / "best.yaml").exists()


def test_workers_share_the_trials(begun):
    done = begun("--trials", "3", "--workers", "2", "train.epochs=1")
    assert done.code == 0, done.err
    rows = read_trials()
    assert [(row["trial"], row["state"]) for row in rows] == [("1", "finished"), ("2", "finished"), ("3", "finished")]
    assert len({row["train.learning_rate"] for row in rows}) == 3
    assert len(list_weights()) == 1


def test_time_that_runs_out_leaves_a_trial_that_goes_on(begun):
    late = begun("--trials", "1", "--minutes", "0.0001", "train.epochs=1")
    assert late.code == 0, late.err
    assert not FOLDER.joinpath("best.yaml").exists()
    done = begun("--trials", "1", "train.epochs=1")
    assert done.code == 0, done.err
    assert [row["state"] for row in read_trials()] == ["finished"]


def test_settings_that_cannot_be_trained_are_told_and_stop_a_sweep_of_nothing_else(begun):
    Path("space.yaml").write_text("model.backbone: [no_such_network, nor_this_one]\n")
    done = begun("--trials", "5")
    assert done.code == 7
    assert "the first 3 trials failed" in done.err and "Traceback" not in done.err
    assert [row["state"] for row in read_trials()] == ["failed"] * 3


@pytest.mark.parametrize(
    ("space", "more", "message"),
    [
        ("train.learning_rat: [1e-3]", [], "Did you mean 'train.learning_rate'"),
        ("train.epochs: {low: 0, high: 3}", [], "greater than or equal to 1"),
        (SPACE, ["train.splits=[train, val]"], "train.splits must not hold it"),
        (SPACE, ["members={a: {seed: 1}}"], "Add members={}"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_the_first_trial(begun, space, more, message):
    Path("space.yaml").write_text(space)
    refused = begun(*more)
    assert refused.code == 2
    assert message in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert not FOLDER.exists()


def test_a_figure_of_the_head_is_refused_where_val_holds_none_of_its_classes(begun):
    table = load_table(Path("data/tiny"))
    images = table.images.copy()
    is_known = images["split"].isin(["train", "val"])
    held_out = images["label"] > images["label"].median()
    images.loc[is_known, "split"] = held_out[is_known].map({True: "val", False: "train"})
    save_table(Path("data/apart"), images, table.classes, root=table.root, sample=None, inputs={}, settings={})
    refused = begun("--trials", "1", "data.table=data/apart")
    assert refused.code == 3 and "none is. Set train.keep_best_by=recall@1." in refused.err
    assert "trial 1" not in refused.err and not FOLDER.exists()
    done = begun("--trials", "1", "data.table=data/apart", "train.keep_best_by=recall@1", "train.epochs=1")
    assert done.code == 0, done.err


def test_a_folder_of_something_else_and_a_missing_library_are_told(begun, monkeypatch):
    FOLDER.mkdir(parents=True)
    (FOLDER / "notes.txt").write_text("mine")
    refused = begun("--trials", "1")
    assert refused.code == 4 and "no sweep" in refused.err
    shutil.rmtree(FOLDER)
    monkeypatch.delitem(sys.modules, "productrec.sweep.study")
    monkeypatch.delattr("productrec.sweep.study")
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused = begun("--trials", "1")
    assert refused.code == 2 and "pip install 'productrec[sweep]'" in refused.err
