"""What looks at photos: a trained run's network or an exported file, behind one interface that needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from productrec.data.images import Images


class Seen(NamedTuple):
    """A batch: ``rows`` (B,) of the photos, ``embeddings`` (B, D), ``logits`` (B, C), ``broken``: reasons by row."""

    rows: list[int]
    embeddings: np.ndarray
    logits: np.ndarray
    broken: dict[int, str]


@dataclass(frozen=True)
class NetworkNotes:
    """What a network is.

    ``class_keys`` and ``class_names``: of the C classes in the order of its logits; ``side_px``: of the squares that it
    sees; ``weights_digest``: of its weights, equal for everything embedded by them; ``class_ids``: of these classes
    in the table that it was trained on.
    """

    class_keys: list[str]
    class_names: list[str]
    side_px: int
    weights_digest: str
    class_ids: list[int]


class PhotoNetwork(Protocol):
    """A network that looks at photos through a preset of views, and averages what it sees."""

    def go_through(self, photos: Images, *, batch_size: int) -> Iterator[Seen]:
        """What the network says of photos, batch by batch, in their order.

        Args:
            photos: files, boxes in them, or pictures in memory.
            batch_size: photos at a time.
        """
        ...

    def cut(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The squares (S, S, 3) that the views need of a picture (H, W, 3); threads may call it side by side."""
        ...

    def see(self, photos: Sequence[Sequence[np.ndarray]]) -> Seen:
        """What the network says of one batch of photos, each given by its squares of `cut`."""
        ...
