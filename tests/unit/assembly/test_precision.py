"""Precision: float32 unless bfloat16 is well faster for the network at hand; the run keeps what was chosen."""

import json

import pytest
import torch

from productrec.assembly import precision
from productrec.assembly.network import build_network
from productrec.assembly.precision import choose_precision, keep_precision, measure_precisions, read_precision
from productrec.errors import ArtifactError
from productrec.recipe import build_recipe

CPU = torch.device("cpu")


def recipe(name="auto", side_px=32):
    values = {
        "name": "run",
        "model": {"backbone": "resnet10t", "pretrained": False, "embedding_dim": 8},
        "train": {"precision": name, "side_px": side_px},
    }
    return build_recipe(values)


@pytest.fixture
def rates(monkeypatch):
    """What timing is made to find, by type; and how often it was asked."""
    found = {torch.float32: 100.0, torch.bfloat16: 100.0, "asked": 0}

    def measure(network, side_px, *, use):
        found["asked"] += 1
        return found

    monkeypatch.setattr(precision, "measure_precisions", measure)
    monkeypatch.setattr(precision, "computes_bfloat16", lambda: True)
    return found


@pytest.mark.parametrize(("half", "chosen"), [(80.0, "float32"), (114.0, "float32"), (116.0, "bfloat16")])
def test_bfloat16_is_taken_where_it_is_well_faster(rates, half, chosen, capfd):
    rates[torch.bfloat16] = half
    assert choose_precision(recipe(), CPU, use="train") == getattr(torch, chosen)
    assert f"to train in: {chosen} (float32 100, bfloat16 {half:.0f} images/s" in capfd.readouterr().err


def test_nothing_is_timed_where_nothing_is_to_choose(rates, monkeypatch):
    assert choose_precision(recipe("bfloat16"), CPU, use="train") == torch.bfloat16
    monkeypatch.setattr(precision, "computes_bfloat16", lambda: False)
    assert choose_precision(recipe(), CPU, use="train") == torch.float32
    assert rates["asked"] == 0


def test_a_run_keeps_what_was_chosen_for_each_use(rates, tmp_path):
    rates[torch.bfloat16] = 200.0
    assert choose_precision(recipe(), CPU, use="train", run=tmp_path) == torch.bfloat16
    keep_precision(tmp_path, "train", torch.bfloat16)
    rates[torch.bfloat16] = 10.0
    assert choose_precision(recipe(), CPU, use="train", run=tmp_path) == torch.bfloat16
    assert choose_precision(recipe(), CPU, use="predict", run=tmp_path) == torch.float32
    keep_precision(tmp_path, "predict", torch.float32)
    assert read_precision(tmp_path, "train") == torch.bfloat16
    assert json.loads((tmp_path / "precision.json").read_text()) == {"train": "bfloat16", "predict": "float32"}


@pytest.mark.parametrize("text", ["{", "[]", '{"train": "int8"}'])
def test_a_damaged_note_is_one_clear_line(rates, tmp_path, text):
    (tmp_path / "precision.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"is damaged.*Delete it"):
        choose_precision(recipe(), CPU, use="train", run=tmp_path)


@pytest.mark.parametrize("use", ["train", "predict"])
def test_timing_leaves_no_gradient_and_gives_a_rate_each(use):
    network = build_network(recipe(), 3)
    rates = measure_precisions(network, 32, use=use)
    assert set(rates) == {torch.float32, torch.bfloat16}
    assert all(0 < rate < float("inf") for rate in rates.values())
    assert all(parameter.grad is None for parameter in network.parameters())
