"""SoftTriple loss: several learned centres a class, so that one SKU may have several looks.

It walks over the classes in blocks and makes the gradient on the way, so that beyond the similarities (rows by centres)
and the gradient of the centres nothing large is held: 100,000 classes of 10 centres fit beside a backbone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from productrec.errors import RecipeError, TrainingError
from productrec.losses.centres.centre_walk import CentreWalk, Shape
from productrec.losses.centres.merging import Prototypes, merge_centres
from productrec.losses.engine.batch import check_batch, check_label_range, choose_computing_dtype
from productrec.losses.engine.diagnostics import PairDiagnostics, PairTally
from productrec.losses.engine.gradient import hand_over_gradients, keep_gradients
from productrec.losses.engine.module import MetricModule
from productrec.losses.proxy.soft_triple import SoftTriple

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
    sizes: Tensor | None = None,
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
    made in the forward pass; a second derivative is refused. Memory: the similarities (B, C, K) and the gradient.

    Args:
        embeddings: (B, D), unit rows.
        labels: (B,) integer class positions, 0 to C - 1 (checked on the CPU only; on a GPU the kernel asserts).
        centres: (C, K, D), of any length above 0; normalised here.
        scale: the paper's lambda, sharpness of the cross-entropy, above 0.
        gamma: smoothing over the centres of a class, in similarity, above 0; small is close to the nearest centre.
        margin: the paper's delta, in similarity.
        tau: weight of the regulariser, at least 0; 0 skips it.
        sizes: (C, K), how many coinciding centres each centre stands for, as `merge_centres` says: value and gradient
            are those of all of them. 0 for one that was merged into another; at least one of a class must be above it.
            None where each stands for itself.
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
    if sizes is not None and sizes.shape != centres.shape[:2]:
        raise TrainingError(
            f"{where}: sizes must be one a centre, {tuple(centres.shape[:2])}; got {tuple(sizes.shape)}."
        )
    if not (scale > 0 and gamma > 0 and tau >= 0):
        raise RecipeError(
            f"{where}: scale and gamma must be above 0 and tau at least 0; "
            f"got scale={scale}, gamma={gamma}, tau={tau}. The paper has 20, 0.1 and 0.2."
        )
    with torch.autocast(embeddings.device.type, enabled=False):
        shape = Shape(scale, gamma, margin, tau, block_classes)
        value: Tensor = _SoftTripleFunction.apply(embeddings, centres, labels, sizes, shape)
        return value


class SoftTripleModule(MetricModule):
    """:func:`compute_soft_triple_loss` with its settings, its learned ``centres`` (C, K, D) and their ``sizes`` (C, K).

    ``sizes`` is a buffer, None until centres are merged.

    The centres start uniform in [-1/sqrt(D), 1/sqrt(D)] per coordinate, which is Kaiming-uniform with a = sqrt(5) over
    the D inputs. The authors apply the same rule to a (D, C K) matrix, which makes the bound 1/sqrt(C K). Directions
    are distributed alike, and only directions enter the loss; but lengths set how far one optimiser step turns a
    centre, and here they do not shrink as classes are added.

    Args:
        loss: its settings.
        embedding_dim: D.
        class_count: C.
    """

    sizes: Tensor | None
    needs_positives = False  # a centre stands for a class

    def __init__(self, loss: SoftTriple, embedding_dim: int, class_count: int) -> None:
        super().__init__()
        if min(embedding_dim, class_count) < 1:
            raise RecipeError(
                f"soft_triple: embedding_dim and class_count must be at least 1; got {embedding_dim} and {class_count}."
            )
        self.scale, self.gamma, self.margin, self.tau = loss.scale, loss.gamma, loss.margin, loss.tau
        self.centres = nn.Parameter(torch.empty(class_count, loss.centres_per_class, embedding_dim))
        self.register_buffer("sizes", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centres anew from torch's global generator."""
        bound = self.centres.shape[2] ** -0.5
        nn.init.uniform_(self.centres, -bound, bound)

    def forward(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """Scalar loss of embeddings (B, D) and labels (B,)."""
        return compute_soft_triple_loss(
            embeddings,
            labels,
            self.centres,
            scale=self.scale,
            gamma=self.gamma,
            margin=self.margin,
            tau=self.tau,
            sizes=self.sizes,
        )

    def iterate_centres(self) -> Iterator[nn.Parameter]:
        """See `MetricModule.iterate_centres`."""
        return iter((self.centres,))

    def get_centres(self) -> dict[str, Tensor]:
        """See `MetricModule.get_centres`."""
        return dict(self.state_dict())

    def get_prototypes(self) -> Prototypes:
        """The centres as they are now, of unit norm, and how many each stands for."""
        return merge_centres(self.centres, 0.0, self.sizes)

    @torch.no_grad()
    def merge(self, distance: float) -> None:
        """Make one of the centres of a class that are joined by steps of at most ``distance``, see `merge_centres`.

        The merged centre takes the place of the first, and its length, so that what an optimiser keeps stays of use;
        the others stay where they were, with size 0: they have no part in the loss any more.
        """
        merged = merge_centres(self.centres, distance, self.sizes)
        before = torch.ones_like(merged.sizes) if self.sizes is None else self.sizes
        lengths = self.centres.norm(dim=2, keepdim=True)
        self.centres.copy_(torch.where((merged.sizes > before)[:, :, None], merged.centres * lengths, self.centres))
        self.sizes = merged.sizes

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """Look at the pairs of embeddings (B, D) and centres, whose rows are C K, class by class."""
        check_batch("SoftTriple loss", embeddings, labels)
        class_count, per_class, _ = self.centres.shape
        check_label_range("SoftTriple loss", labels, class_count)
        tally = PairTally()
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            dtype = choose_computing_dtype(embeddings, self.centres)
            rows = embeddings.detach().to(dtype)
            shape = Shape(self.scale, self.gamma, self.margin, self.tau)
            walk = CentreWalk(self.centres.detach().to(dtype).contiguous(), shape, self.sizes)
            absent = torch.zeros_like(self.centres[..., 0], dtype=torch.bool) if self.sizes is None else self.sizes == 0
            most = max(1, _HELD_SIMILARITIES // (4 * class_count * per_class))
            for start in range(0, len(rows), most):
                known = labels[start : start + most].long()
                similarities, weights = walk.weigh(rows[start : start + most], known)
                columns = known[:, None] * per_class + torch.arange(per_class, device=known.device)
                near = similarities.gather(1, columns).masked_fill_(absent[known], torch.inf)
                far = similarities.scatter_(1, columns, -torch.inf).masked_fill_(absent.flatten(), -torch.inf)
                tally.look(start, near, far, columns)
                tally.weigh(weights)
        return tally.finish()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for sizes where the state has some: a merged loss and a fresh one load each other's."""
        has_sizes = f"{prefix}sizes" in state_dict
        self.sizes = self.centres.detach().new_empty(self.centres.shape[:2]) if has_sizes else None
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return (
            f"centres={tuple(self.centres.shape)}, scale={self.scale}, gamma={self.gamma}, "
            f"margin={self.margin}, tau={self.tau}"
        )


class _SoftTripleFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, centres: Tensor, labels: Tensor, sizes: Tensor | None, shape: Shape
    ) -> Tensor:
        dtype = choose_computing_dtype(embeddings, centres)
        rows = embeddings.detach().to(dtype).contiguous()
        walk = CentreWalk(centres.detach().to(dtype).contiguous(), shape, sizes)
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
        keep_gradients(ctx, total, (row_gradient, gradient), (embeddings, centres))
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_over_gradients(ctx, outer), None, None, None)
