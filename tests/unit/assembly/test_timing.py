"""Timing: what is left out, how often work is done, and what a rate is, by a clock that moves when it is told."""

import pytest
import torch

from productrec.assembly import timing
from productrec.assembly.timing import measure_rate, time_turns

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass where something is added to ``clock[0]``, and not else."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("lasting", "counted"),
    [
        ([9.0, 1.0, 3.0, 2.0, 1.0, 1.0], [1.0, 3.0, 2.0, 1.0, 1.0]),  # the first is the warm-up
        ([4.0, 6.0, 6.0], [6.0, 6.0]),  # nothing begins after ten seconds
        ([4.0, 12.0], [12.0]),
        ([11.0], [11.0]),  # too slow for a second one
    ],
)
def test_a_few_turns_are_timed_after_a_first(clock, lasting, counted):
    waiting = list(lasting)

    def work():
        clock[0] += waiting.pop(0)

    seen = time_turns(work, CPU, most_seconds=10.0)
    assert not waiting
    assert (seen.count, seen.shortest, seen.longest) == (len(counted), min(counted), max(counted))
    assert seen.seconds == sorted(counted)[len(counted) // 2] if len(counted) % 2 else sum(counted) / 2


def arrive(clock, batches):
    """Batches as (seconds until it comes, images)."""
    for seconds, images in batches:
        clock[0] += seconds
        yield images


def test_batches_that_wait_for_their_processes_are_left_out(clock):
    batches = [(5.0, 10), (0.1, 10), *[(1.0, 10)] * 3]
    assert measure_rate(arrive(clock, batches), waits=2, most_seconds=60.0) == pytest.approx(10.0)
    clock[0] = 0.0
    assert measure_rate(arrive(clock, batches), waits=0, most_seconds=60.0) == pytest.approx(50 / 8.1)


def test_a_rate_ends_in_time_and_needs_one_batch_alone(clock):
    endless = arrive(clock, iter(lambda: (1.0, 10), None))
    assert measure_rate(endless, waits=1, most_seconds=3.0) == pytest.approx(10.0)
    assert clock[0] == 5.0
    clock[0] = 0.0
    assert measure_rate(arrive(clock, [(4.0, 20)]), waits=3, most_seconds=60.0) == pytest.approx(5.0)
    clock[0] = 0.0  # where the first batches take too long, they are what there is
    slow = arrive(clock, [(40.0, 20), (40.0, 20)])
    assert measure_rate(slow, waits=3, most_seconds=30.0) == pytest.approx(0.5)
