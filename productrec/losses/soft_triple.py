"""SoftTriple loss: several learned centres a class, so that one SKU may have several looks."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.batch import check_batch, check_label_range, choose_computing_dtype


def compute_soft_triple_loss(
    embeddings: Tensor,
    labels: Tensor,
    centres: Tensor,
    *,
    scale: float = 20.0,
    gamma: float = 0.1,
    margin: float = 0.01,
    tau: float = 0.2,
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
    instead, which gives coincident centres a distance of 3e-3. K = 1 has no pairs and no regulariser. Memory: the
    similarities (B, C, K), and (C, K, K) for the regulariser.

    Args:
        embeddings: (B, D), unit rows.
        labels: (B,) integer class positions, 0 to C - 1 (checked on the CPU only; on a GPU the kernel asserts).
        centres: (C, K, D), of any length above 0; normalised here.
        scale: the paper's lambda, sharpness of the cross-entropy, above 0.
        gamma: smoothing over the centres of a class, in similarity, above 0; small is close to the nearest centre.
        margin: the paper's delta, in similarity.
        tau: weight of the regulariser, at least 0; 0 skips it.

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
        dtype = choose_computing_dtype(embeddings, centres)
        unit_centres = functional.normalize(centres.to(dtype), dim=2)
        class_count, centres_per_class, _ = unit_centres.shape
        similarities = embeddings.to(dtype) @ unit_centres.flatten(0, 1).T
        similarities = similarities.reshape(-1, class_count, centres_per_class)
        relaxed = (torch.softmax(similarities / gamma, dim=2) * similarities).sum(dim=2)
        is_true_class = labels[:, None] == torch.arange(class_count, device=labels.device)
        logits = scale * torch.where(is_true_class, relaxed - margin, relaxed)
        # The impossible ignore_index: by default a stray label of -100 would be left out of the mean in silence.
        loss = functional.cross_entropy(logits, labels.long(), ignore_index=-(2**62))
        if tau > 0 and centres_per_class > 1:
            loss = loss + tau * _compute_centre_regulariser(unit_centres)
        return loss


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

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return (
            f"centres={tuple(self.centres.shape)}, scale={self.scale}, gamma={self.gamma}, "
            f"margin={self.margin}, tau={self.tau}"
        )


def _compute_centre_regulariser(unit_centres: Tensor) -> Tensor:
    """Sum over classes and unordered centre pairs of their distance, over C K (K - 1); centres (C, K, D), K > 1."""
    class_count, centres_per_class, _ = unit_centres.shape
    # Per class, never (C K, C K): at 50,000 classes of 10 centres that would be a terabyte.
    products = unit_centres @ unit_centres.mT
    first, second = torch.triu_indices(centres_per_class, centres_per_class, offset=1, device=products.device)
    squared = 2.0 - 2.0 * products[:, first, second]
    apart = squared > 16.0 * torch.finfo(squared.dtype).eps
    # The inner where keeps the root away from 0, or its infinite derivative times the outer zero would be NaN.
    distances = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    return distances.sum() / (class_count * centres_per_class * (centres_per_class - 1))
