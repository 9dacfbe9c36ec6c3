import math

import pytest
import torch
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.classification.cross_entropy import compute_classification_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_equal_logits_cost_log_of_the_class_count(smoothing: float) -> None:
    loss = compute_classification_loss(torch.zeros(3, 7), torch.tensor([0, 3, 6]), label_smoothing=smoothing)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("rows", [1, 5])
def test_one_class_costs_nothing(rows: int) -> None:
    logits = torch.randn(rows, 1, requires_grad=True)
    loss = compute_classification_loss(logits, torch.zeros(rows, dtype=torch.int64))
    torch.autograd.backward(loss)
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(rows, 1))


def test_extreme_logits_are_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [3e38, -3e38, 0.0]], requires_grad=True)
    loss = compute_classification_loss(logits[:1], torch.tensor([1]), label_smoothing=0.1)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(0.9 * 2e4 + 0.1 * (2e4 + 1e4) / 3, rel=1e-5)
    assert compute_classification_loss(logits, torch.tensor([0, 0])).item() == 0.0
    assert torch.tensor(1e4).exp().isinf()  # what a softmax as it is written would do


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits = (8.0 * torch.randn(6, 50, generator=torch.Generator().manual_seed(0))).to(dtype)
    labels = torch.arange(6)
    loss = compute_classification_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, functional.cross_entropy(logits.float(), labels))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compute_classification_loss(logits, labels), loss)
    unguarded = functional.cross_entropy(logits, labels)
    assert unguarded.dtype == dtype
    assert unguarded.float() != loss


def test_gradient_check() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda z: compute_classification_loss(z, labels, label_smoothing=0.1), (logits,))


def test_no_label_is_left_out_in_silence() -> None:
    logits = torch.zeros(2, 3)
    labels = torch.tensor([0, -100])
    with pytest.raises(TrainingError, match="from 0 to 2; got -100 to 0"):
        compute_classification_loss(logits, labels)
    # What torch does with it by default: the mean of one row, and no word about the other.
    assert functional.cross_entropy(logits, labels).item() == pytest.approx(math.log(3))


def test_unsound_inputs_are_refused() -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(TrainingError, match="classification loss: labels must be class positions from 0 to 2"):
        compute_classification_loss(logits, torch.tensor([0, 3]))
    with pytest.raises(TrainingError, match="one class position per row"):
        compute_classification_loss(logits, torch.tensor([0]))
    with pytest.raises(TrainingError, match="integer"):
        compute_classification_loss(logits, torch.tensor([0.0, 1.0]))
    for smoothing in (-0.1, 1.1, math.nan):
        with pytest.raises(RecipeError, match="label_smoothing must be from 0 to 1"):
            compute_classification_loss(logits, torch.tensor([0, 1]), label_smoothing=smoothing)


def test_labels_of_other_integer_types() -> None:
    logits = torch.randn(3, 4)
    labels = torch.tensor([0, 1, 3], dtype=torch.int32)
    assert torch.equal(compute_classification_loss(logits, labels), functional.cross_entropy(logits, labels.long()))
