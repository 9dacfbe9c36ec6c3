"""The family between the sum and the max of hinges: its limits are the two, whatever the batch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.formula import differentiate
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import PairWeighting
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.norm_of_hinges import NormOfHinges
from productrec.losses.pair.sum_of_hinges import SumOfHinges

TEMPERATURES = (1.0, 0.7, 0.5, 0.25, 0.1, 0.03, 0.01)
SEEDS = pytest.mark.parametrize("seed", range(5))


def draw(seed: int, images: int = 12, titles: int = 15) -> Comparison:
    generator = torch.Generator().manual_seed(seed)
    rows = functional.normalize(torch.randn(images + titles, 5, generator=generator, dtype=torch.float64), dim=1)
    groups = torch.randint(4, (images + titles,), generator=generator)
    return Comparison(rows[:images], groups[:images], rows[images:], groups[images:])


def compute(loss: PairWeighting, batch: Comparison) -> tuple[Tensor, Tensor]:
    leaf = batch.embeddings.detach().clone().requires_grad_()
    value = compute_pair_loss(Comparison(leaf, batch.labels, batch.references, batch.reference_labels), loss)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


@SEEDS
def test_at_temperature_1_it_is_the_sum(seed: int) -> None:
    batch = draw(seed)
    for mine, expected in zip(compute(NormOfHinges(temperature=1), batch), compute(SumOfHinges(), batch), strict=True):
        torch.testing.assert_close(mine, expected)


@SEEDS
def test_towards_0_it_is_the_max(seed: int) -> None:
    batch = draw(seed)
    value, gradient = compute(NormOfHinges(temperature=1e-7), batch)
    expected, slope = compute(MaxOfHinges(), batch)
    assert expected > 0
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-9)


@SEEDS
def test_in_between_it_falls_from_the_sum_to_the_max_and_is_within_a_factor_of_it(seed: int) -> None:
    batch = draw(seed)
    hardest = compute(MaxOfHinges(), batch)[0]
    values = [compute(NormOfHinges(temperature=temperature), batch)[0] for temperature in TEMPERATURES]
    assert values == sorted(values, reverse=True)
    for temperature, value in zip(TEMPERATURES, values, strict=True):
        assert hardest <= value <= 15**temperature * hardest  # fifteen titles at most are negatives


def test_equally_hard_negatives_share_one_weight_where_the_max_picks_one() -> None:
    positives, negatives = torch.tensor([[0.5]]), torch.tensor([[0.6, 0.6, 0.6, -0.9]])
    weighed = NormOfHinges(temperature=0.01).weigh(positives, negatives)
    torch.testing.assert_close(weighed.losses, torch.tensor([0.3 * 3**0.01]))
    torch.testing.assert_close(weighed.negatives, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0]]) * 3**0.01)


def test_the_derivative_by_hand_is_that_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    positives, negatives = (2 * torch.rand(2, 8, 5, generator=generator, dtype=torch.float64) - 1).unbind()
    positives[:3, 2:], negatives[2:5, 1:], negatives[6] = torch.inf, -torch.inf, -torch.inf
    for temperature in TEMPERATURES:
        loss = NormOfHinges(temperature=temperature)
        formula = differentiate(loss.compute, positives.clone(), negatives.clone())
        weighed = loss.weigh(positives.clone(), negatives.clone())
        for mine, expected in zip(weighed[:3], formula[:3], strict=True):
            torch.testing.assert_close(mine, expected)


def test_a_temperature_outside_of_its_range_is_refused() -> None:
    for temperature in (0.0, -1.0, 1.1):
        with pytest.raises(RecipeError, match="norm_of_hinges"):
            NormOfHinges(temperature=temperature)
