"""Classification loss: cross-entropy of the head's logits."""

import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.batch import check_batch, check_label_range, choose_computing_dtype


def compute_classification_loss(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    r"""Mean cross-entropy, with optional label smoothing (Szegedy et al., CVPR 2016, section 7).

    .. math::
        L = -\frac{1}{B} \sum_i \sum_c t_{ic} \log \mathrm{softmax}(z_i)_c, \qquad
        t_{ic} = (1 - s) [c = y_i] + s / C.

    Numerics: computed in float32 whatever autocast says (float64 stays float64); finite for finite logits.

    No label is special: torch's habit of leaving label -100 out of the mean is switched off, so an unlabelled image
    that strays into training is an error and not a smaller batch.

    Args:
        logits: (B, C), before softmax.
        labels: (B,) integer class positions, 0 to C - 1. The range is checked on the CPU only, because on a GPU the
            host would have to wait for the labels in every step; there the kernel's own assertion stops the run.
        label_smoothing: s, the share of the target spread evenly over all classes, from 0 to 1.

    Returns:
        Scalar, at least 0, float32 or float64.

    Raises:
        TrainingError: shapes do not fit, labels are not integers or out of range.
        RecipeError: ``label_smoothing`` is out of range.
    """
    where = "classification loss"
    check_batch(where, logits, labels)
    check_label_range(where, labels, logits.shape[1])
    if not 0 <= label_smoothing <= 1:
        raise RecipeError(f"{where}: label_smoothing must be from 0 to 1; got {label_smoothing}. 0.1 is common.")
    with torch.autocast(logits.device.type, enabled=False):
        return functional.cross_entropy(
            logits.to(choose_computing_dtype(logits)),
            labels.long(),
            ignore_index=-(2**62),  # no label, see above
            label_smoothing=label_smoothing,
        )
