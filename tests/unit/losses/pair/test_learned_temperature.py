"""NT-Xent and the pairwise sigmoid with what they learn, and without."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.losses.engine.affine_module import AffinePairModule
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.pair_logistic import PairLogistic


def draw(seed: int = 0, rows: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64), dim=1)
    return embeddings, torch.arange(rows) // 3


def test_a_learned_temperature_begins_as_the_fixed_one_and_has_its_derivative() -> None:
    rows, labels = draw()
    module = NTXent(temperature=0.2, learn_temperature=True).build(None, 1).double()
    assert isinstance(module, AffinePairModule)
    assert [name for name, _ in module.named_parameters()] == ["log_scale"]
    module(rows, labels).backward()
    step = 1e-6
    changed = [
        compute_pair_loss(Comparison(rows, labels), NTXent(temperature=1 / math.exp(math.log(5.0) + by)))
        for by in (-step, 0.0, step)
    ]
    torch.testing.assert_close(module(rows, labels).detach(), changed[1], rtol=1e-6, atol=0)  # 5 in float32
    assert module.log_scale.grad is not None
    assert module.log_scale.grad.item() == pytest.approx(float(changed[2] - changed[0]) / (2 * step), rel=1e-5)


def test_a_learned_temperature_stays_at_least_a_hundredth() -> None:
    rows, labels = draw()
    module = NTXent(learn_temperature=True).build(None, 1)
    assert isinstance(module, AffinePairModule)
    with torch.no_grad():
        module.log_scale.fill_(9.0)
    module.eval()
    module(rows, labels)
    assert module.log_scale == 9.0  # evaluation moves nothing
    module.train()
    module(rows, labels).backward()
    assert module.log_scale.item() == pytest.approx(math.log(100.0))
    assert module.log_scale.grad is not None
    assert module.log_scale.grad.isfinite()


def test_references_may_be_of_another_modality() -> None:
    (rows, labels), (others, classes) = draw(0), draw(1, 12)
    module = NTXent(temperature=0.2, learn_temperature=True).build(None, 1)
    batch = Comparison(rows, labels, others, classes)
    expected = compute_pair_loss(batch, NTXent(temperature=0.2), both_ways=True)
    torch.testing.assert_close(module.compare(batch, both_ways=True).detach(), expected, rtol=1e-6, atol=0)


def test_a_diagnosis_tells_similarities_and_not_logits() -> None:
    rows, labels = draw()
    fixed, learned = (NTXent(temperature=0.2, learn_temperature=flag).build(None, 1) for flag in (False, True))
    for mine, expected in zip(learned.diagnose(rows, labels)[:3], fixed.diagnose(rows, labels)[:3], strict=True):
        assert mine == pytest.approx(expected, rel=1e-5)


def test_a_pairwise_sigmoid_learns_by_option() -> None:
    rows, labels = draw()
    fixed, learned = (PairLogistic(learned=flag).build(None, 1) for flag in (False, True))
    assert not list(fixed.parameters())
    assert {name for name, _ in learned.named_parameters()} == {"log_scale", "bias"}
    torch.testing.assert_close(fixed(rows, labels), learned(rows, labels).detach(), rtol=1e-6, atol=0)
