"""Forecasts: seconds between timed sides, loading that hides or not, and what prediction looks at once."""

import pandas as pd
import pytest
import torch

from productrec.assembly.forecast import (
    forecast_looks,
    forecast_prediction,
    forecast_steps,
    interpolate_seconds,
    list_forwards,
    share_time,
)
from productrec.assembly.rehearsal import Phase, Rehearsal, choose_phases
from productrec.assembly.timing import Timing
from productrec.data.table import CLASS_COLUMNS, IMAGE_COLUMNS, ImageTable
from productrec.recipe import build_recipe
from productrec.training.run.run_checkpoints import CheckpointBytes


def timing(seconds):
    return Timing(seconds, seconds, seconds, 1)


@pytest.fixture
def table(tmp_path):
    """Eight images to train on, four to validate and two to test; one of the latter cannot be read."""
    splits = ["train"] * 8 + ["val"] * 4 + ["test"] * 3
    images = pd.DataFrame({"image_id": [f"i{number}" for number in range(15)], "split": splits, "status": "ok"})
    images.loc[14, "status"] = "broken"
    return ImageTable(images.reindex(columns=IMAGE_COLUMNS), pd.DataFrame(columns=CLASS_COLUMNS), tmp_path, None, "f")


def build(phases, steps, **changes):
    fixed = {
        "images": 64,
        "classes": 4,
        "batch_images": 16,
        "steps_per_epoch": 4,
        "looks": {"validation": 30, "near classes": 70},
        "loaded": 32.0,
        "passes": {(32, torch.float32): 0.1, (64, torch.float32): 0.4},
        "viewed": {"plain": 20.0, "flip": 20.0, "scales": 5.0},
        "checkpoint": CheckpointBytes(1, 1),
        "step_bytes": None,
        "device_peak": 0,
        "host_peak": 0,
    }
    return Rehearsal(phases=phases, steps=steps, **fixed | changes)


def recipe(side_px=32, workers=1, **predict):
    return build_recipe({"name": "r", "train": {"side_px": side_px, "workers": workers}, "predict": predict})


def test_loading_hides_behind_the_network_or_takes_turns_with_it():
    work = share_time(10.0, 4.0, overlaps=True)
    assert (work.shortest, work.longest, work.limit) == (10.0, 14.0, "the network")
    alone = share_time(1.0, 4.0, overlaps=False)
    assert (alone.shortest, alone.longest, alone.limit) == (5.0, 5.0, "loading")
    both = work + share_time(1.0, 9.0, overlaps=True)  # what comes later hides nothing of what came before
    assert (both.shortest, both.longest) == (19.0, 24.0)


def test_growing_sides_are_timed_at_three_of_them_frozen_ones_first():
    sides = [64, 80, 96, 112, 128, 128]
    phases = [Phase(side, epoch < 1) for epoch, side in enumerate(sides)]
    assert choose_phases(phases) == [Phase(64, True), Phase(80, False), Phase(112, False), Phase(128, False)]
    assert choose_phases([Phase(64, False)] * 5) == [Phase(64, False)]


def test_seconds_of_a_step_follow_the_pixels_between_sides_that_were_timed():
    steps = {Phase(64, True): timing(1.0), Phase(64, False): timing(2.0), Phase(128, False): timing(8.0)}
    assert interpolate_seconds(Phase(64, True), steps) == 1.0
    assert interpolate_seconds(Phase(96, False), steps) == pytest.approx(2.0 + 6.0 * (96**2 - 64**2) / (128**2 - 64**2))
    phases = [Phase(64, True), Phase(64, False), Phase(128, False), Phase(128, False)]
    work = forecast_steps(recipe(), build(phases, steps))
    assert work.network == pytest.approx(4 * (1.0 + 2.0 + 8.0 + 8.0))
    assert work.loading == pytest.approx(4 * 4 * 16 / 32.0)


def test_what_is_looked_at_between_steps_goes_through_the_plain_view():
    work = forecast_looks(recipe(), build([], {}), torch.float32)
    assert (work.network, work.loading) == (pytest.approx(10.0), pytest.approx(5.0))


def test_each_split_is_embedded_once_through_its_views(table):
    seen = [(one.split, one.images, one.preset, one.views) for one in list_forwards(recipe(tta="scales"), table)]
    assert seen == [("val", 4, "scales", 6), ("test", 2, "scales", 6), ("train", 8, "flip", 2)]
    plain = list_forwards(recipe(gallery_splits=["train", "val"]), table)  # the queries of val serve the gallery too
    assert [(one.split, one.preset) for one in plain] == [("val", "plain"), ("test", "plain"), ("train", "plain")]


def test_views_of_other_sides_have_their_own_seconds(table):
    passes = {(side, torch.float32): seconds for side, seconds in ((96, 0.05), (128, 0.1), (160, 0.4))}
    seen = build([], {}, passes=passes)
    work = forecast_prediction(recipe(128, workers=0, tta="scales"), table, seen, torch.float32)
    assert work.network == pytest.approx((4 + 2) * 2 * (0.05 + 0.1 + 0.4) + 8 * 2 * 0.1)
    assert work.loading == pytest.approx((4 + 2) / 5.0 + 8 / 20.0)
    assert work.shortest == pytest.approx(work.longest)
