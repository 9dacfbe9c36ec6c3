"""SoftTriple loss: several learned centres a class, so that one SKU may have several looks.

It walks over the classes in blocks and makes the gradient on the way, so that beyond the similarities (rows by centres)
and the gradient of the centres nothing large is held: 100,000 classes of 10 centres fit beside a backbone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.batch import check_batch, check_label_range, choose_computing_dtype
from productrec.losses.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.gradient import hand_over_gradients, keep_gradients
from productrec.losses.margin_softmax import MarginSoftmax

# Entries of a block of centres: on a CPU one that stays in a core's cache.
_BLOCK_ENTRIES = 1 << 18
_ACCELERATOR_BLOCK_ENTRIES = 1 << 26
# Similarities held at a time; more embeddings take turns.
_HELD_SIMILARITIES = 1 << 26


def compute_soft_triple_loss(
    embeddings: Tensor,
    labels: Tensor,
    centres: Tensor,
    *,
    scale: float = 20.0,
    gamma: float = 0.1,
    margin: float = 0.01,
    tau: float = 0.2,
    block_classes: int | None = None,
) -> Tensor:
    r"""SoftTriple loss: cross-entropy over relaxed class similarities, plus a pull between centres of one class.

    Source: Qian et al., *SoftTriple Loss: Deep Metric Learning Without Triplet Sampling*, ICCV 2019. With unit centres
    :math:`w_c^k`, the relaxed similarity of image i and class c is

    .. math::
        S_{ic} = \sum_k q_{ic}^k \, x_i \cdot w_c^k, \qquad
        q_{ic}^k = \mathrm{softmax}_k (x_i \cdot w_c^k / \gamma),

    and with the true class y of each image

    .. math::
        L = -\frac{1}{B} \sum_i \log \frac{e^{\lambda (S_{iy} - \delta)}}
                {e^{\lambda (S_{iy} - \delta)} + \sum_{c \ne y} e^{\lambda S_{ic}}}
          + \tau \, \frac{\sum_c \sum_{s < t} \sqrt{2 - 2 \, w_c^s \cdot w_c^t}}{C K (K - 1)}.

    Every pair of centres counts once, as in the paper and the authors' code, so the regulariser is half the mean
    distance between the centres of a class.

    Numerics: computed in float32 whatever autocast says (float64 stays float64). The square root has no derivative
    where two centres coincide. Pairs closer than rounding can tell apart (squared distance up to 16 machine epsilons,
    a distance of 1.4e-3 in float32) count as distance 0 with subgradient 0; the authors add 1e-5 under the root
    instead, which gives coincident centres a distance of 3e-3. K = 1 has no pairs and no regulariser. The gradient is
    made in the forward pass; there is no second derivative. Memory: the similarities (B, C, K) and the gradient.

    Args:
        embeddings: (B, D), unit rows.
        labels: (B,) integer class positions, 0 to C - 1 (checked on the CPU only; on a GPU the kernel asserts).
        centres: (C, K, D), of any length above 0; normalised here.
        scale: the paper's lambda, sharpness of the cross-entropy, above 0.
        gamma: smoothing over the centres of a class, in similarity, above 0; small is close to the nearest centre.
        margin: the paper's delta, in similarity.
        tau: weight of the regulariser, at least 0; 0 skips it.
        block_classes: classes at a time; None chooses.

    Returns:
        Scalar, float32 or float64.

    Raises:
        TrainingError: shapes do not fit, labels are not integers or out of range.
        RecipeError: a setting is out of its range.
    """
    where = "SoftTriple loss"
    check_batch(where, embeddings, labels)
    if centres.ndim != 3 or centres.shape[2] != embeddings.shape[1] or 0 in centres.shape:
        raise TrainingError(
            f"{where}: centres must have shape (C, K, {embeddings.shape[1]}), C and K at least 1; "
            f"got {tuple(centres.shape)}. Build the loss with the embedding's dimension."
        )
    check_label_range(where, labels, centres.shape[0])
    if not (scale > 0 and gamma > 0 and tau >= 0):
        raise RecipeError(
            f"{where}: scale and gamma must be above 0 and tau at least 0; "
            f"got scale={scale}, gamma={gamma}, tau={tau}. The paper has 20, 0.1 and 0.2."
        )
    with torch.autocast(embeddings.device.type, enabled=False):
        shape = _Shape(scale, gamma, margin, tau, block_classes)
        value: Tensor = _SoftTripleFunction.apply(embeddings, centres, labels, shape)
        return value


class SoftTripleLoss(nn.Module):
    """:func:`compute_soft_triple_loss` with its settings and its learned ``centres`` (C, K, D).

    The centres start uniform in [-1/sqrt(D), 1/sqrt(D)] per coordinate, which is Kaiming-uniform with a = sqrt(5) over
    the D inputs. The authors apply the same rule to a (D, C K) matrix, which makes the bound 1/sqrt(C K). Directions
    are distributed alike, and only directions enter the loss; but lengths set how far one optimiser step turns a
    centre, and here they do not shrink as classes are added.

    Args:
        embedding_dim: D.
        class_count: C.
        centres_per_class: K, at least 1.
    """

    def __init__(
        self,
        embedding_dim: int,
        class_count: int,
        centres_per_class: int = 10,
        *,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        tau: float = 0.2,
    ) -> None:
        super().__init__()
        if min(embedding_dim, class_count, centres_per_class) < 1:
            raise RecipeError(
                "SoftTriple loss: embedding_dim, class_count and centres_per_class must be at least 1; "
                f"got {embedding_dim}, {class_count} and {centres_per_class}. The paper has 10 centres a class."
            )
        self.scale = scale
        self.gamma = gamma
        self.margin = margin
        self.tau = tau
        self.centres = nn.Parameter(torch.empty(class_count, centres_per_class, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centres anew from torch's global generator."""
        bound = self.centres.shape[2] ** -0.5
        nn.init.uniform_(self.centres, -bound, bound)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of embeddings (B, D) and labels (B,)."""
        return compute_soft_triple_loss(
            embeddings, labels, self.centres, scale=self.scale, gamma=self.gamma, margin=self.margin, tau=self.tau
        )

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """Look at the pairs of embeddings (B, D) and centres, whose rows are C K, class by class.

        Which are active is told by the softmax over each class's nearest centre, which the relaxed one is close to.
        """
        class_count, per_class, _ = self.centres.shape
        centres = functional.normalize(self.centres.detach().float().flatten(0, 1), dim=1)
        classes = torch.arange(class_count, device=labels.device).repeat_interleave(per_class)
        loss = MarginSoftmax(self.scale, self.margin, centres_per_class=per_class)
        return diagnose_pairs(embeddings, labels, loss, references=centres, reference_labels=classes)

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return (
            f"centres={tuple(self.centres.shape)}, scale={self.scale}, gamma={self.gamma}, "
            f"margin={self.margin}, tau={self.tau}"
        )


class _Shape(NamedTuple):
    scale: float
    gamma: float
    margin: float
    tau: float
    block_classes: int | None


class _SoftTripleFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, centres: Tensor, labels: Tensor, shape: _Shape) -> Tensor:
        dtype = choose_computing_dtype(embeddings, centres)
        rows = embeddings.detach().to(dtype).contiguous()
        walk = _CentreWalk(centres.detach().to(dtype).contiguous(), shape)
        wants_rows, wants_centres = ctx.needs_input_grad[:2]
        row_gradient = torch.zeros_like(rows) if wants_rows else None
        gradient = torch.empty_like(walk.centres) if wants_centres else None
        total = rows.new_zeros(())
        count, most = len(rows), max(1, _HELD_SIMILARITIES // walk.centres[..., 0].numel())
        for start in range(0, count, most):
            some = slice(start, start + most)
            total += walk.compare(rows[some], labels[some], count)
            into = None if row_gradient is None else row_gradient[some]
            is_last = start + most >= count
            total += walk.finish(rows[some], into, gradient, is_first=start == 0, is_last=is_last)
        mine = None if row_gradient is None else row_gradient.to(embeddings.dtype)
        keep_gradients(ctx, (mine, None if gradient is None else gradient.to(centres.dtype)))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_over_gradients(ctx, outer), None, None)


class _CentreWalk:
    """Centres (C, K, D) as they are, the reciprocals of their lengths, and the blocks of classes to go through."""

    def __init__(self, centres: Tensor, shape: _Shape) -> None:
        self.centres, self._shape = centres, shape
        self._classes, self._per_class, dim = centres.shape
        entries = _BLOCK_ENTRIES if centres.device.type == "cpu" else _ACCELERATOR_BLOCK_ENTRIES
        size = shape.block_classes or max(1, entries // (self._per_class * dim))
        self._blocks = [slice(start, start + size) for start in range(0, self._classes, size)]
        self._inverses = centres.new_empty((self._classes, self._per_class, 1))
        self._slopes = centres.new_empty(0)

    def compare(self, rows: Tensor, labels: Tensor, total_count: int) -> Tensor:
        """Sum of the cross-entropies of embeddings (b, D) over the count of all rows.

        Its derivative by every similarity, (C, K, b), is kept.
        """
        shape, count = self._shape, len(rows)
        if self._slopes.shape[-1:] != (count,):
            self._slopes = rows.new_empty((self._classes, self._per_class, count))
        relaxed = rows.new_empty((self._classes, count))
        for block in self._blocks:
            centres, similarities = self.centres[block], self._slopes[block]
            inverses = centres.norm(dim=2, keepdim=True).clamp_(min=1e-12).reciprocal_()
            self._inverses[block] = inverses
            torch.mm(centres.flatten(0, 1), rows.T, out=similarities.flatten(0, 1))
            similarities.mul_(inverses)
            _relax(similarities, shape.gamma, relaxed[block])
        logits = relaxed.mul_(shape.scale)
        true_class = labels.long()[None]
        logits.scatter_add_(0, true_class, logits.new_full(true_class.shape, -shape.scale * shape.margin))
        total = (logits.logsumexp(dim=0) - logits.gather(0, true_class)[0]).sum() / total_count
        wrong = logits.softmax(dim=0)
        wrong.scatter_add_(0, true_class, wrong.new_full(true_class.shape, -1.0))
        self._slopes.mul_(wrong.mul_(shape.scale / total_count)[:, None])
        return total

    def finish(
        self, rows: Tensor, row_gradient: Tensor | None, gradient: Tensor | None, *, is_first: bool, is_last: bool
    ) -> Tensor:
        """Add the kept derivatives up to gradients by embeddings (b, D) and by centres (C, K, D); the regulariser last.

        The first call begins the gradient by centres, which is one by unit centres until the last.
        """
        total = self.centres.new_zeros(())
        for block in self._blocks:
            slopes = self._slopes[block].flatten(0, 1)
            if gradient is not None:
                gradient[block].flatten(0, 1).addmm_(slopes, rows, beta=0.0 if is_first else 1.0)
            if row_gradient is not None:
                slopes.mul_(self._inverses[block].flatten(0, 1))
                row_gradient.addmm_(slopes.T, self.centres[block].flatten(0, 1))
            if is_last:
                total += self._regularise(block, None if gradient is None else gradient[block])
        return total

    def _regularise(self, block: slice, gradient: Tensor | None) -> Tensor:
        """The regulariser of some classes; its gradient is added, and all that only lengthens a centre is taken off."""
        per_class, inverses = self._per_class, self._inverses[block]
        weight = self._shape.tau / (self._classes * per_class * (per_class - 1)) if per_class > 1 else 0.0
        total = self.centres.new_zeros(())
        if gradient is None and not weight:
            return total
        units = self.centres[block] * inverses
        if weight:
            distances, slopes = _measure_distances(units)
            total = distances.sum() * (weight / 2)  # every pair stands twice in a class's table
            if gradient is not None:
                gradient.baddbmm_(slopes, units, alpha=weight)
        if gradient is not None:
            along = (gradient * units).sum(dim=2, keepdim=True)
            gradient.addcmul_(units, along, value=-1.0).mul_(inverses)
        return total


def _relax(similarities: Tensor, gamma: float, relaxed: Tensor) -> None:
    """Relaxed similarities (c, b) of similarities (c, K, b), in whose place their derivative is written."""
    if similarities.shape[1] == 1:
        relaxed.copy_(similarities[:, 0])
        similarities.fill_(1.0)
        return
    shares = (similarities - similarities.amax(dim=1, keepdim=True)).mul_(math.log2(math.e) / gamma).exp2_()
    shares.div_(shares.sum(dim=1, keepdim=True))
    torch.sum(shares * similarities, dim=1, out=relaxed)
    similarities.sub_(relaxed[:, None]).div_(gamma).add_(1.0).mul_(shares)


def _measure_distances(units: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (c, K, K) between the unit centres (c, K, D) of a class, and their derivative by inner products."""
    # Per class, never (C K, C K): at 50,000 classes of 10 centres that would be a terabyte.
    squared = (units @ units.mT).mul_(-2.0).add_(2.0)
    apart = squared > 16.0 * torch.finfo(squared.dtype).eps
    distances = torch.where(apart, squared, 0.0).sqrt_()
    return distances, torch.where(apart, -1.0 / distances, 0.0)
