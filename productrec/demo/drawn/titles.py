"""Writes the titles under which shops would sell drawn products: near-identical, with errors and words swapped."""

from __future__ import annotations

import numpy as np

from productrec.demo.drawn.catalogue import Sku

_UNTITLED = 0.15  # postings without a title
_PRAISE = ("original", "best price", "ready stock", "promo", "100%", "new", "free gift", "cheap")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_title(sku: Sku, *, difficulty: float, rng: np.random.Generator) -> str | None:
    """One posting's title; None for a posting without one.

    Brand, kind, flavour, badge and size, of which the harder the competition the more are left out, mistyped or swapped
    with their neighbours; two products that differ in a detail of their logo alone have the same.

    Args:
        sku: the product.
        difficulty: 0 to 1.
        rng: where every choice comes from.
    """
    if rng.random() < _UNTITLED:
        return None
    words = [*sku.family.name.split(), *sku.flavour.capitalize().split()]
    words += [word for word in (sku.badge, sku.size) if word]
    kept = [words[0], *(word for word in words[1:] if rng.random() > 0.25 * difficulty)]
    kept = [_mistype(word, rng) if rng.random() < 0.15 * difficulty else word for word in kept]
    for place in range(len(kept) - 1):
        if rng.random() < 0.3 * difficulty:
            kept[place], kept[place + 1] = kept[place + 1], kept[place]
    if rng.random() < 0.5 * difficulty:
        kept.insert(int(rng.integers(len(kept) + 1)), str(rng.choice(_PRAISE)))
    title = " ".join(kept)
    return title.upper() if rng.random() < 0.1 else title


def _mistype(word: str, rng: np.random.Generator) -> str:
    """A word with a letter left out, doubled, or another in its place."""
    place = int(rng.integers(len(word)))
    instead = ("", 2 * word[place], _LETTERS[int(rng.integers(len(_LETTERS)))])[int(rng.integers(3))]
    return (word[:place] + instead + word[place + 1 :]) or word
