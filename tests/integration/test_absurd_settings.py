"""Settings that no machine can follow, or that teach nothing: told in a line, before they cost anything."""

import pytest
import torch

from productrec.training.step import memory_estimate
from tests.integration.conftest import TINY, write_recipe
from tests.integration.test_bad_input import check_line


@pytest.fixture
def tiny(place, drawn, productrec):
    """A recipe with its table."""
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    return write_recipe(place, drawn)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.side_px=50000", ["train.side_px", "8192", "50000"]),
        ("train.workers=100000", ["train.workers", "256"]),
        ("train.splits=test", ["train.splits: must be a list, such as [test]"]),
        ("seed=99999999999999999999999", ["seed", "less than 4294967296"]),
        ("loss.metric.x=1", ["multi_similarity: unknown key 'x'"]),
        ("device=mps", ["device: 'mps' cannot be used here", "device=cpu"]),
    ],
)
def test_a_setting_is_refused_in_one_line(tiny, productrec, setting, words):
    if setting == "device=mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    outcome = productrec("train", tiny, *TINY, setting)
    check_line(outcome, 2, *words)
    assert len(outcome.err.splitlines()) == 1
    assert len(outcome.err) < 300


def test_what_the_memory_cannot_hold_is_refused_before_the_first_step(tiny, productrec, monkeypatch):
    check_line(productrec("train", tiny, *TINY, "model.embedding_dim=10000000000"), 7, "model.embedding_dim")
    monkeypatch.setattr(memory_estimate, "measure_free_memory", lambda: 1 << 30)
    outcome = productrec("train", tiny, *TINY, "train.side_px=2048")
    check_line(outcome, 7, "16 images of 2048 px need at least", "1.0 GiB are free", "Give train.side_px=")
    assert "training tiny" not in outcome.err


def test_a_learning_rate_of_a_thousand_does_not_end_without_a_word(tiny, productrec):
    fast = ["train.optimizer=sgd", "train.learning_rate=1", "train.head_rate_factor=100", "train.warmup_epochs=0"]
    outcome = productrec("train", tiny, *TINY, "train.learning_rate=1000")
    assert outcome.code == 7 and "train.learning_rate" in outcome.err.splitlines()[-1], outcome.err
    told = productrec("train", tiny, *TINY, "name=b", "data.table=data/tiny", *fast, "train.epochs=1")
    assert told.code == 0, told.err
    assert "warning: epoch 1: The loss went up, from " in told.err
    assert "the training diverged" in told.err.splitlines()[-1]


def test_a_setting_that_does_not_exist_has_no_empty_table(productrec):
    check_line(productrec("settings", "trian"), 2, "no key holds 'trian'", "Did you mean 'train'?")
    assert "train.epochs" in productrec("settings", "epochs").out
