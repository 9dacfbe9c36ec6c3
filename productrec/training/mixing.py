"""Mixing: CutMix, for the classification term alone; a pair loss never sees an image of two labels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Mixture(NamedTuple):
    """The other labels of a mixed batch: ``partners`` (B,) class positions; ``share``, the pixels that are its own."""

    partners: Tensor
    share: float


def cut_mix(images: Tensor, labels: Tensor, generator: np.random.Generator) -> tuple[Tensor, Mixture]:
    """Paste one rectangle of every image's partner over it (Yun et al., ICCV 2019).

    The rectangle has the image's aspect, an area drawn evenly from none to all, and a centre drawn evenly; what of it
    falls outside is cut off, and the share is that of the pixels that stay.

    Args:
        images: (B, S, S, 3), left as they are.
        labels: (B,) class positions.
        generator: where randomness comes from.

    Returns:
        Mixed images, and the partners' labels with the share of the image's own.
    """
    height, width = images.shape[1:3]
    order = torch.from_numpy(generator.permutation(len(labels))).to(images.device)
    reach = math.sqrt(generator.random()) / 2
    y, x = generator.random(2) * (height, width)
    top, bottom = (round(min(max(edge, 0), height)) for edge in (y - reach * height, y + reach * height))
    left, right = (round(min(max(edge, 0), width)) for edge in (x - reach * width, x + reach * width))
    mixed = images.clone()
    mixed[:, top:bottom, left:right] = images[order, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, Mixture(labels[order.to(labels.device)], share)
