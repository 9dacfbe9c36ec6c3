"""Merging SoftTriple's centres while they are learned, as long as classes are told by them as well as before."""

from __future__ import annotations

import numpy as np
import torch

from productrec.console import say
from productrec.losses.centres.merging import find_nearest_classes
from productrec.losses.centres.soft_triple import SoftTripleModule
from productrec.training.ranks.group import Ranks

_ROUNDING = 1e-9  # of shares of images


@torch.no_grad()
def merge_learned_centres(
    loss: SoftTripleModule,
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    distance: float,
    tolerance: float,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """Merge the centres of each class that came together, and take it back where too many images suffer.

    SoftTriple's regulariser pulls a class's centres together so that as few are left as its looks need (Qian et al.,
    ICCV 2019, section 3.3). A merged centre counts as all that it was made of. All ranks must call it together; they
    do as the first one does.

    Args:
        loss: whose centres are merged.
        embeddings: (N, D) of validation images, unit rows.
        labels: (N,) their class positions, -1 where the class is not known.
        distance: see `SoftTripleModule.merge`.
        tolerance: by how much top-1 accuracy by centres may fall, a share of the images.

    Returns:
        ``centre_top_1_before``, ``centre_top_1_merged`` (also where it was taken back) and ``centres_per_class`` left.
    """
    ranks = ranks or Ranks()
    rows = torch.from_numpy(embeddings).to(loss.centres.device)

    def measure() -> float:
        return float(np.mean(find_nearest_classes(rows, loss.get_prototypes(), loss.gamma).cpu().numpy() == labels))

    kept = loss.centres.clone(), loss.sizes
    before = measure()
    loss.merge(distance)
    after = measure()
    is_worse = before - after > tolerance + _ROUNDING
    left = loss.get_prototypes().counts.float().mean().item()
    if is_worse:
        loss.centres.copy_(kept[0])
        loss.sizes = kept[1]
    # Devices may differ in a last digit, and a step of just the distance then joins on one rank alone.
    centres, sizes, figures = ranks.broadcast(
        (
            loss.centres.cpu(),
            None if loss.sizes is None else loss.sizes.cpu(),
            {
                "centre_top_1_before": before,
                "centre_top_1_merged": after,
                "centres_per_class": loss.get_prototypes().counts.float().mean().item(),
            },
        )
    )
    loss.centres.copy_(centres)
    loss.sizes = None if sizes is None else sizes.to(loss.centres.device)
    if ranks.is_first:
        say(
            f"centres: {left:.2f} left of each class; top-1 accuracy by centres {before:.4f} before, {after:.4f} after"
            f"{'; taken back' if is_worse else ''}"
        )
    return dict(figures)
