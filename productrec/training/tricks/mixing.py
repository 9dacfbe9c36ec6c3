"""Mixing: CutMix and MixUp, for the classification term alone; a pair loss never sees an image of two labels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_STREAM = 0x317  # sets the draws of partners apart from those of shares


class Mixture(NamedTuple):
    """The other labels of a mixed batch: ``partners`` (B,) class positions; ``share``, the pixels that are its own."""

    partners: Tensor
    share: float


class Mixing:
    """Mixes some batches, by (seed, step) alone: a resume mixes the same ones in the same way."""

    def __init__(self, *, cut_mix_share: float, mix_up_share: float, mix_up_alpha: float, seed: int, rank: int = 0):
        """``cut_mix_share`` and ``mix_up_share``: of the batches, together at most 1; ``mix_up_alpha``: see `mix_up`.

        Ranks mix the same steps in the same shares, each its own images.
        """
        self._cut_mix_share, self._mix_up_share, self._alpha = cut_mix_share, mix_up_share, mix_up_alpha
        self._seed, self._rank = seed, rank

    def mix(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Mixture | None]:
        """Images (B, S, S, 3) of a step, mixed or as they are, and with what."""
        generator = np.random.default_rng([self._seed, step])
        drawn = generator.random()
        if drawn >= self._cut_mix_share + self._mix_up_share:
            return images, None
        partners = np.random.default_rng([self._seed, step, self._rank, _STREAM])
        if drawn < self._cut_mix_share:
            return cut_mix(images, labels, generator, partners)
        return mix_up(images, labels, generator, partners, alpha=self._alpha)


def mix_up(
    images: Tensor,
    labels: Tensor,
    generator: np.random.Generator,
    partners: np.random.Generator | None = None,
    *,
    alpha: float,
) -> tuple[Tensor, Mixture]:
    """Blend every image with its partner (Zhang et al., ICLR 2018), one share for the whole batch.

    Args:
        images: (B, S, S, 3) uint8, left as they are; blended ones are rounded.
        labels: (B,) class positions.
        generator: draws the share.
        partners: draws who is mixed with whom; None for the same generator.
        alpha: the share is drawn from Beta(alpha, alpha); small ones leave most images nearly as they are.

    Returns:
        Mixed images, and the partners' labels with the share of the image's own.
    """
    order = torch.from_numpy((partners or generator).permutation(len(labels))).to(images.device)
    share = float(generator.beta(alpha, alpha))
    mixed = torch.lerp(images[order].float(), images.float(), share)
    return mixed.round_().to(images.dtype), Mixture(labels[order.to(labels.device)], share)


def cut_mix(
    images: Tensor, labels: Tensor, generator: np.random.Generator, partners: np.random.Generator | None = None
) -> tuple[Tensor, Mixture]:
    """Paste one rectangle of every image's partner over it (Yun et al., ICCV 2019).

    The rectangle has the image's aspect, an area drawn evenly from none to all, and a centre drawn evenly; what of it
    falls outside is cut off, and the share is that of the pixels that stay.

    Args:
        images: (B, S, S, 3), left as they are.
        labels: (B,) class positions.
        generator: draws the rectangle.
        partners: draws who is mixed with whom; None for the same generator.

    Returns:
        Mixed images, and the partners' labels with the share of the image's own.
    """
    height, width = images.shape[1:3]
    order = torch.from_numpy((partners or generator).permutation(len(labels))).to(images.device)
    reach = math.sqrt(generator.random()) / 2
    y, x = generator.random(2) * (height, width)
    top, bottom = (round(min(max(edge, 0), height)) for edge in (y - reach * height, y + reach * height))
    left, right = (round(min(max(edge, 0), width)) for edge in (x - reach * width, x + reach * width))
    mixed = images.clone()
    mixed[:, top:bottom, left:right] = images[order, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, Mixture(labels[order.to(labels.device)], share)
