"""Every command ends by saying what to do next, once, with a command that could be typed as it stands."""

import re
import shlex
import shutil
import sys

import pytest

from productrec.cli.next_steps import NEXT_STEPS, RESULTS
from tests.integration.conftest import TINY, check_command, write_recipe


def find_command(sentence: str) -> list[str]:
    """The words of the command between backquotes."""
    (command,) = re.findall(r"`([^`]+)`", sentence)
    return shlex.split(command)


def check_next(outcome) -> list[str]:
    """The command succeeded and said once, last, what to do next; returns the words of that command."""
    assert outcome.code == 0, outcome.err
    said = [line for line in outcome.err.splitlines() if line.startswith("Next: ")]
    assert len(said) == 1 and outcome.err.splitlines()[-1] == said[0], outcome.err
    assert said[0].endswith(".") and "{" not in said[0]
    words = find_command(said[0])
    if words[0] == "productrec":
        check_command(words)
    return words


@pytest.mark.parametrize("sentence", [text for text in NEXT_STEPS.values() if "{command}" not in text])
def test_each_sentence_names_a_command_that_exists(sentence):
    names = re.findall(r"{(\w+)}", sentence)
    words = find_command(sentence.format(**dict.fromkeys(names, "'a folder/x.yaml'")))
    if words[0] == "productrec":
        check_command(words)
    else:
        assert words[0] in ("curl", "python")


def test_a_command_that_does_not_exist_is_noticed():
    for wrong in ("productrec submitt runs/x", "productrec submit --histroy x", "productrec predict"):
        with pytest.raises(Exception, match=r"(?i)no such|missing|unknown"):
            check_command(wrong.split())


def test_each_command_says_once_what_to_do_next(finished, drawn, productrec):
    recipe = finished / "tiny.yaml"
    photos = sorted((drawn / "images").iterdir())[:2]
    for name in ("a new product", "another"):
        (finished / "new" / name).mkdir(parents=True)
        shutil.copy(photos[0], finished / "new" / name)
    table = ["--out", "data/tiny", "--competition", "imaterialist2019"]
    shutil.copytree("runs/tiny", "runs/copy")
    said = {
        name: check_next(productrec(*arguments))
        for name, arguments in {
            "explain": ["ingest", drawn, *table, "--explain"],
            "ingest": ["ingest", drawn, *table],
            "preview": ["preview", recipe, "--images", 2, "--epochs", 1, "train.side_px=32"],
            "audit": ["audit", "runs/tiny", "--out", "findings here"],
            "audit of a table": ["audit", "data/tiny", "--no-duplicates"],
            "train": ["train", recipe, *TINY],
            "predict": ["predict", "runs/tiny"],
            "photos": ["predict", "runs/tiny", "--images", "new", "--out", "new.csv"],
            "submit": ["submit", "runs/tiny"],
            "evaluate": ["evaluate", "runs/tiny", "--no-clustering", "--bootstrap", 0],
            "run": ["run", recipe, *TINY],
            "ensemble": ["ensemble", "runs/tiny", "runs/copy", "--out", "runs/both"],
            "grow": ["index", "grow", "runs/tiny", "new"],
            "remove": ["index", "remove", "runs/tiny", "another"],
            "compact": ["index", "compact", "runs/tiny"],
            "bundle": ["bundle", "runs/tiny", "--to", "bundle", "--wheels", "none", "--count", 1],
            "contract": ["competitions", "new", "--from", drawn / "sample_submission.csv", "--out", "mine.yaml"],
        }.items()
    }
    assert "--explain" not in said["explain"] and said["explain"][:3] == ["productrec", "ingest", str(drawn)]
    assert said["audit"][-2:] == ["--apply", "findings here/findings.csv"]  # a path with a blank stays one word
    assert said["train"] == ["productrec", "predict", "runs/tiny"]
    assert said["predict"] == [*said["ensemble"][:2], "runs/tiny"]
    assert said["run"] == said["submit"]
    for name in ("explain", "audit", "audit of a table"):  # as they stand, they change nothing of the table
        again = productrec(*said[name][1:])
        assert again.code == 0 and check_next(again), again.err
    assert productrec(*said["bundle"][1:]).code == 2  # that one is of Python
    for name in ("ingest", "train", "submit", "evaluate", "grow"):
        if "--upload" not in said[name]:
            assert productrec(*said[name][1:]).code == 0, name


def test_a_training_that_was_not_finished_goes_on(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    stopped = productrec("train", recipe, *TINY, "train.epochs=500", "--max-minutes", "0.02")
    words = check_next(stopped)
    assert words[-1] == "--resume" and "train.epochs=500" in words
    again = productrec(*words[1:], "--max-minutes", "0.02")
    assert again.code == 0 and "resuming runs/tiny" in again.err


def test_a_changed_source_is_taken_in_by_what_is_named(place, drawn, productrec, monkeypatch):
    shutil.copytree(drawn, place / "source")
    assert productrec("ingest", "source").code == 0
    (place / "source" / "test.json").write_text((drawn / "test.json").read_text().replace('"id": "', '"id": "x'))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    differs = productrec("ingest", "source", "--diff")
    assert differs.code == 1
    words = find_command(differs.err.splitlines()[-1])
    assert words == ["productrec", "ingest", "source", "--replace"]


LOOKS = {
    "settings": ["settings", "submit"],
    "losses": ["losses"],
    "competitions": ["competitions"],
    "competitions show": ["competitions", "show", "plain"],
    "weights": ["weights"],
    "index show": ["index", "show", "runs/tiny"],
    "query": ["query", "runs/tiny", "photo.jpg"],
    "submit, checked": ["submit", "--check", "submissions/tiny.csv", "--competition", "imaterialist2019"],
}


def test_results_that_go_elsewhere_are_followed_by_nothing(finished, drawn, productrec, monkeypatch):
    assert set(LOOKS) < RESULTS < set(NEXT_STEPS)
    shutil.copy(sorted((drawn / "images").iterdir())[0], "photo.jpg")
    for arguments in [*LOOKS.values(), [*LOOKS["query"], "--json"], ["evaluate", "runs/tiny", "--json", "x.json"]]:
        outcome = productrec(*arguments)
        assert outcome.code == 0 and "Next: " not in outcome.err + outcome.out, outcome.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)  # now a person looks
    for arguments in LOOKS.values():
        check_next(productrec(*arguments))
    assert "Next: " not in productrec(*LOOKS["query"], "--json").err


def test_the_demo_says_it_once(place, productrec):
    few = ["--skus", 6, "--train-images", 4, "--val-images", 2, "--test-images", 2, "--jobs", 1]
    played = productrec("demo", *few, *TINY, "train.epochs=1", "train.first_side_px=32", "train.freeze_stages=0")
    words = check_next(played)
    assert productrec(*words[1:]).code == 0
