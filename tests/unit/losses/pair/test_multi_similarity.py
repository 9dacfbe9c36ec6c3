import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.pair.multi_similarity import MultiSimilarity


def compute_multi_similarity_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float = 0.1,
) -> Tensor:
    mining = MultiSimilarityMining(epsilon=epsilon)
    return compute_pair_loss(
        Comparison(embeddings, labels), MultiSimilarity(alpha=alpha, beta=beta, base=base), mining=mining
    )


def draw_batch(rows: int = 12, classes: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    embeddings = functional.normalize(torch.randn(rows, 6, generator=generator, dtype=torch.float64), dim=1)
    return embeddings.to(dtype), torch.arange(rows) % classes


def compute_gradient(loss_of: Callable[[Tensor], Tensor], embeddings: Tensor) -> tuple[Tensor, Tensor]:
    embeddings = embeddings.detach().clone().requires_grad_()
    loss = loss_of(embeddings)
    torch.autograd.backward(loss)
    assert embeddings.grad is not None
    return loss.detach(), embeddings.grad


def test_known_value_of_one_hard_triple() -> None:
    # Two of one class at similarity 0, the third equal to the first: S01 = 0, S02 = 1, S12 = 0.
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    loss = compute_multi_similarity_loss(embeddings, torch.tensor([0, 0, 1]))
    positive = math.log(1 + math.exp(-2 * (0 - 0.5))) / 2
    far_negative, near_negative = (math.log(1 + math.exp(50 * (s - 0.5))) / 50 for s in (0.0, 1.0))
    # Anchor 0 keeps both its pairs, anchor 1 both (equal similarities, within epsilon), anchor 2 has no positive.
    expected = ((positive + near_negative) + (positive + far_negative)) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("beta", "base", "expected"),
    [(50.0, 0.5, 1.1404466360352383), (40.0, 0.5, 1.1414098601552494), (50.0, 1.0, 1.4009618990406023)],
)
def test_equals_pytorch_metric_learning(beta: float, base: float, expected: float) -> None:
    # Values of its version 2.9.0, MultiSimilarityLoss after MultiSimilarityMiner(0.1), on this batch.
    waves = torch.sin(torch.arange(72, dtype=torch.float64).reshape(12, 6) ** 1.5 * 0.7)
    loss = compute_multi_similarity_loss(functional.normalize(waves, dim=1), torch.arange(12) % 4, beta=beta, base=base)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_separated_classes_keep_no_pair() -> None:
    embeddings = torch.eye(3).repeat_interleave(2, dim=0)
    loss, gradient = compute_gradient(
        lambda rows: compute_multi_similarity_loss(rows, torch.tensor([0, 0, 1, 1, 2, 2])), embeddings
    )
    assert loss.item() == 0.0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_mean_counts_anchors_that_keep_nothing() -> None:
    embeddings, labels = draw_batch()
    crowded = compute_multi_similarity_loss(embeddings, labels)
    # One more row, at similarity 0 to all the others and alone in its class: it keeps nothing itself.
    wide = functional.pad(embeddings, (0, 1))
    lonely = torch.eye(7)[6:]
    with_lonely = compute_multi_similarity_loss(torch.cat([wide, lonely]), torch.cat([labels, torch.tensor([9])]))
    negative_of_zero = math.log(1 + math.exp(-25.0)) / 50  # the most it can add to an anchor that keeps it
    assert with_lonely.item() == pytest.approx(crowded.item() * 12 / 13, abs=negative_of_zero + 1e-6)


@pytest.mark.parametrize(
    "labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one class, no negatives", "all alone, no positives"]
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("identical", [False, True])
def test_nothing_to_compare_is_exactly_zero_with_a_graph(labels: list[int], identical: bool) -> None:
    embeddings, _ = draw_batch(4)
    if identical:
        embeddings = embeddings[:1].expand(4, -1)
    with torch.autograd.detect_anomaly(check_nan=True):
        loss, gradient = compute_gradient(
            lambda rows: compute_multi_similarity_loss(rows, torch.tensor(labels)), embeddings
        )
    assert loss.item() == 0.0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_batch_of_one() -> None:
    loss, gradient = compute_gradient(
        lambda rows: compute_multi_similarity_loss(rows, torch.tensor([7])), torch.tensor([[0.6, 0.8]])
    )
    assert loss.item() == 0.0
    assert torch.equal(gradient, torch.zeros(1, 2))


def test_an_anchor_without_positives_keeps_no_negatives() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    _, gradient = compute_gradient(
        lambda rows: compute_multi_similarity_loss(rows, torch.tensor([0, 1, 2])), embeddings
    )
    assert torch.equal(gradient, torch.zeros(3, 2))


def test_a_duplicate_is_a_positive() -> None:
    # Excluding by similarity, as the authors' code does, would leave anchors 0 and 1 without a positive.
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.96, 0.28]])
    loss = compute_multi_similarity_loss(embeddings, torch.tensor([0, 0, 1]))
    positive = math.log(1 + math.exp(-2 * 0.5)) / 2
    negative = math.log(1 + math.exp(50 * 0.46)) / 50
    assert loss.item() == pytest.approx(2 / 3 * (positive + negative), rel=1e-5)


def test_identical_embeddings_of_two_classes_are_finite() -> None:
    embeddings = torch.tensor([[0.6, 0.8]]).repeat(6, 1)
    loss, gradient = compute_gradient(lambda rows: compute_multi_similarity_loss(rows, torch.arange(6) % 2), embeddings)
    expected = math.log(1 + 2 * math.exp(-1)) / 2 + math.log(1 + 3 * math.exp(25)) / 50
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("beta", [50.0, 1000.0])
def test_finite_at_similarity_one_and_minus_one(beta: float) -> None:
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    loss, gradient = compute_gradient(
        lambda rows: compute_multi_similarity_loss(rows, labels, alpha=beta, beta=beta), embeddings
    )
    assert loss.item() == pytest.approx(1.5 + 0.5, rel=1e-5)  # the hinges that both terms tend to
    assert gradient.isfinite().all()
    if beta == 1000.0:  # the equation as it is written overflows
        assert torch.tensor(beta * 0.5).exp().log1p().isinf()


@pytest.mark.parametrize("classes", [1, 4, 12])
def test_a_nan_is_not_hidden(classes: int) -> None:
    embeddings, labels = draw_batch(classes=classes)
    embeddings[3, 2] = math.nan
    with pytest.raises(TrainingError, match=r"in 1 of 12 rows \(3\)"):
        compute_multi_similarity_loss(embeddings, labels)
    # Broken on purpose: mining that says what to keep drops every pair of a NaN, and the loss would be a quiet zero.
    assert not (torch.tensor(math.nan) > 0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    embeddings, labels = draw_batch(dtype=dtype)
    loss, gradient = compute_gradient(lambda rows: compute_multi_similarity_loss(rows, labels), embeddings)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, compute_multi_similarity_loss(embeddings.float(), labels))
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


def test_autocast_changes_nothing() -> None:
    embeddings, labels = draw_batch()
    expected = compute_multi_similarity_loss(embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compute_multi_similarity_loss(embeddings, labels), expected)
        products = embeddings @ embeddings.T  # without the guard
    assert products.dtype == torch.bfloat16
    assert (products.float() - embeddings @ embeddings.T).abs().max() > 1e-4


def test_gradient_check() -> None:
    embeddings, labels = draw_batch(8, 3, torch.float64)
    embeddings.requires_grad_()
    assert compute_multi_similarity_loss(embeddings, labels).item() > 0.1
    assert torch.autograd.gradcheck(lambda rows: compute_multi_similarity_loss(rows, labels, beta=10.0), (embeddings,))


def test_every_setting_has_an_effect() -> None:
    embeddings, labels = draw_batch(dtype=torch.float64)  # what mining adds is below the last digit of float32
    default = compute_multi_similarity_loss(embeddings, labels)
    assert torch.equal(PairModule(MultiSimilarity(), MultiSimilarityMining())(embeddings, labels), default)
    for name, value in {"alpha": 3.0, "beta": 40.0, "base": 0.6, "epsilon": 0.8}.items():
        changed = compute_multi_similarity_loss(embeddings, labels, **{name: value})
        assert not torch.equal(changed, default), f"{name} has no effect on this batch"


def test_labels_of_other_integer_types() -> None:
    embeddings, labels = draw_batch()
    expected = compute_multi_similarity_loss(embeddings, labels)
    assert torch.equal(compute_multi_similarity_loss(embeddings, labels.to(torch.int32)), expected)


def test_unsound_inputs_are_refused() -> None:
    embeddings, labels = draw_batch()
    with pytest.raises(TrainingError, match="pairs: labels must be one class position per row"):
        compute_multi_similarity_loss(embeddings, labels[:-1])
    with pytest.raises(TrainingError, match="integer class positions"):
        compute_multi_similarity_loss(embeddings, labels.float())
    for settings in ({"alpha": 0.0}, {"beta": -1.0}, {"beta": math.nan}):
        with pytest.raises(RecipeError, match=f"{next(iter(settings))}: input should be"):
            compute_multi_similarity_loss(embeddings, labels, **settings)
