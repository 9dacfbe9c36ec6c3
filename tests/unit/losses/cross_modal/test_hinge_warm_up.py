"""From the sum of hinges to the max: shares by steps, and what a step that is not taken leaves."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.cross_modal.warm_up import WarmUp
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.sum_of_hinges import SumOfHinges

SUM, MAX = CrossModalLoss(SumOfHinges()), CrossModalLoss(MaxOfHinges())
GROUPS = torch.arange(6)
BATCH = CrossModalBatch(
    *functional.normalize(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)), dim=2), GROUPS, GROUPS
)
SUM_VALUE, MAX_VALUE = SUM.compare(BATCH).item(), MAX.compare(BATCH).item()


def take_gradient(compare: Callable[[CrossModalBatch], torch.Tensor]) -> torch.Tensor:
    """The gradient of a loss by the images of `BATCH`."""
    images = BATCH.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(compare(CrossModalBatch(images, BATCH.titles, GROUPS, GROUPS)), images)
    return gradient


@pytest.mark.parametrize(("how", "shares"), [("mix", [0, 0.25, 0.5, 0.75, 1, 1]), ("switch", [0, 0, 0, 0, 1, 1])])
def test_the_max_comes_in_by_steps(how: Literal["mix", "switch"], shares: list[float]) -> None:
    warm_up = WarmUp(SUM, 4, how)
    of_sum, of_max = (take_gradient(loss.compare) for loss in (SUM, MAX))
    for share in shares:
        assert warm_up.share == share
        gradient = take_gradient(lambda batch: warm_up.compare(batch, MAX))
        expected = share * of_max + (1 - share) * of_sum * (MAX_VALUE / SUM_VALUE)
        torch.testing.assert_close(gradient, expected)


def test_the_sum_is_brought_to_the_value_of_the_max() -> None:
    assert SUM_VALUE > 1.5 * MAX_VALUE
    assert WarmUp(SUM, 4).compare(BATCH, MAX).item() == pytest.approx(MAX_VALUE)


def test_a_batch_that_violates_nothing_gives_zero_and_no_gradient() -> None:
    rows = torch.eye(6)
    apart = CrossModalBatch(rows.clone().requires_grad_(), rows, GROUPS, GROUPS)
    value = WarmUp(SUM, 4).compare(apart, MAX)
    (gradient,) = torch.autograd.grad(value, apart.images)
    assert value.item() == 0
    assert not gradient.any()


def test_evaluation_is_by_the_max_alone_and_does_not_count() -> None:
    warm_up = WarmUp(SUM, 4).eval()
    assert warm_up.compare(BATCH, MAX).item() == MAX_VALUE
    assert warm_up.share == 0
    warm_up.train()
    warm_up.compare(BATCH, MAX)
    assert warm_up.share == 0.25


def test_a_step_that_is_not_taken_does_not_count() -> None:
    warm_up = WarmUp(SUM, 4)
    warm_up.compare(BATCH, MAX)
    warm_up.compare(BATCH, MAX)
    warm_up.forget_last()
    assert warm_up.share == 0.25
    warm_up.forget_last()
    assert warm_up.share == 0.25


def test_the_count_is_part_of_the_state_dict() -> None:
    first, second = WarmUp(SUM, 4), WarmUp(SUM, 4)
    for _ in range(3):
        first.compare(BATCH, MAX)
    second.load_state_dict(first.state_dict())
    assert second.share == 0.75
    second.forget_last()
    assert second.share == 0.75


def test_settings_that_say_nothing_are_refused() -> None:
    for steps, how in ((0, "mix"), (-1, "mix"), (3, "jump")):
        with pytest.raises(RecipeError, match="warm-up: steps must be"):
            WarmUp(SUM, steps, how)  # type: ignore[arg-type]
