"""Forecast: how long a training and a prediction take, computed from what a rehearsal counted and timed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from productrec.assembly.embedding_requests import add_plain, list_requests
from productrec.assembly.rehearsal import Phase, Rehearsal, list_view_sides
from productrec.assembly.timing import Timing
from productrec.data.table import ImageTable
from productrec.data.view_presets import get_views
from productrec.recipe import Recipe


@dataclass(frozen=True)
class Work:
    """Seconds that the network wants, seconds that loading does, and how few both take at best; see `share_time`."""

    network: float
    loading: float
    shortest: float

    def __add__(self, other: Work) -> Work:
        """Work that is done one after the other."""
        return Work(self.network + other.network, self.loading + other.loading, self.shortest + other.shortest)

    @property
    def longest(self) -> float:
        """Seconds where network and loading take turns, as on cores that both want."""
        return self.network + self.loading

    @property
    def limit(self) -> str:
        """Which of both it waits for."""
        return "the network" if self.network >= self.loading else "loading"


def share_time(network: float, loading: float, *, overlaps: bool) -> Work:
    """Work whose lesser part hides behind the greater at best, where loader processes let them overlap."""
    return Work(network, loading, max(network, loading) if overlaps else network + loading)


@dataclass(frozen=True)
class Forward:
    """Images of a split that prediction looks at, and through how many views of which preset."""

    split: str
    images: int
    preset: str
    views: int


def forecast_steps(recipe: Recipe, rehearsal: Rehearsal) -> Work:
    """The steps of a training, without what it looks at between them."""
    epochs = Counter(rehearsal.phases)
    network = sum(
        count * rehearsal.steps_per_epoch * interpolate_seconds(phase, rehearsal.steps)
        for phase, count in epochs.items()
    )
    images = rehearsal.steps_per_epoch * len(rehearsal.phases) * rehearsal.batch_images
    return share_time(network, images / rehearsal.loaded, overlaps=_overlaps(recipe))


def interpolate_seconds(phase: Phase, steps: dict[Phase, Timing]) -> float:
    """Seconds of a step of a phase, by pixels between the sides that were timed."""
    timed = sorted(known for known in steps if known.is_frozen == phase.is_frozen)
    pixels = [known.side_px**2 for known in timed]
    return float(np.interp(phase.side_px**2, pixels, [steps[known].seconds for known in timed]))


def forecast_looks(recipe: Recipe, rehearsal: Rehearsal, dtype: torch.dtype) -> Work:
    """What a training in activations of ``dtype`` looks at through the plain view: validation, mining, merging."""
    images = sum(rehearsal.looks.values())
    seconds = rehearsal.passes[recipe.train.side_px, dtype]
    return share_time(images * seconds, images / rehearsal.viewed["plain"], overlaps=_overlaps(recipe))


def list_forwards(recipe: Recipe, table: ImageTable) -> list[Forward]:
    """What a first prediction looks at: each split through each preset once, the plain view with it."""
    forwards: list[Forward] = []
    done: set[tuple[str, str]] = set()
    for request in list_requests(recipe, table):
        wanted = {(one.split, one.views) for one in add_plain(request)}
        if not wanted <= done:
            images, views = len(table.select([request.split])), len(get_views(request.views, recipe.predict.own_views))
            forwards.append(Forward(request.split, images, request.views, views))
        done |= wanted
    return forwards


def forecast_prediction(recipe: Recipe, table: ImageTable, rehearsal: Rehearsal, dtype: torch.dtype) -> Work:
    """Embedding all that a first prediction wants, in activations of ``dtype``; search and vote are not in it."""
    work = Work(0.0, 0.0, 0.0)
    for forward in list_forwards(recipe, table):
        sides = list_view_sides(recipe, forward.preset)
        seconds = forward.images * sum(rehearsal.passes[side_px, dtype] for side_px in sides)
        loading = forward.images / rehearsal.viewed[forward.preset]
        work += share_time(seconds, loading, overlaps=_overlaps(recipe))
    return work


def _overlaps(recipe: Recipe) -> bool:
    return recipe.train.workers != 0
