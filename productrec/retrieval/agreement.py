"""Agreement of two catalogues: the nearest other image of the same images, by two models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.embedding_set import EmbeddingSet

_SAMPLE = 1000
_SEED = 11


@dataclass(frozen=True)
class Agreement:
    """Shares of ``images``: the nearest other image is of the image's class by the ``old`` model, by the ``new`` one;
    both name the ``same`` class."""

    images: int
    old: float
    new: float
    same: float

    def describe(self) -> str:
        """The same as a person reads it."""
        if not self.images:
            return "no image that both hold, so nothing to compare"
        return (
            f"nearest other image of {self.images:,} is of the right class: old {self.old:.3f}, new {self.new:.3f}; "
            f"both name the same class for {self.same:.3f}"
        )


def compare_catalogues(old: Catalogue, new: Catalogue) -> Agreement:
    """How two catalogues answer for a sample, drawn with a fixed seed, of the images that can be found in both."""
    ids = sorted(set(old.list_ids()) & set(new.list_ids()))
    if not ids:
        return Agreement(0, 0.0, 0.0, 0.0)
    drawn = np.random.default_rng(_SEED).choice(len(ids), min(_SAMPLE, len(ids)), replace=False)
    sample = [ids[place] for place in sorted(drawn.tolist())]
    (old_own, old_said), (new_own, new_said) = _answer(old, sample), _answer(new, sample)
    old_right, new_right = _share_equal(old_own, old_said), _share_equal(new_own, new_said)
    return Agreement(len(sample), old_right, new_right, _share_equal(old_said, new_said))


def _share_equal(first: list[str], second: list[str]) -> float:
    return float(np.mean([a == b for a, b in zip(first, second, strict=True)]))


def _answer(catalogue: Catalogue, ids: list[str]) -> tuple[list[str], list[str]]:
    """Keys of the images' own classes, and of the classes of the nearest other images; empty where there is none."""
    own = catalogue.find(ids)
    queries = EmbeddingSet(ids, catalogue.get_embeddings(own), None, [], [], catalogue.weights_digest, {}, "")
    rows, _ = catalogue.search(queries, 2)
    nearest = np.where(rows[:, :1] != own[:, None], rows[:, :1], rows[:, 1:2] if rows.shape[1] > 1 else -1)[:, 0]
    classes = np.where(nearest >= 0, catalogue.get_classes(np.maximum(nearest, 0)), -1)
    keys = catalogue.keys
    said = [keys[place] if place >= 0 else "" for place in classes.tolist()]
    return [keys[place] for place in catalogue.get_classes(own).tolist()], said
