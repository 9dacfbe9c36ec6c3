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
# No two of them a round margin apart: on the border of a hinge, rounding would decide.
_SITUATIONS = ((0.52, 0.73, 0.41), (0.43, 0.47, 0.55), (0.61, 0.23, 0.34))
_NEGATIVES, _COARSE_STEPS, _LEAST_CHANGE = 12, 41, 1e-6


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
    return WeightCurve(varied[:, 0], _weigh_pair(loss, mining, near, far, of_positive=of_positive))


def find_similarities(
    loss: PairWeighting, mining: Mining | None = None, *, positive_count: int = 3
) -> tuple[View, ...]:
    """Which of General Pair Weighting's similarities move the weight of a pair, as in Table 1 of the paper.

    As there, the pair is a negative. Its weight follows its own similarity (``self``) if it changes while all of the
    anchor's similarities rise alike, so that how pairs stand to each other stays as it is; it follows a relative
    similarity if it changes while that of the anchor's other negatives, or of its positives, alone is varied.

    Args:
        loss: how pairs are weighed.
        mining: which pairs are weighed at all.
        positive_count: positives of the anchor; 1 where they are centres of classes.
    """
    return tuple(view for view in VIEWS if _moves(loss, view, mining, positive_count))


def _moves(loss: PairWeighting, view: View, mining: Mining | None, positive_count: int) -> bool:
    for pair, positives, negatives in _SITUATIONS:
        weights = _weigh_negative(loss, view, mining, positive_count, pair, positives, negatives)
        if float(weights.max() - weights.min()) > _LEAST_CHANGE * float(weights.max()):
            return True
    return False


def _weigh_negative(
    loss: PairWeighting,
    view: View,
    mining: Mining | None,
    positive_count: int,
    pair: float,
    positives: float,
    negatives: float,
) -> Tensor:
    """Weights (S,) of a negative while all similarities rise together, or while those of a view alone do."""
    near = torch.full((_COARSE_STEPS, positive_count), positives, dtype=torch.float64)
    far = torch.full((_COARSE_STEPS, _NEGATIVES), negatives, dtype=torch.float64)
    far[:, 0] = pair
    if view == "self":
        room = 1.0 - max(pair, positives, negatives), 1.0 + min(pair, positives, negatives)
        shifts = torch.linspace(-room[1], room[0], _COARSE_STEPS, dtype=torch.float64)[:, None]
        near += shifts
        far += shifts
    else:
        varied = torch.linspace(-1.0, 1.0, _COARSE_STEPS, dtype=torch.float64)[:, None]
        (near if view == "positive relative" else far[:, 1:])[:] = varied
    return _weigh_pair(loss, mining, near, far, of_positive=False)


def _weigh_pair(loss: PairWeighting, mining: Mining | None, near: Tensor, far: Tensor, *, of_positive: bool) -> Tensor:
    """Weights (S,) of the first positive or negative of S anchors, with their positives and negatives."""
    if mining is not None:
        mining.drop(near, far)
    weighed = _weigh(loss, near, far)
    weights = (weighed.positives if of_positive else weighed.negatives)[:, 0].abs()
    return weights if weighed.scales is None else weights * weighed.scales[:, 0].abs()


def _weigh(loss: PairWeighting, near: Tensor, far: Tensor) -> Weighed:
    if isinstance(loss, RelatedPairWeighting):  # the other row of a positive pair is taken to have the same negatives
        own = loss.summarise(near, far)
        return loss.weigh_related(near, far, own, own[:, None].expand_as(near))
    return loss.weigh(near, far)
