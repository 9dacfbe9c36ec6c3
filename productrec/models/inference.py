"""Inference: a batch of cut views to one embedding and one row of logits an image, and the plain view's beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from productrec.models.recognizer import Recognized
from productrec.runtime import autocast


@torch.inference_mode()
def recognise_views(
    network: nn.Module,
    cuts: Sequence[Tensor],
    plan: Sequence[tuple[int, bool]],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Recognized, Recognized]:
    """Recognise images through several views.

    Args:
        network: a recognizer in evaluation mode, on ``device``.
        cuts: one (B, S, S, 3) uint8 tensor a distinct cut.
        plan: for each view the number of its cut and whether it is mirrored; the first view is the plain one.
        device: where to compute.
        dtype: of activations.

    Returns:
        The plain view's embeddings and logits, and those of all views together: the mean embedding brought back to unit
        norm, the mean of the logits. On the CPU, in float32.
    """
    embeddings: Tensor | None = None
    logits: Tensor | None = None
    plain: Recognized | None = None
    moved: dict[int, Tensor] = {}
    for number, mirrored in plan:
        if number not in moved:
            moved[number] = cuts[number].to(device, non_blocking=True)
        images = moved[number].flip(2) if mirrored else moved[number]
        with autocast(device, dtype):
            recognized: Recognized = network(images)
        if embeddings is None or logits is None:
            plain = recognized
            embeddings, logits = recognized.embeddings.clone(), recognized.logits.clone()
        else:
            embeddings += recognized.embeddings
            logits += recognized.logits
    if plain is None or embeddings is None or logits is None:
        raise ValueError("recognise_views: plan must name at least the plain view; got none.")
    together = Recognized(F.normalize(embeddings, dim=1).cpu(), (logits / len(plan)).cpu())
    return Recognized(plain.embeddings.cpu(), plain.logits.cpu()), together
