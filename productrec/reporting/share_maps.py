"""Maps of shares: a picture on which the cells that make it similar to another are coloured."""

from __future__ import annotations

import cv2
import numpy as np

# Told apart by the colour-blind too: for what makes them similar, and for what makes them unlike (Okabe and Ito 2008).
_TOWARDS = np.array([230, 159, 0], dtype=np.float32)
_AWAY = np.array([0, 114, 178], dtype=np.float32)
_STRONGEST = 0.8  # share of the colour in a cell of the largest share
_FAINTEST = 0.2  # of the picture's own colours left beside its greys


def draw_shares(picture: np.ndarray, shares: np.ndarray, *, largest: float | None = None) -> np.ndarray:
    """The picture, paled, with each cell in orange as far as it adds to the similarity and in blue as it takes away.

    Args:
        picture: (S, S, 3) uint8 RGB.
        shares: (H, W) of its cells.
        largest: the share that is coloured most; None for the largest there is.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    height, width = picture.shape[:2]
    scale = float(np.abs(shares).max()) if largest is None else largest
    strength = np.clip(np.asarray(shares, dtype=np.float32) / max(scale, 1e-12), -1.0, 1.0)
    wide = cv2.resize(strength, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    grey = picture.astype(np.float32).mean(axis=2, keepdims=True)
    paled = _FAINTEST * picture + (1 - _FAINTEST) * grey
    part = _STRONGEST * np.abs(wide)
    drawn = (1 - part) * paled + part * np.where(wide >= 0, _TOWARDS, _AWAY)
    return np.asarray(np.clip(drawn.round(), 0, 255), dtype=np.uint8)
