"""Schedule: each one's shape, its edges, and the rates it gives."""

import itertools

import pytest
import torch

from productrec.errors import RecipeError
from productrec.training.step.schedule import compute_rate_factor, set_rate


def rates(total=24, warmup=4, **options):
    return [compute_rate_factor(step, warmup_steps=warmup, total_steps=total, **options) for step in range(total + 1)]


@pytest.mark.parametrize("schedule", ["cosine", "flat", "step"])
def test_every_schedule_warms_up_to_the_peak_and_stays_between_zero_and_it(schedule):
    seen = rates(schedule=schedule)
    assert seen[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert all(0 <= rate <= 1 for rate in seen)
    assert all(later <= earlier for earlier, later in itertools.pairwise(seen[4:]))
    assert rates(warmup=0, schedule=schedule)[0] == 1.0


def test_the_cosine_is_half_down_in_its_middle_and_ends_at_zero():
    seen = rates()
    assert seen == rates(schedule="cosine")
    assert seen[14] == pytest.approx(0.5)
    assert seen[24] == pytest.approx(0.0)
    assert compute_rate_factor(99, warmup_steps=4, total_steps=24) == pytest.approx(0.0)


def test_flat_stays_at_the_peak_and_then_goes_straight_to_zero():
    seen = rates(schedule="flat")  # the last 6 of 24 steps
    assert seen[4:19] == [1.0] * 15
    assert seen[18:] == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])
    assert compute_rate_factor(99, warmup_steps=4, total_steps=24, schedule="flat") == 0.0


def test_flat_without_a_cooldown_never_falls_and_with_a_long_one_falls_after_the_warm_up():
    assert rates(schedule="flat", cooldown=0.0)[3:] == [1.0] * 22
    assert rates(schedule="flat", cooldown=1.0)[3:] == pytest.approx([1.0, *(1 - step / 20 for step in range(21))])


@pytest.mark.parametrize("schedule", ["cosine", "flat"])
@pytest.mark.parametrize("cooldown", [0.1, 0.25, 0.9])
def test_cosine_and_flat_have_no_jumps(schedule, cooldown):
    seen = rates(total=1000, warmup=100, schedule=schedule, cooldown=cooldown)
    steepest = max(1 / 100, 1 / (cooldown * 1000), 3.1416 / 2 / 900)
    assert max(abs(a - b) for a, b in itertools.pairwise(seen)) <= steepest + 1e-9


def test_steps_fall_at_their_shares_of_the_whole_training():
    seen = rates(total=20, warmup=2, schedule="step")
    assert seen[2:12] == [1.0] * 10
    assert seen[12:17] == pytest.approx([0.1] * 5)
    assert seen[17:] == pytest.approx([0.01] * 4)
    assert 0.55 * 100 > 55  # a share is no whole number of steps, as computers have it
    assert rates(total=100, warmup=0, schedule="step", drop_at=(0.55,), drop_factor=0.5)[54:56] == [1.0, 0.5]


def test_a_drop_at_an_edge_or_within_the_warm_up_counts_from_the_first_step_after_it():
    assert rates(total=10, warmup=0, schedule="step", drop_at=(0.0,))[0] == pytest.approx(0.1)
    seen = rates(total=10, warmup=4, schedule="step", drop_at=(0.2, 1.0))
    assert seen[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.1])
    assert seen[9:] == pytest.approx([0.1, 0.01])
    assert rates(total=10, warmup=0, schedule="step", drop_at=()) == [1.0] * 11


@pytest.mark.parametrize("schedule", ["cosine", "flat", "step"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 0), (5, 5), (9, 5), (0, 1)])
def test_trainings_of_hardly_a_step_have_finite_rates(schedule, warmup, total):
    for step in range(12):
        rate = compute_rate_factor(step, warmup_steps=warmup, total_steps=total, schedule=schedule)
        assert 0 <= rate <= 1


def test_an_unknown_schedule_is_refused():
    with pytest.raises(RecipeError, match=r"train\.schedule.*'linear'"):
        compute_rate_factor(0, warmup_steps=0, total_steps=9, schedule="linear")


def test_each_group_has_its_share_of_its_own_peak():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate, "peak_lr": rate} for rate in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    set_rate(optimizer, 0.5)
    set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.25, 0.025])
