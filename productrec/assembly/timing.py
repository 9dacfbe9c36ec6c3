"""Timing: seconds that work takes on a device, and how many images come a second; for plans, not for benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from productrec.runtime import synchronise

_TURNS = 5
_BATCHES = 50


@dataclass(frozen=True)
class Timing:
    """Seconds that something took: the middle of ``count`` times, the shortest and the longest."""

    seconds: float
    shortest: float
    longest: float
    count: int


def time_turns(work: Callable[[], object], device: torch.device, *, most_seconds: float) -> Timing:
    """Do some work a few times, and take its time.

    The first time is left out: kernels are chosen in it, and memory is taken. Where it alone took longer than
    ``most_seconds`` it is all there is.

    Args:
        work: what is done.
        device: waited for before a clock is read.
        most_seconds: after so many nothing is begun any more.
    """

    def take() -> float:
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        return time.perf_counter() - started

    first = take()
    if first > most_seconds:
        return Timing(first, first, first, 1)
    taken = [take()]
    while len(taken) < _TURNS and sum(taken) < most_seconds:
        taken.append(take())
    return Timing(statistics.median(taken), min(taken), max(taken), len(taken))


def measure_rate(counts: Iterator[int], *, waits: int, most_seconds: float) -> float:
    """Images a second of batches that come from loader processes.

    Args:
        counts: images of each batch, given when it has come.
        waits: first batches that are left out, since they waited for their processes to start; fewer where these alone
            take longer than ``most_seconds``, or where there are no others.
        most_seconds: after so many the next batch is the last.
    """
    begun = started = now = time.perf_counter()
    images = early = 0
    for number, count in enumerate(counts):
        now = time.perf_counter()
        if number < waits and now - begun < most_seconds:
            early, started = early + count, now
            continue
        images += count
        if now - started > most_seconds or number >= waits + _BATCHES:
            break
    if not images:
        images, started = early, begun
    return images / max(now - started, 1e-9)
