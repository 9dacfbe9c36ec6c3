"""Photos of several requests to one network: those that wait at the same time are recognised together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Photo = TypeVar("Photo")
Answer = TypeVar("Answer")


class Batcher(Generic[Photo, Answer]):
    """One thread that recognises what waits, and never waits for more: a photo that is alone is a batch."""

    def __init__(self, recognise: Callable[[Sequence[Photo]], Sequence[Answer]], *, batch_size: int) -> None:
        """Start the thread.

        Args:
            recognise: an answer for each photo of a batch; called by that thread alone.
            batch_size: photos at a time at most.
        """
        self._recognise, self._batch_size = recognise, batch_size
        self._waiting: SimpleQueue[tuple[Photo, Future[Answer]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recognise", daemon=True)
        self._thread.start()

    def submit(self, photo: Photo) -> Future[Answer]:
        """The answer for a photo, once it is there; an exception of ``recognise`` is that of its whole batch."""
        future: Future[Answer] = Future()
        self._waiting.put((photo, future))
        return future

    def close(self, timeout_s: float) -> None:
        """End the thread after all that was submitted; it is left alone where that takes longer."""
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._gather()
            batch = [item for item in batch if item[1].set_running_or_notify_cancel()]
            if not batch:
                continue
            try:
                answers = self._recognise([photo for photo, _ in batch])
                if len(answers) != len(batch):
                    raise RuntimeError(f"{len(batch)} photos must have as many answers; got {len(answers)}.")
            except Exception as error:  # whoever asked is told, and the next batch may do better
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    def _gather(self) -> tuple[list[tuple[Photo, Future[Answer]]], bool]:
        """The photos that wait now, at least one unless the end has come, and whether it has."""
        batch: list[tuple[Photo, Future[Answer]]] = []
        item = self._waiting.get()
        while item is not None:
            batch.append(item)
            if len(batch) == self._batch_size:
                return batch, False
            try:
                item = self._waiting.get_nowait()
            except Empty:
                return batch, False
        return batch, True
