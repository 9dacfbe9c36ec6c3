"""What a server takes at most, and how it refuses what is more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Attributes:
        most_bytes: size of a request's body.
        most_pixels: height times width of a photo.
        most_files: photos in a request.
        most_held_bytes: size of all bodies that are held at the same time.
        most_waiting: photos that wait for their answers at the same time.
        connections: connections open at the same time.
        batch_size: photos that the network sees at a time.
        timeout_s: seconds for the head of a request to come, for its body to come, and for a connection to be idle.
        answer_s: seconds for a request's photos to be answered, once they have come.
        finish_s: seconds that requests in flight get when the server is asked to stop.
    """

    most_bytes: int = 16 << 20
    most_pixels: int = 50_000_000
    most_files: int = 16
    most_held_bytes: int = 256 << 20
    most_waiting: int = 256
    connections: int = 512
    batch_size: int = 32
    timeout_s: float = 30.0
    answer_s: float = 60.0
    finish_s: float = 5.0


class RefusedError(Exception):
    """A request is not answered; ``status``: HTTP's code for it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Budget:
    """So many photos that may wait for their answers at the same time; for one thread."""

    def __init__(self, most: int) -> None:
        self._free = most

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Take some of it, until the end.

        Raises:
            RefusedError: so much is not free, 503.
        """
        if amount > self._free:
            raise RefusedError(503, "too many photos are waiting. Ask again in a moment.")
        self._free -= amount
        try:
            yield
        finally:
            self._free += amount
