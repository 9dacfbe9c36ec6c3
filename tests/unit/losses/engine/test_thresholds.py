"""A number an anchor beside its pairs: its derivative, in blocks and with references, and what it is refused for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import TrainingError
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.formula import differentiate as differentiate_formula
from productrec.losses.engine.pair_weighting import compute_pair_loss, compute_pair_weights
from productrec.losses.engine.weighing import ThresholdWeighting, Weighed
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.margin import Margin


class Bounded(ThresholdWeighting):
    """By its formula alone: positives above an anchor's threshold, negatives below it, softly."""

    def compute(self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> Tensor:
        marks = 0.0 if thresholds is None else thresholds[:, None]
        return functional.softplus(marks - positives).sum(dim=1) + functional.softplus(negatives - marks).sum(dim=1)


LOSSES = {"formula": Bounded(), "by hand": Margin(alpha=0.3, nu=0.2)}
EACH = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def draw(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(rows, 6, generator=generator, dtype=torch.float64), dim=1)
    labels = (torch.rand(rows, generator=generator) ** 2 * 5).long()
    return embeddings, labels, 1 + 0.3 * torch.rand(rows, generator=generator, dtype=torch.float64)


def differentiate(loss_of: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    value = loss_of(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


@EACH
@pytest.mark.parametrize("block_rows", [None, 1, 4])
def test_gradients_are_those_of_the_value(loss: ThresholdWeighting, block_rows: int | None) -> None:
    embeddings, labels, thresholds = draw(11)

    def among(rows: Tensor, marks: Tensor) -> Tensor:
        return compute_pair_loss(Comparison(rows, labels, thresholds=marks), loss, block_rows=block_rows)

    assert torch.autograd.gradcheck(among, (embeddings.requires_grad_(), thresholds.requires_grad_()))
    references, reference_labels, _ = draw(9, seed=1)

    def against(rows: Tensor, others: Tensor, marks: Tensor) -> Tensor:
        comparison = Comparison(rows, labels, others, reference_labels, thresholds=marks)
        return compute_pair_loss(comparison, loss, block_rows=block_rows)

    assert torch.autograd.gradcheck(against, (embeddings, references.requires_grad_(), thresholds))


@EACH
def test_blocks_and_tables_give_the_same(loss: ThresholdWeighting) -> None:
    embeddings, labels, thresholds = draw(300)
    whole, parts = (
        differentiate(
            lambda rows, marks, size=size: compute_pair_loss(
                Comparison(rows, labels, thresholds=marks), loss, block_rows=size
            ),
            embeddings,
            thresholds,
        )
        for size in (None, 37)
    )
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    weights = compute_pair_weights(Comparison(embeddings, labels, thresholds=thresholds), loss)
    torch.testing.assert_close(weights @ embeddings + weights.T @ embeddings, whole[1])


def test_the_derivative_written_by_hand_is_that_of_the_formula() -> None:
    loss = Margin(alpha=0.3, nu=0.2)
    generator = torch.Generator().manual_seed(0)
    positives, negatives = (2 * torch.rand(2, 8, 5, generator=generator, dtype=torch.float64) - 1).unbind()
    positives[:3, 2:], negatives[2:5, 1:] = torch.inf, -torch.inf
    thresholds = torch.linspace(0.1, 1.9, 8, dtype=torch.float64)  # the first below alpha
    formula = differentiate_formula(loss.compute, positives.clone(), negatives.clone(), thresholds)
    weighed = loss.weigh(positives.clone(), negatives.clone(), thresholds)
    for mine, expected in zip(weighed, formula, strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None:
            torch.testing.assert_close(mine.double(), expected.double())


@EACH
def test_a_second_derivative_by_thresholds_is_refused(loss: ThresholdWeighting) -> None:
    embeddings, labels, thresholds = draw(11)
    value = compute_pair_loss(Comparison(embeddings, labels, thresholds=thresholds.requires_grad_()), loss)
    (slope,) = torch.autograd.grad(value, thresholds, create_graph=True)
    assert slope.abs().sum() > 0
    with pytest.raises(RuntimeError, match="no second derivative"):
        slope.sum().backward()


def test_half_precision_thresholds_are_computed_in_float32() -> None:
    embeddings, labels, thresholds = draw(11)
    half = thresholds.half().requires_grad_()
    value = compute_pair_loss(Comparison(embeddings.float(), labels, thresholds=half), Bounded())
    value.backward()
    expected, _, slope = differentiate(
        lambda rows, marks: compute_pair_loss(Comparison(rows, labels, thresholds=marks), Bounded()),
        embeddings.float(),
        half.detach().float(),
    )
    torch.testing.assert_close(value.detach(), expected)
    assert half.grad is not None
    assert torch.equal(half.grad, slope.half())


def test_thresholds_that_do_not_fit_are_refused() -> None:
    embeddings, labels, thresholds = draw(11)
    with pytest.raises(TrainingError, match=r"thresholds must be one number per embedding, shape \(11,\); got \(1,\)"):
        Comparison(embeddings, labels, thresholds=thresholds[:1])
    with pytest.raises(TrainingError, match="Circle: takes no thresholds"):
        compute_pair_loss(Comparison(embeddings, labels, thresholds=thresholds), Circle())
    with pytest.raises(TrainingError, match="must have no thresholds"):
        Comparison(embeddings, labels, embeddings, labels, thresholds=thresholds).swap()


def test_a_loss_that_says_nothing_of_thresholds_that_learn_is_refused() -> None:
    class Silent(Bounded):
        def weigh(self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> Weighed:
            return super().weigh(positives, negatives, thresholds)._replace(thresholds=None)

    embeddings, labels, thresholds = draw(11)
    fixed = Comparison(embeddings.requires_grad_(), labels, thresholds=thresholds)
    compute_pair_loss(fixed, Silent()).backward()
    with pytest.raises(ValueError, match="Silent gave no derivative by thresholds"):
        compute_pair_loss(Comparison(embeddings, labels, thresholds=thresholds.requires_grad_()), Silent())
