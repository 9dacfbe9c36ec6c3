"""Several ready runs that answer for the same photos side by side, blended class by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from productrec.assembly.answering import ReadyRun
from productrec.class_order import ClassOrder
from productrec.data.images import Images
from productrec.ensembling.blend import Blend, blend_block, check_same_order, resolve_weights
from productrec.retrieval.catalogue import Catalogue


class Blended(NamedTuple):
    """A batch: ``rows`` (B,) of photos, ``probabilities`` (B, C), ``is_doubted`` (B,), ``broken``: reasons by row."""

    rows: list[int]
    probabilities: np.ndarray
    is_doubted: np.ndarray
    broken: dict[int, str]


class BlendedRuns:
    """Ready runs of the same classes.

    ``runs``: these; ``keys`` and ``names``: of the C classes that any of them can name, ``class_ids``: of those in the
    table that the first was trained on, as texts, and the keys of others; ``unknown``: what the contract
    that they were fitted for calls products of no known class, None where it has no word for them.
    """

    def __init__(self, runs: Sequence[ReadyRun], *, blend: Blend | None = None) -> None:
        """Put runs together; ``blend``: how they become one, with a weight a run; an equal mean where None.

        Raises:
            ArtifactError: they know different classes.
        """
        self.runs = list(runs)
        names = [str(one.run) for one in runs]
        check_same_order(names, [sorted(one.notes.class_keys) for one in runs], "classes")
        self._blend = blend or Blend((1.0,) * len(names))
        self._shares = resolve_weights(names, self._blend.weights)
        titles = {
            key: name for one in reversed(runs) for key, name in zip(one.known.keys, one.known.names, strict=True)
        }
        self.keys = list(dict.fromkeys(key for one in runs for key in one.known.keys))
        self.names = [titles[key] for key in self.keys]
        ids = dict(zip(runs[0].notes.class_keys, map(str, runs[0].notes.class_ids), strict=True))
        self.class_ids = [ids.get(key, key) for key in self.keys]
        self._orders = [ClassOrder(one.known.keys).positions_of(self.keys) for one in runs]
        thresholds = [one.saved.unknown for one in runs if one.saved is not None]
        self.unknown = next((one.label for one in thresholds if one is not None), None)

    def answer(self, photos: Images) -> Iterator[Blended]:
        """Answer for photos, batch by batch.

        A photo is doubted where runs of more than half of the weight do not believe that it is of a known class.
        """
        size = min(one.batch_size for one in self.runs)  # the runs go side by side
        for parts in zip(*(one.answer(photos, batch_size=size) for one in self.runs), strict=True):
            rows = parts[0].rows
            doubts = sum(
                share * (np.zeros(len(rows)) if part.believed is None else ~part.believed)
                for part, share in zip(parts, self._shares, strict=True)
            )
            opinions = [
                np.where(order >= 0, part.probabilities[:, order], 0.0)  # -1: one that others have grown by
                for part, order in zip(parts, self._orders, strict=True)
            ]
            is_doubted = np.asarray(doubts) > float(sum(self._shares)) / 2
            yield Blended(rows, blend_block(opinions, self._blend), is_doubted, parts[0].broken)

    def compute_prior(self) -> np.ndarray | None:
        """Share (C,) of each class among the gallery's images; None where no run has its gallery at hand."""
        totals = np.zeros(len(self.keys))
        for one, order, share in zip(self.runs, self._orders, self._shares, strict=True):
            if not isinstance(one.catalogue, Catalogue):
                continue
            positions = one.known.positions[one.catalogue.get_classes(one.catalogue.list_alive())]
            counts = np.bincount(positions[positions >= 0], minlength=len(one.known.keys)).astype(np.float64)
            if counts.any():
                totals += share * np.where(order >= 0, counts[order], 0.0) / counts.sum()
        return totals / totals.sum() if totals.any() else None
