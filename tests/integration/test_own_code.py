"""Code from outside productrec: imported only where the command line allows it, called only where it is a loss."""

import os
import pickle
import sys

import pytest

from tests.integration.conftest import TINY, write_recipe

ATTACK = {"metric": {"name": "subprocess:call", "args": "touch PWNED", "shell": True}}

LOSSES = """
import pathlib
from productrec.losses.engine.weighing import Weighed

pathlib.Path("IMPORTED").touch()

class Squared:
    def weigh(self, positives, negatives):
        pulled, pushed = (1 - positives).clamp(min=0), negatives.clamp(min=0)
        return Weighed((pulled.square().sum(1) + pushed.square().sum(1)) / 2, -pulled, pushed)

class Broken:
    def weigh(self, positives, negatives):
        return [][3]

class Misshapen:
    def weigh(self, positives, negatives):
        return Weighed(positives.sum(), positives[:2], negatives)

class Unmade:
    def __init__(self):
        {}["missing"]
    def weigh(self, positives, negatives): ...

class NoLoss:
    def __init__(self):
        pathlib.Path("CALLED").touch()
"""


@pytest.fixture
def own(place, drawn, productrec, monkeypatch):
    """A table, and a module of losses that notes when it is imported."""
    (place / "own_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    yield write_recipe(place, drawn)
    sys.modules.pop("own_losses", None)


def test_a_recipe_runs_no_command(place, drawn, productrec):
    recipe = write_recipe(place, drawn, loss=ATTACK)
    (place / "space.yaml").write_text("train.learning_rate: [1e-3]\n")
    for command in (["run"], ["train"], ["train", "--resume"], ["sweep", "space.yaml"]):
        refused = productrec(command[0], recipe, *command[1:], *TINY)
        assert refused.code == 2, refused.err
        assert "subprocess:call" in refused.err and "--allow-code" in refused.err
        assert not (place / "data").exists()  # told before anything is done
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    refused = productrec("train", recipe, *TINY, "--allow-code")
    assert refused.code == 2
    assert "got function call, which was not called" in refused.err
    assert not (place / "PWNED").exists()


def test_commands_in_members_demos_and_sweeps_are_found(place, drawn, productrec):
    recipe = write_recipe(place, drawn, members={"a": {"seed": 1}, "b": {"loss": ATTACK}})
    assert "subprocess:call" in productrec("run", recipe, *TINY).err
    assert "os:system" in productrec("demo", "members={a: {loss: {metric: os:system}}}").err
    (place / "space.yaml").write_text("loss.metric: [soft_triple, 'os:system']\n")
    swept = productrec("sweep", write_recipe(place, drawn), "space.yaml", *TINY)
    assert swept.code == 2 and "os:system" in swept.err


def test_a_module_is_not_imported_without_permission(own, place, productrec):
    refused = productrec("train", own, *TINY, "loss.metric=own_losses:Squared")
    assert refused.code == 2 and "--allow-code" in refused.err
    assert not (place / "IMPORTED").exists()
    trained = productrec("train", own, *TINY, "loss.metric=own_losses:Squared", "--allow-code")
    assert trained.code == 0, trained.err
    assert (place / "IMPORTED").exists()
    refused = productrec(
        "train", own, *TINY, "name=other", "data.table=data/tiny", "loss.metric=own_losses:NoLoss", "--allow-code"
    )
    assert refused.code == 2 and not (place / "CALLED").exists()


@pytest.mark.parametrize(
    ("loss", "code", "said"),
    [
        ("Broken", 7, "own_losses:Broken failed at {}/own_losses.py:14 (IndexError: list index out of range)"),
        ("Misshapen", 7, "own_losses:Misshapen gave back what the engine cannot use (RuntimeError: "),
        ("Unmade", 2, "own_losses:Unmade failed at {}/own_losses.py:22 (KeyError: 'missing')"),
    ],
)
def test_an_error_of_a_users_loss_names_it_and_its_line(own, place, productrec, loss, code, said):
    failed = productrec("train", own, *TINY, f"loss.metric=own_losses:{loss}", "--allow-code")
    assert failed.code == code, failed.err
    assert failed.err.splitlines()[-1].startswith("error: ") and "Traceback" not in failed.err
    assert said.format(place) in failed.err


class Command:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


TAG = "!!python/object/apply:os.system ['touch PWNED']\n"


@pytest.mark.parametrize(
    ("name", "data", "arguments"),
    [
        ("evil.pth", pickle.dumps(Command(), protocol=2), ["model.pretrained=evil.pth"]),
        ("augment.yaml", TAG.encode(), ["train.augmentation=augment.yaml"]),
        ("augment.json", b'{"transform": {"__class_fullname__": "os.system"}}', ["train.augmentation=augment.json"]),
        ("contract.yaml", f"name: {TAG}".encode(), ["competition=contract.yaml"]),
        ("none", b"", ["model.backbone=local-dir:."]),
        ("none", b"", ["train.optimizer=os:system"]),
        ("none", b"", [f"model.backbone={TAG.strip()}"]),
    ],
)
def test_no_file_or_name_of_a_recipe_runs_anything(own, place, productrec, name, data, arguments):
    (place / name).write_bytes(data)
    refused = productrec("train", own, *TINY, *arguments)
    assert refused.code in (2, 5, 7), refused.err
    assert refused.err.splitlines()[-1].startswith("error: ") and "Traceback" not in refused.err
    assert not (place / "PWNED").exists()


def test_no_tag_in_a_recipe_or_a_space_runs_anything(own, place, productrec):
    (place / "evil.yaml").write_text(f"name: {TAG}")
    for arguments in (["train", "evil.yaml"], ["sweep", own, "evil.yaml", *TINY]):
        refused = productrec(*arguments)
        assert refused.code == 2 and "could not determine a constructor" in refused.err, refused.err
    assert not (place / "PWNED").exists()
