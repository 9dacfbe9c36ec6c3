"""Pretrained weights on the command line: listed, carried in a folder, trained from, and refused in a line."""

import json

import pytest
from huggingface_hub import constants

from productrec.models.weights import hub
from tests.integration.conftest import TINY, write_recipe

LITE = [
    setting for setting in TINY if not setting.startswith(("model.backbone", "model.pretrained", "train.epochs"))
] + ["model.backbone=tf_efficientnet_lite0", "train.epochs=1", "train.freeze_stages=5"]


@pytest.fixture(autouse=True)
def _out_of_reach(monkeypatch, tmp_path):
    """No network, and nothing was downloaded before."""

    class Unreachable:
        def head(self, address, timeout):
            raise OSError("no route")

    monkeypatch.setattr(hub, "get_session", Unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_weights_are_listed_carried_and_trained_from(place, drawn, productrec):
    listed = productrec("weights")
    assert listed.code == 0, listed.err
    assert "tf_efficientnet_lite0" in listed.out and "apache-2.0" in listed.out and "3.4" in listed.out
    fetched = productrec("weights", "fetch", "tf_efficientnet_lite0", "--to", "carried")
    assert fetched.code == 0 and "carry carried along" in fetched.err, fetched.err
    assert "carried/tf_efficientnet_lite0.safetensors" in productrec("weights", "--folder", "carried").out
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    trained = productrec("train", recipe, *LITE, "model.weights_folder=carried", "model.pretrained=true")
    assert trained.code == 0, trained.err
    assert "pretrained weights from carried/tf_efficientnet_lite0.safetensors" in trained.err
    resumed = productrec("train", recipe, *LITE, "--resume")  # where the weights were decides nothing of the run
    assert resumed.code == 0, resumed.err
    predicted = productrec("predict", "runs/tiny")
    assert predicted.code == 0 and "pretrained weights" not in predicted.err, predicted.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("weights", "fetch", "resnet10t", "--to", "w"), 7, "not on this machine, and nothing answers at"),
        (("weights", "fetch", "resnet5O", "--to", "w"), 7, "Did you mean resnet50"),
        (("weights", "--folder", "nothing"), 7, "must be a folder of weights files; 'nothing' is none"),
    ],
)
def test_what_cannot_be_had_is_one_line(place, productrec, arguments, code, said):
    outcome = productrec(*arguments)
    assert outcome.code == code
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert said in line
    assert not (place / "w").exists()


def test_a_backbone_without_weights_at_hand_and_no_network_is_one_line(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    settings = [setting for setting in TINY if not setting.startswith("model.pretrained")]
    outcome = productrec("train", recipe, *settings)
    assert outcome.code == 7
    assert "error: model.pretrained: the weights of mobilenetv3_small_050 are not on this machine" in outcome.err
    assert "productrec weights" in outcome.err


def test_auto_precision_is_chosen_once_and_kept(place, drawn, productrec, monkeypatch):
    from productrec.assembly import precision

    monkeypatch.setattr(precision, "computes_bfloat16", lambda: True)
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    settings = [setting for setting in TINY if not setting.startswith("train.precision")]
    trained = productrec("train", recipe, *settings)
    assert trained.code == 0 and "precision to train in: " in trained.err, trained.err
    first = productrec("predict", "runs/tiny")
    assert first.code == 0 and "precision to predict in: " in first.err, first.err
    kept = json.loads((place / "runs/tiny/precision.json").read_text())
    assert set(kept) == {"train", "predict"}
    again = productrec("predict", "runs/tiny", "--tta")
    assert again.code == 0 and "precision to predict in: " not in again.err, again.err
