"""Weight curves: how a loss weighs a pair as similarities change, the three views of General Pair Weighting.

A pair's weight may follow its own similarity, how it stands to the anchor's negatives, and how it stands to the
anchor's positives (Wang et al., CVPR 2019, section 3).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from productrec.losses.engine.weighing import Mining, PairWeighting, RelatedPairWeighting, Weighed

View = Literal["self", "negative relative", "positive relative"]
VIEWS: tuple[View, ...] = ("self", "negative relative", "positive relative")
# Of the pair looked at, the other positives and the other negatives, where they are not varied.
_SITUATIONS = ((0.5, 0.7, 0.4), (0.4, 0.5, 0.5), (0.6, 0.2, 0.3))
_COARSE_STEPS, _LEAST_CHANGE = 41, 1e-6


class WeightCurve(NamedTuple):
    """``similarities``: (S,) what is varied; ``weights``: (S,) of the pair looked at, the size of dL_i/dS."""

    similarities: Tensor
    weights: Tensor


def compute_weight_curve(
    loss: PairWeighting,
    view: View,
    *,
    of_positive: bool,
    mining: Mining | None = None,
    pair: float = 0.5,
    positives: float = 0.7,
    negatives: float = 0.4,
    positive_count: int = 3,
    negative_count: int = 12,
    steps: int = 201,
) -> WeightCurve:
    """How one pair of an anchor is weighed while one similarity goes from -1 to 1 and all others stay.

    Args:
        loss: how pairs are weighed.
        view: what is varied: the pair's own similarity, that of the anchor's other negatives, or other positives.
        of_positive: whether the pair looked at is a positive.
        mining: which pairs are weighed at all.
        pair: its similarity, where others are varied.
        positives: similarity of the anchor's other positives, where they are not varied.
        negatives: similarity of the anchor's other negatives, where they are not varied.
        positive_count: positives of the anchor.
        negative_count: negatives of the anchor.
        steps: S.
    """
    varied = torch.linspace(-1.0, 1.0, steps, dtype=torch.float64)[:, None]
    near = torch.full((steps, positive_count), positives, dtype=torch.float64)
    far = torch.full((steps, negative_count), negatives, dtype=torch.float64)
    if view == "positive relative":
        near[:] = varied
    elif view == "negative relative":
        far[:] = varied
    table = near if of_positive else far
    table[:, :1] = varied if view == "self" else pair
    if mining is not None:
        mining.drop(near, far)
    weighed = _weigh(loss, near, far)
    weights = (weighed.positives if of_positive else weighed.negatives)[:, 0].abs()
    if weighed.scales is not None:
        weights = weights * weighed.scales[:, 0].abs()
    return WeightCurve(varied[:, 0], weights)


def find_similarities(loss: PairWeighting, mining: Mining | None = None) -> tuple[View, ...]:
    """Which of General Pair Weighting's similarities move the weight of a pair, as in Table 1 of the paper.

    Told by the weights: a positive's or a negative's changes while that similarity alone is varied.

    Args:
        loss: how pairs are weighed.
        mining: which pairs are weighed at all.
    """
    return tuple(view for view in VIEWS if any(_moves(loss, view, mining, kind) for kind in (True, False)))


def _moves(loss: PairWeighting, view: View, mining: Mining | None, of_positive: bool) -> bool:
    for pair, positives, negatives in _SITUATIONS:
        weights = compute_weight_curve(
            loss,
            view,
            of_positive=of_positive,
            mining=mining,
            pair=pair,
            positives=positives,
            negatives=negatives,
            steps=_COARSE_STEPS,
        ).weights
        if float(weights.max() - weights.min()) > _LEAST_CHANGE * float(weights.max()):
            return True
    return False


def _weigh(loss: PairWeighting, near: Tensor, far: Tensor) -> Weighed:
    if isinstance(loss, RelatedPairWeighting):  # the other row of a positive pair is taken to have the same negatives
        own = loss.summarise(near, far)
        return loss.weigh_related(near, far, own, own[:, None].expand_as(near))
    return loss.weigh(near, far)
