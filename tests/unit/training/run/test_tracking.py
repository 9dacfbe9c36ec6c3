"""Tracking: what TensorBoard and Weights & Biases are given, also after a resume, and what happens when they fail."""

import sys
import warnings

import pytest

from productrec.errors import RecipeError
from productrec.training.run.tracking import Tracker, Trackers, start_trackers


def track(folder, names, first_step, steps):
    with start_trackers(
        names, folder, name="run", settings={"train": {"epochs": 2}}, first_step=first_step
    ) as trackers:
        for step in steps:
            trackers.write(step, {"loss": step + first_step / 10}, kind="step")
        trackers.write(steps[-1], {"top_1_accuracy": 0.5}, kind="epoch")
        trackers.write(steps[-1], {}, kind="step")


def read_scalars(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
    return {key: [(one.step, round(one.value, 3)) for one in events.Scalars(key)] for key in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_each_step_once_after_a_resume(tmp_path):
    track(tmp_path, ["tensorboard"], 0, [1, 2, 3, 4])
    track(tmp_path, ["tensorboard"], 2, [3, 4, 5])
    seen = read_scalars(tmp_path / "tensorboard")
    assert seen == {
        "step/loss": [(1, 1.0), (2, 2.0), (3, 3.2), (4, 4.2), (5, 5.2)],
        "epoch/top_1_accuracy": [(5, 0.5)],
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(tmp_path, ["wandb"], 0, [1, 2])
    name = (tmp_path / "wandb-id.txt").read_text()
    track(tmp_path, ["wandb"], 2, [3])
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/*.wandb"))
    assert files and all(b"step/loss" in file.read_bytes() for file in files)
    assert b"epoch/top_1_accuracy" in files[-1].read_bytes()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_one_that_is_not_installed_is_told(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}[name], None)
    with pytest.raises(RecipeError, match=rf"{name} must be installed.*productrec\[track\]"):
        start_trackers([name], tmp_path, name="run", settings={}, first_step=0)


def test_one_that_fails_is_told_once_and_left_out(capsys):
    written = []

    def fail(step, figures):
        raise OSError("no space left")

    def refuse():
        raise OSError("cannot close")

    broken = Tracker("broken", fail, refuse)
    whole = Tracker("whole", lambda step, figures: written.append((step, figures)), refuse)
    with Trackers([broken, whole]) as trackers:
        trackers.write(1, {"loss": 1.0}, kind="step")
        trackers.write(2, {"loss": 2.0}, kind="step")
    said = capsys.readouterr().err
    assert said.count("broken: no longer written to (no space left)") == 1
    assert "whole: could not be closed (cannot close)" in said
    assert written == [(1, {"step/loss": 1.0}), (2, {"step/loss": 2.0})]
