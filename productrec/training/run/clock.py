"""The clock: how long each kind of work takes, and what there is still time for before a deadline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Work = Literal["step", "save", "validate"]

# Work that was not seen yet is taken for such a share of the time allowed.
_GUESSED_SHARE: dict[Work, float] = {"step": 0.0, "save": 0.02, "validate": 0.1}
_ENDING_SECONDS = 2.0  # curves, and the process's own end


class Clock:
    """What there is time for before a deadline, by the longest that each kind of work has taken so far."""

    def __init__(self, deadline: float | None) -> None:
        """``deadline``: of `time.monotonic`; None for none."""
        self._deadline, self._started = deadline, time.monotonic()
        self._longest: dict[Work, float] = {}

    @contextmanager
    def measure(self, work: Work) -> Iterator[None]:
        """Take the time of a block of work; one that raises does not count."""
        started = time.monotonic()
        yield
        self._longest[work] = max(self._longest.get(work, 0.0), time.monotonic() - started)

    def is_too_late_for(self, *works: Work) -> bool:
        """Whether the deadline would pass before all of these are done."""
        if self._deadline is None:
            return False
        allowed = max(0.0, self._deadline - self._started)
        wanted = sum(self._longest.get(work, allowed * _GUESSED_SHARE[work]) for work in works)
        return time.monotonic() + wanted + min(_ENDING_SECONDS, allowed / 10) > self._deadline
