"""What a person sees of each step: the progress bar's figures."""

from __future__ import annotations

import time
from collections.abc import Callable

from productrec.console import Bar

_SHORT = {"learning_rate_factor": "rate/peak", "embedding_similarity": "similarity", "active_pairs": "active"}


class StepDisplay:
    """Shows each step on the progress bar, with images per second, of all ranks, over the last few."""

    def __init__(self, bar: Bar, epochs: int, ranks: int, measure_memory: Callable[[], int]) -> None:
        """``measure_memory`` gives the bytes held at most so far."""
        self._bar, self._epochs, self._ranks, self._measure_memory = bar, epochs, ranks, measure_memory
        self._images, self._since = 0, time.monotonic()
        self._note: dict[str, str] = {}

    def __call__(self, epoch: int, images: int, losses: dict[str, float]) -> None:
        self._images += images
        if losses:
            now = time.monotonic()
            rate = self._ranks * self._images / max(1e-9, now - self._since)
            self._images, self._since = 0, now
            self._note = {"epoch": f"{epoch + 1}/{self._epochs}", "images/s": f"{rate:,.0f}"}
            self._note |= {_SHORT.get(name, name): f"{value:.3g}" for name, value in losses.items()}
            self._note["memory"] = f"{self._measure_memory() / 2**30:.1f} GiB"
        self._bar.advance(1, **self._note)
