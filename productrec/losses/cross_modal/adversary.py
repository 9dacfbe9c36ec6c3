"""The adversary: a discriminator that tells images from titles, behind a layer that turns its gradient round."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from productrec.errors import RecipeError
from productrec.losses.engine.batch import leave_autocast


class ModalityDiscriminator(nn.Module):
    r"""Tells images from titles by their embeddings, while the towers learn that it cannot.

    A perceptron with one hidden layer learns by cross-entropy which row is an image. Between it and the embeddings
    stands a gradient reversal layer (Ganin and Lempitsky, ICML 2015): what comes back to the towers is
    :math:`-reversal` times the gradient, so that one optimiser step makes the discriminator better and the modalities
    harder to tell apart. At :math:`\log 2` it knows nothing.

    Args:
        embedding_dim: D.
        hidden: units of the hidden layer.
        reversal: what the reversed gradient is multiplied with, at least 0; the discriminator's own gradient is not.
    """

    def __init__(self, embedding_dim: int, *, hidden: int = 256, reversal: float = 1.0) -> None:
        super().__init__()
        if embedding_dim < 1 or hidden < 1 or not 0 <= reversal < float("inf"):
            raise RecipeError(
                "adversary: embedding_dim and hidden must be at least 1 and reversal at least 0; got "
                f"{embedding_dim}, {hidden} and {reversal}."
            )
        self.layers = nn.Sequential(nn.Linear(embedding_dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.reversal = reversal

    def forward(self, images: Tensor, titles: Tensor) -> Tensor:
        """Cross-entropy in nats, a scalar, of images (B, D) and titles (T, D); both modalities weigh the same."""
        with leave_autocast(images.device.type):
            dtype = next(self.layers.parameters()).dtype
            rows = torch.cat([images.to(dtype), titles.to(dtype)])
            logits = self.layers(_Reversal.apply(rows, self.reversal))[:, 0]
            of_images, of_titles = logits[: len(images)], logits[len(images) :]
            return (
                binary_cross_entropy_with_logits(of_images, torch.ones_like(of_images))
                + binary_cross_entropy_with_logits(of_titles, torch.zeros_like(of_titles))
            ) / 2

    def extra_repr(self) -> str:
        """The setting, as ``print(module)`` shows it."""
        return f"reversal={self.reversal}"


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        return outer * -ctx.factor, None
