import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import TrainingError
from productrec.losses.build import build_metric_loss
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.mining import DistanceWeightedMining
from productrec.losses.engine.module import MetricModule
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.pair_weighting import compute_pair_loss, compute_pair_weights
from productrec.losses.pair.euclidean_contrastive import EuclideanContrastive
from productrec.losses.pair.margin import Margin
from productrec.training.step.objective import JointLoss

CLASSES = 5


def draw(rows: int = 23, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(rows, 6, generator=generator, dtype=torch.float64), dim=1)
    return embeddings, (torch.rand(rows, generator=generator) ** 2 * CLASSES).long()


def build(loss: Margin) -> MetricModule:
    return build_metric_loss(loss, mining=None, embedding_dim=6, class_count=CLASSES).double()


def by_loops(embeddings: Tensor, labels: Tensor, betas: list[float], alpha: float, nu: float) -> float:
    distances, classes = torch.cdist(embeddings, embeddings).tolist(), labels.tolist()
    total, active = 0.0, 0
    for i, mine in enumerate(classes):
        for j, theirs in enumerate(classes):
            if i == j:
                continue
            sign = 1 if mine == theirs else -1
            hinge = max(0.0, alpha + sign * (distances[i][j] - betas[mine]))
            total += hinge + (nu * betas[mine] if sign == 1 else 0.0)
            active += hinge > 0
    return total / max(1, active)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("nu", [0.0, 0.3])
def test_equals_loops_from_the_paper(seed: int, nu: float) -> None:
    embeddings, labels = draw(seed=seed)
    of_class = build(Margin(alpha=0.25, nu=nu))
    betas = [0.9, 1.0, 1.1, 1.2, 1.3]
    of_class.thresholds.data = torch.tensor(betas, dtype=torch.float64)
    assert of_class(embeddings, labels).item() == pytest.approx(by_loops(embeddings, labels, betas, 0.25, nu))
    of_all = build(Margin(alpha=0.25, beta=1.1, nu=nu, beta_of="all"))
    assert of_all.thresholds.shape == (1,)
    assert of_all(embeddings, labels).item() == pytest.approx(
        by_loops(embeddings, labels, [1.1] * CLASSES, 0.25, nu), rel=1e-6
    )
    fixed = build(Margin(alpha=0.25, beta=1.1, nu=nu, beta_of="fixed"))
    assert fixed(embeddings, labels).item() == pytest.approx(
        by_loops(embeddings, labels, [1.1] * CLASSES, 0.25, 0.0), rel=1e-6
    )
    assert not list(fixed.parameters())


def test_around_a_fixed_boundary_it_is_the_contrastive_loss_of_active_pairs() -> None:
    embeddings, labels = draw()
    batch = Comparison(embeddings, labels)
    summed = EuclideanContrastive(positive_margin=0.9, negative_margin=1.3, power=1)
    active = (compute_pair_weights(batch, summed) != 0).sum()
    expected = compute_pair_loss(batch, summed) * len(labels) / active
    torch.testing.assert_close(compute_pair_loss(batch, Margin(alpha=0.2, beta=1.1)), expected)


@pytest.mark.parametrize("beta_of", ["class", "all"])
def test_rows_and_boundaries_learn_by_the_gradient_of_the_value(beta_of: str) -> None:
    embeddings, labels = draw(12, seed=2)
    module = build(Margin(nu=0.1, beta_of=beta_of))

    def compute(rows: Tensor, thresholds: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"thresholds": thresholds}, (rows, labels))

    betas = torch.linspace(1.0, 1.4, len(module.thresholds), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(compute, (embeddings.requires_grad_(), betas))


def test_a_boundary_is_pushed_by_the_pairs_of_its_class() -> None:
    # Class 0 twice at a right angle, class 1 on the first of them: d = 1.41, 0, 1.41.
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    module = build(Margin(alpha=0.1, beta=1.2))
    value = module(rows, torch.tensor([0, 0, 1]))
    value.backward()
    # Anchors 0 and 1: the positive at 1.41 beyond 1.1, anchors 0 and 2: the negative at 0 within 1.3.
    assert value.item() == pytest.approx((2 * (math.sqrt(2) - 1.1) + 2 * 1.3) / 4)
    assert module.thresholds.grad.tolist() == pytest.approx([(1 - 2) / 4, 1 / 4, 0, 0, 0])


def test_boundaries_learn_at_the_heads_rate_and_belong_to_the_state() -> None:
    module = build(Margin())
    assert [name for name, _ in module.named_parameters()] == ["thresholds"]
    assert not list(module.iterate_centres())
    joint = JointLoss(module, metric_weight=1.0, classification_weight=1.0, label_smoothing=0.0)
    assert [name for name, _ in joint.iterate_other_parameters()] == ["metric.thresholds"]  # what heads' rate is for
    assert "thresholds" in module.state_dict()
    default = build_metric_loss(Margin(), embedding_dim=6, class_count=CLASSES)
    assert isinstance(default, PairModule)
    assert default.mining == DistanceWeightedMining(dimension=6)


def test_a_memory_takes_the_boundaries_of_the_anchors() -> None:
    memory = build_metric_loss(
        Margin(beta_of="class"), mining=None, memory_rows=40, memory_start_step=0, embedding_dim=6, class_count=CLASSES
    )
    (first, labels), (second, others) = draw(8), draw(8, seed=1)
    memory(first.float(), labels)
    memory.loss.thresholds.data = torch.linspace(0.9, 1.3, CLASSES)
    alone = memory.loss(second.float(), others)
    against = memory(second.float(), others) - alone
    comparison = Comparison(
        second,
        others,
        torch.cat([first, second]),
        torch.cat([labels, others]),
        torch.arange(8, 16),
        torch.linspace(0.9, 1.3, CLASSES, dtype=torch.float64)[others],
    )
    assert against.item() == pytest.approx(compute_pair_loss(comparison, Margin()).item(), rel=1e-5)
    against.backward()
    assert memory.loss.thresholds.grad.abs().sum() > 0


@pytest.mark.parametrize("labels", [[0], [0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]])
@pytest.mark.parametrize("beta", [0.05, 1.2])  # below alpha an absent positive, of distance 0, would be beyond
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_identical_embeddings_are_finite(labels: list[int], beta: float, dtype: torch.dtype) -> None:
    rows = torch.eye(6)[:1].repeat(len(labels), 1).to(dtype).requires_grad_()
    module = build_metric_loss(Margin(alpha=0.2, beta=beta, nu=0.1), mining=None, embedding_dim=6, class_count=CLASSES)
    value = module(rows, torch.tensor(labels))
    value.backward()
    assert value.item() == pytest.approx(
        by_loops(rows.detach().double(), torch.tensor(labels), [beta] * CLASSES, 0.2, 0.1), abs=1e-6
    )
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
    assert module.thresholds.grad.isfinite().all()


def test_labels_beyond_the_classes_are_refused() -> None:
    embeddings, labels = draw()
    with pytest.raises(TrainingError, match="thresholds of classes: labels must be class positions from 0 to 4"):
        build(Margin())(embeddings, labels + 3)
