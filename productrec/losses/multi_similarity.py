"""Multi-Similarity loss: pulls and pushes the pairs of a batch that are hard relative to one another."""

import torch
from torch import Tensor, nn

from productrec.errors import RecipeError
from productrec.losses.batch import check_batch, choose_computing_dtype


def compute_multi_similarity_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float = 0.1,
) -> Tensor:
    r"""Multi-Similarity loss with its own pair mining.

    Source: Wang et al., *Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning*, CVPR 2019.
    With :math:`S_{ij} = e_i \cdot e_j`, anchor :math:`i` has the positives :math:`j \ne i` of its own class and the
    negatives of every other class. Mining, equations (11) and (12), keeps

    .. math::
        N_i = \{j : S_{ij} > \min_{k \text{ positive}} S_{ik} - \epsilon\}, \qquad
        P_i = \{j : S_{ij} < \max_{k \text{ negative}} S_{ik} + \epsilon\},

    and the weighting, equation (15), is

    .. math::
        L = \frac{1}{B} \sum_{i=1}^{B} \Big[
            \frac{1}{\alpha} \log\big(1 + \sum_{j \in P_i} e^{-\alpha (S_{ij} - base)}\big)
          + \frac{1}{\beta} \log\big(1 + \sum_{j \in N_i} e^{\beta (S_{ij} - base)}\big) \Big].

    What is decided here, where sources differ or are silent:

    - The mean is over all B anchors, those that keep no pair included, as in the paper and the authors' code. A batch
      with few hard pairs therefore has a small loss.
    - Mining compares positives with negatives. An anchor without positives keeps no negatives, and the reverse: it
      contributes zero and no gradient, yet stays in the graph and in B.
    - An image is left out of its own positives by its row. The authors' code drops positives with similarity above
      1 - 1e-5 instead, which loses true duplicates.
    - ``beta`` is 50 in the paper and 40 in the authors' configuration. ``base`` (the paper's lambda) is 1 in the
      paper's experiments and 0.5 in the authors' code. The defaults are the paper's beta and the code's base.

    Numerics: computed in float32 whatever autocast says (float64 stays float64), through log-sum-exp: value and
    gradient are finite for all similarities in [-1, 1]. A NaN in a batch of two or more gives a NaN loss, never a quiet
    zero. The similarity matrix is a float32 product: where TF32 products are allowed its errors of about 1e-3 are
    multiplied by ``beta``. Memory is a few (B, B) matrices.

    Args:
        embeddings: (B, D), unit rows.
        labels: (B,) integer class positions; only equality matters.
        alpha: weight exponent of positives, above 0.
        beta: weight exponent of negatives, above 0.
        base: similarity about which pairs are weighted.
        epsilon: mining margin, in similarity.

    Returns:
        Scalar, at least 0, float32 or float64.

    Raises:
        TrainingError: shapes do not fit, or labels are not integers.
        RecipeError: ``alpha`` or ``beta`` is not above 0.
    """
    check_batch("Multi-Similarity loss", embeddings, labels)
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not value > 0:
            raise RecipeError(f"Multi-Similarity loss: {name} must be above 0; got {value}. The paper has 2 and 50.")
    with torch.autocast(embeddings.device.type, enabled=False):
        rows = embeddings.to(choose_computing_dtype(embeddings))
        similarities = rows @ rows.T
        kept_positives, kept_negatives = _mine_pairs(similarities.detach(), labels, epsilon)
        positive_terms = _compute_log_one_plus_sum(-alpha * (similarities - base), kept_positives) / alpha
        negative_terms = _compute_log_one_plus_sum(beta * (similarities - base), kept_negatives) / beta
        return (positive_terms + negative_terms).mean()


class MultiSimilarityLoss(nn.Module):
    """:func:`compute_multi_similarity_loss` with its settings held; no parameters."""

    def __init__(self, *, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.epsilon = epsilon

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of embeddings (B, D) and labels (B,)."""
        return compute_multi_similarity_loss(
            embeddings, labels, alpha=self.alpha, beta=self.beta, base=self.base, epsilon=self.epsilon
        )

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"alpha={self.alpha}, beta={self.beta}, base={self.base}, epsilon={self.epsilon}"


def _mine_pairs(similarities: Tensor, labels: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Masks (B, B) of the kept positives and kept negatives, equations (11) and (12)."""
    same = labels[:, None] == labels[None, :]
    negatives = ~same
    positives = same.fill_diagonal_(False)
    min_positive = similarities.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
    max_negative = similarities.masked_fill(~negatives, -torch.inf).amax(dim=1, keepdim=True)
    # Written as "not dropped": a NaN compares as false, so it is kept and spoils the loss where everyone can see it.
    kept_negatives = negatives & ~(similarities <= min_positive - epsilon)
    kept_positives = positives & ~(similarities >= max_negative + epsilon)
    return kept_positives, kept_negatives


def _compute_log_one_plus_sum(exponents: Tensor, kept: Tensor) -> Tensor:
    """Log of 1 plus the sum of exp over the kept entries of each row, (B,)."""
    # The diagonal is never a pair; its place holds the formula's 1 = exp(0). So no row is empty, which is what keeps
    # the gradient of log-sum-exp from becoming NaN where nothing was kept.
    return exponents.masked_fill(~kept, -torch.inf).fill_diagonal_(0.0).logsumexp(dim=1)
