"""A plan beside what then happens: steps, images, files; what it refuses, and that it leaves everything as it was."""

import json
import shlex
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from productrec.assembly import rehearsal
from productrec.pipeline.plan_table import list_warnings, print_plan
from productrec.pipeline.play import ingest_recipe
from productrec.recipe import load_recipe
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.stages import plan as stage
from productrec.stages.plan import run_plan
from productrec.training.run.checkpoint import load_checkpoint
from tests.integration.conftest import TINY, write_recipe
from tests.integration.test_bad_input import check_line

MEMBERS = {
    "a": {
        "train": {"ema_decay": 0.5, "soup": 2, "first_side_px": 16, "freeze_epochs": 1, "hard_classes": 0.5},
        "predict": {"tta": "zoom", "keep_parts": True},
    },
    "b": {
        "loss": {"metric": {"name": "soft_triple", "centres_per_class": 3}},
        "train": {"optimizer": "sgd", "validate_every": 2, "sampler": "shuffle", "workers": 1},
        "predict": {"tta": "zoom", "gallery_tta": "plain"},
    },
}


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def count_arrays(folder: Path) -> int:
    return sum(np.load(path, mmap_mode="r").nbytes for path in folder.rglob("*.npy"))


def test_a_plan_agrees_with_what_training_and_prediction_do(place, drawn, productrec, capfd):
    recipe = write_recipe(place, drawn, members=MEMBERS)
    settings = [*TINY, "train.epochs=3"]
    ingest_recipe(load_recipe(recipe, settings))
    planned = run_plan(load_recipe(recipe, settings))
    assert not (place / "runs").exists()
    assert planned.kept_bytes == 0
    print_plan(planned)
    printed = capfd.readouterr().out
    for words in ("a: mobilenetv3", "b: mobilenetv3", "backbone frozen", "near classes", "disk: ensemble"):
        assert words in printed
    done = productrec("run", recipe, *settings)
    assert done.code == 0, done.err
    for name, member in planned.members.items():
        seen, run = member.rehearsal, place / "runs/tiny" / name
        last, epochs = load_checkpoint(run / "checkpoints/last"), (run / "metrics.jsonl").read_text().splitlines()
        assert last.load_state()["progress"]["step"] == seen.steps_per_epoch * 3
        assert len(last.class_ids) == seen.classes == 6
        assert f"on {seen.images} images of 6 classes, 3 epochs of {seen.steps_per_epoch} steps" in done.err
        embedded = {split: load_embedding_set(run / f"embeddings/zoom/{split}") for split in ("val", "test")}
        validated = len(embedded["val"].ids)
        figures = [key for line in epochs for key in json.loads(line) if key.endswith("top_1_accuracy")]
        assert seen.looks["validation"] == validated * (len(figures) + (name == "a"))  # and the soup
        assert seen.looks.get("near classes", 0) == (2 * seen.images if name == "a" else 0)
        for forward in member.forwards[:2]:
            assert forward.images == len(embedded[forward.split].ids)
            assert forward.views == len(embedded[forward.split].views) == 12
        on_disk = sum(path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file())
        assert member.artifacts["checkpoints"] == pytest.approx(on_disk, rel=0.05)
        assert member.artifacts["embeddings"] == count_arrays(run / "embeddings")
        assert member.artifacts["predictions"] == count_arrays(run / "predictions")
        engines = sum(path.stat().st_size for path in run.rglob("index.faiss"))  # with a header of its own
        arrays = count_arrays(run / "index") + count_arrays(run / "neighbours")
        assert member.artifacts["index, neighbours"] == pytest.approx(engines + arrays, abs=200)
    assert planned.ensemble_bytes == count_arrays(place / "runs/tiny/predictions")


def test_a_plan_is_printed_beside_a_finished_run_and_leaves_it_as_it_was(finished, productrec):
    before = snapshot(finished)
    done = productrec("plan", "tiny.yaml", *TINY, "predict.tta=flip", "train.mix_up=0.5")
    assert done.code == 0, done.err
    for words in (
        "6 classes",
        "timed here",
        "computed",
        "seen here",
        "s a step",
        "without loader processes",
        "disk: free",
    ):
        assert words in done.out
    assert "warning" not in done.err
    assert snapshot(finished) == before


def test_without_a_table_the_command_that_makes_it_is_told(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    settings = [*TINY, "data.validation_fraction=0.3", "data.pack=true", "data.seed=1"]
    refused = productrec("plan", recipe, *TINY)
    check_line(refused, 4, "data/tiny", "productrec ingest", "--competition imaterialist2019")
    made = load_recipe(recipe, settings)
    with pytest.raises(Exception, match="Run `productrec ingest") as told:
        run_plan(made)
    command = shlex.split(str(told.value).split("`")[1])
    assert productrec(*command[1:]).code == 0
    ingest_recipe(made)  # would refuse a table of other settings
    assert (place / "data/tiny.packed").is_dir()


@pytest.mark.parametrize("setting", ["data.validation_fraction=0.5", "submit.out=x.csv", "train.epoch=3"])
def test_settings_without_effect_are_refused(finished, productrec, setting):
    check_line(productrec("plan", "tiny.yaml", *TINY, setting), 2, setting.partition("=")[0])


def test_what_training_would_refuse_is_refused(finished, productrec):
    check_line(productrec("plan", "tiny.yaml", *TINY, "train.splits=[train,val]"), 3, "val")
    check_line(productrec("plan", "tiny.yaml", *TINY, "loss.metric=mine:Loss"), 2, "--allow-code")
    for path in (finished / "runs").rglob("precision.json"):
        path.unlink()
    (finished / "images").mkdir()
    check_line(productrec("plan", "tiny.yaml", *TINY, "data.images=images"), 3, "cannot be read")


def test_a_disk_or_a_memory_that_is_too_small_is_warned_of(finished, productrec, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda folder: usage(1 << 20))
    done = productrec("plan", "tiny.yaml", *TINY, "name=new", "data.table=data/tiny")
    assert done.code == 0, done.err
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "disk: " in warnings[0] and "1.0 MiB are free" in warnings[0]
    planned = run_plan(load_recipe(finished / "tiny.yaml", TINY))
    assert planned.kept_bytes == sum(path.stat().st_size for path in Path("runs/tiny").rglob("*") if path.is_file())
    assert list_warnings(planned) == []  # what is there is written over
    assert "memory: prediction holds" in list_warnings(replace(planned, free_memory=100))[0]


def test_ctrl_c_ends_a_plan_in_one_line(finished, productrec, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(rehearsal, "take_step", interrupt)
    check_line(productrec("plan", "tiny.yaml", *TINY), 130, "nothing was written")
