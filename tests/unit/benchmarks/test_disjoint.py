"""The benchmark of unseen classes from its command line: rows are kept, and the same command goes on."""

import json
import sys

import disjoint
import pytest

from productrec.demo.drawn.competition import draw_competition
from productrec.errors import TrainingError


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the benchmark on a drawn set: ``run("--only", "raw")`` gives what it printed."""
    draw_competition(
        tmp_path / "data/grocery", skus=8, train_images=6, val_images=2, test_images=1, max_side_px=40, seed=1
    )

    monkeypatch.setattr(disjoint, "silence", lambda: None)  # which would last for all other tests

    def call(*arguments):
        fixed = [str(tmp_path / "work"), "--data", str(tmp_path / "data"), "--datasets", "grocery", "--quick"]
        monkeypatch.setattr(sys, "argv", ["disjoint.py", *fixed, *arguments])
        disjoint.main()
        return capsys.readouterr()

    return call


def read_methods(tmp_path):
    lines = (tmp_path / "work/rows.jsonl").read_text().splitlines()
    return [json.loads(line)["task"]["method"] for line in lines]


def test_the_same_command_measures_what_is_missing_alone(run, tmp_path, monkeypatch):
    first = run("--only", "raw,circle")
    assert read_methods(tmp_path) == ["raw", "circle"]
    assert "| circle |" in first.out and "| raw |" in first.out and first.err.count("map@r") == 2
    again = run("--only", "raw,circle")
    assert again.err == "" and "| circle |" in again.out
    monkeypatch.setattr(disjoint, "embed_trained", fail)
    more = run("--only", "raw,circle,margin")
    assert read_methods(tmp_path) == ["raw", "circle", "margin"]  # a training that fails is a row too
    assert "margin: fails: not finite" in more.err and "| margin |" in more.out
    assert "| raw |" in run("--table").out


def fail(*_):
    raise TrainingError("not finite")


def test_what_stops_the_benchmark_is_no_row(run, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(disjoint, "embed_trained", stop)
    with pytest.raises(KeyboardInterrupt):
        run("--only", "raw,circle")
    assert read_methods(tmp_path) == ["raw"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--finetune", "tripplet"], "got tripplet"),
        (["--datasets", "birds"], "--datasets: must be some of grocery, omniglot"),
        (["--rates", "0.1,fast"], "must be numbers above 0"),
        (["--steps", "0"], "must be a whole number from 1 on"),
    ],
)
def test_what_cannot_be_asked_is_told(run, capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err
