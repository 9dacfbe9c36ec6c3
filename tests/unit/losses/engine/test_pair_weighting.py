import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.declared import PairLoss
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.formula import differentiate
from productrec.losses.engine.mining import (
    BandMining,
    DistanceWeightedMining,
    EasyPositiveMining,
    HardestMining,
    MultiSimilarityMining,
    SemiHardMining,
)
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.pair_weighting import PairWalk, compute_pair_loss, compute_pair_weights
from productrec.losses.engine.weighing import Mining, PairWeighting, RelatedPairWeighting, Weighed
from productrec.losses.pair.binomial_deviance import BinomialDeviance
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.euclidean_contrastive import EuclideanContrastive
from productrec.losses.pair.fast_ap import FastAP
from productrec.losses.pair.lifted_structure import LiftedStructure
from productrec.losses.pair.margin import Margin
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.n_pair import NPair
from productrec.losses.pair.norm_of_hinges import NormOfHinges
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.original_lifted_structure import OriginalLiftedStructure
from productrec.losses.pair.pair_logistic import PairLogistic
from productrec.losses.pair.smooth_ap import SmoothAP
from productrec.losses.pair.sum_of_hinges import SumOfHinges
from productrec.losses.pair.sup_con import SupCon
from productrec.losses.pair.triplet import Triplet

Row = Callable[[list[float], list[float]], tuple[float, int]]


def add(values: list[float]) -> float:
    return sum(values)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def multi_similarity(p: list[float], n: list[float]) -> tuple[float, int]:
    pulled = math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in p)) / 2
    return pulled + math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in n)) / 50, 1


def contrastive(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(max(0, 0.9 - s) for s in p) + sum(max(0, s - 0.2) for s in n), 1


def binomial_deviance(p: list[float], n: list[float]) -> tuple[float, int]:
    pulled = mean([math.log(1 + math.exp(-2 * (s - 0.5))) for s in p])
    return pulled + mean([math.log(1 + math.exp(40 * (s - 0.5))) for s in n]), 1


def triplet_active(p: list[float], n: list[float]) -> tuple[float, int]:
    hinges = [b - a + 0.3 for a in p for b in n if b - a + 0.3 > 0]
    return sum(hinges), len(hinges)


def triplet_all(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(max(0, b - a + 0.3) for a in p for b in n), len(p) * len(n)


def triplet_semi_hard(p: list[float], n: list[float]) -> tuple[float, int]:
    hinges = [b - a + 0.3 for a in p for b in n if 0 < b - a + 0.3 < 0.3]
    return sum(hinges), len(hinges)


def triplet_soft(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(math.log(1 + math.exp(b - a)) for a in p for b in n), len(p) * len(n)


def lifted(p: list[float], n: list[float]) -> tuple[float, int]:
    if not p or not n:
        return 0.0, 1
    pulled = math.log(sum(math.exp(-2 * s) for s in p))
    return max(0.0, pulled + math.log(sum(math.exp(2 * (s + 0.4)) for s in n))) / 2, 1


def nt_xent(p: list[float], n: list[float]) -> tuple[float, int]:
    against = sum(math.exp(s / 0.1) for s in n)
    return sum(-math.log(math.exp(s / 0.1) / (math.exp(s / 0.1) + against)) for s in p), len(p)


def sup_con(p: list[float], n: list[float]) -> tuple[float, int]:
    total = sum(math.exp(s / 0.1) for s in p + n)
    return mean([-math.log(math.exp(s / 0.1) / total) for s in p]), 1


def sup_con_inside(p: list[float], n: list[float]) -> tuple[float, int]:
    """Equation (3)."""
    total = sum(math.exp(s / 0.1) for s in p + n)
    return -math.log(sum(math.exp(s / 0.1) / total for s in p) / len(p)) if p else 0.0, 1


def margin(p: list[float], n: list[float]) -> tuple[float, int]:
    hinges = [max(0, euclidean(s) - 1.1 + 0.3) for s in p] + [max(0, 1.1 - euclidean(s) + 0.3) for s in n]
    return sum(hinges), sum(hinge > 0 for hinge in hinges)


def fast_ap(p: list[float], n: list[float]) -> tuple[float, int]:
    def fill(similarities: list[float]) -> list[float]:
        """Triangles around the bin centres 0, 0.8, ..., 4 of squared distances."""
        return [sum(max(0, 1 - abs(2 - 2 * s - 0.8 * bin) / 0.8) for s in similarities) for bin in range(6)]

    near, far = fill(p), fill(n)
    precision = 0.0
    for bin in range(6):
        if near[bin] > 0:
            precision += near[bin] * sum(near[: bin + 1]) / (sum(near[: bin + 1]) + sum(far[: bin + 1]))
    return (1 - precision / len(p), 1) if p else (0.0, 0)


def circle(p: list[float], n: list[float]) -> tuple[float, int]:
    pushed = sum(math.exp(20 * max(0, s + 0.3) * (s - 0.3)) for s in n)
    return math.log(1 + pushed * sum(math.exp(-20 * max(0, 1.3 - s) * (s - 0.7)) for s in p)), 1


def n_pair(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(math.log(1 + sum(math.exp(b - a) for b in n)) for a in p), len(p)


def sum_of_hinges(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(max(0, b - a + 0.2) for a in p for b in n), 1


def max_of_hinges(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(max(0, max(n, default=-math.inf) - a + 0.2) for a in p), 1


def norm_of_hinges(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(sum(max(0, b - a + 0.2) ** 2.5 for b in n) ** 0.4 for a in p), 1


def smooth_ap(p: list[float], n: list[float]) -> tuple[float, int]:
    def above(others: list[float], s: float) -> float:
        return sum(1 / (1 + math.exp((s - other) / 0.1)) for other in others)

    shares = []
    for place, s in enumerate(p):
        rank = 1 + above(p[:place] + p[place + 1 :], s)
        shares.append(rank / (rank + above(n, s)))
    return 1 - mean(shares) if p else 0.0, 1


def euclidean(s: float) -> float:
    return math.sqrt(max(0.0, 2 - 2 * s))


def euclidean_contrastive(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(max(0, euclidean(s) - 0.1) ** 2 for s in p) + sum(max(0, 1.2 - euclidean(s)) ** 2 for s in n), 1


def euclidean_hinges(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(euclidean(s) for s in p) + sum(max(0, 1 - euclidean(s)) for s in n), 1


def logistic(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(math.log(1 + math.exp(-s)) for s in p) + sum(math.log(1 + math.exp(s)) for s in n), 1


@dataclass(frozen=True)
class Case:
    loss: PairLoss
    oracle: Row
    counts: bool = False
    mining: Mining | None = None
    smooth: bool = True


CASES = {
    "multi_similarity": Case(MultiSimilarity(), multi_similarity),
    "contrastive": Case(Contrastive(positive_margin=0.9, negative_margin=0.2), contrastive),
    "binomial_deviance": Case(BinomialDeviance(), binomial_deviance),
    "triplet": Case(Triplet(margin=0.3), triplet_active, counts=True),
    "triplet_all": Case(Triplet(margin=0.3, average="all"), triplet_all, counts=True),
    "triplet_semi_hard": Case(Triplet(margin=0.3, negatives="semi_hard"), triplet_semi_hard, counts=True),
    "triplet_soft": Case(Triplet(soft=True, average="all"), triplet_soft, counts=True),
    "lifted": Case(LiftedStructure(scale=2.0, margin=0.4), lifted),
    "sum_of_hinges": Case(SumOfHinges(margin=0.2), sum_of_hinges),
    "max_of_hinges": Case(MaxOfHinges(margin=0.2), max_of_hinges),
    "norm_of_hinges": Case(NormOfHinges(margin=0.2, temperature=0.4), norm_of_hinges),
    "smooth_ap": Case(SmoothAP(temperature=0.1), smooth_ap),
    "euclidean_contrastive": Case(
        EuclideanContrastive(positive_margin=0.1, negative_margin=1.2), euclidean_contrastive
    ),
    "euclidean_hinges": Case(EuclideanContrastive(power=1), euclidean_hinges),
    "logistic": Case(PairLogistic(scale=1.0, bias=0.0), logistic),
    "n_pair": Case(NPair(), n_pair, counts=True),
    "nt_xent": Case(NTXent(temperature=0.1), nt_xent, counts=True),
    "sup_con": Case(SupCon(temperature=0.1), sup_con),
    "sup_con_inside": Case(SupCon(temperature=0.1, mean="inside"), sup_con_inside),
    "margin": Case(Margin(alpha=0.3, beta=1.1), margin, counts=True),
    "fast_ap": Case(FastAP(bins=5), fast_ap, counts=True),
    "circle": Case(Circle(margin=0.3, gamma=20.0), circle, smooth=False),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def draw(rows: int = 23, classes: int = 6, seed: int = 0, columns: int = 8) -> tuple[Tensor, Tensor]:
    """Unit float64 rows; classes of very different sizes, some with a single row."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(rows, columns, generator=generator, dtype=torch.float64), dim=1)
    labels = (torch.rand(rows, generator=generator) ** 2 * classes).long()
    return embeddings, labels


def by_loops(case: Case, embeddings: Tensor, labels: Tensor) -> float:
    similarities = (embeddings @ embeddings.T).tolist()
    classes = labels.tolist()
    total, counted = 0.0, 0
    for i, row in enumerate(similarities):
        positives = [s for j, s in enumerate(row) if j != i and classes[j] == classes[i]]
        negatives = [s for j, s in enumerate(row) if classes[j] != classes[i]]
        value, count = case.oracle(positives, negatives)
        total, counted = total + value, counted + count
    return total / max(1, counted) if case.counts else total / len(similarities)


def value_and_gradient(loss_of: Callable[[Tensor], Tensor], embeddings: Tensor) -> tuple[float, Tensor]:
    leaf = embeddings.detach().clone().requires_grad_()
    loss = loss_of(leaf)
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad


@EACH
@pytest.mark.parametrize("seed", range(4))
def test_equals_loops_from_the_paper(case: Case, seed: int) -> None:
    embeddings, labels = draw(seed=seed)
    assert compute_pair_loss(Comparison(embeddings, labels), case.loss).item() == pytest.approx(
        by_loops(case, embeddings, labels), rel=1e-9, abs=1e-12
    )


@EACH
def test_gradients_are_those_of_the_value(case: Case) -> None:
    if not case.smooth:
        pytest.skip("its gradient holds the paces fixed; compared with autograd below")
    embeddings, labels = draw(11, 4, seed=3, columns=5)
    leaf = embeddings.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: compute_pair_loss(Comparison(rows, labels), case.loss), (leaf,))
    references, reference_labels = draw(9, 4, seed=4, columns=5)
    both = (leaf, references.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda rows, others: compute_pair_loss(
            Comparison(rows, labels, references=others, reference_labels=reference_labels), case.loss
        ),
        both,
    )


def test_circle_holds_its_paces_fixed() -> None:
    embeddings, labels = draw(17, 4)

    def dense(rows: Tensor) -> Tensor:
        s = rows @ rows.T
        same = labels[:, None] == labels[None]
        positive = same & ~torch.eye(len(s), dtype=torch.bool)
        push = (20 * (s.detach() + 0.3).clamp(min=0) * (s - 0.3)).masked_fill(same, -torch.inf).logsumexp(1)
        pull = (-20 * (1.3 - s.detach()).clamp(min=0) * (s - 0.7)).masked_fill(~positive, -torch.inf).logsumexp(1)
        return functional.softplus(push + pull)[positive.any(1) & ~same.all(1)].sum() / len(s)

    expected, gradient = value_and_gradient(dense, embeddings)
    found, mine = value_and_gradient(
        lambda rows: compute_pair_loss(Comparison(rows, labels), Circle(margin=0.3, gamma=20.0)), embeddings
    )
    assert found == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(mine, gradient)


@pytest.mark.parametrize("rows", [17, 300])
def test_both_forms_of_sup_con_are_what_torch_differentiates(rows: int) -> None:
    embeddings, labels = draw(rows, 6)

    def dense(leaf: Tensor, mean: str) -> Tensor:
        same = labels[:, None] == labels
        positive = same.clone().fill_diagonal_(False)
        logits = (leaf @ leaf.T / 0.1).masked_fill(torch.eye(rows, dtype=torch.bool), -torch.inf)
        log_shares = logits.log_softmax(dim=1)
        count = positive.sum(dim=1).clamp(min=1).double()
        if mean == "outside":
            losses = -log_shares.masked_fill(~positive, 0.0).sum(dim=1) / count
        else:
            losses = count.log() - log_shares.masked_fill(~positive, -torch.inf).logsumexp(dim=1)
        return losses[positive.any(dim=1)].sum() / rows

    for mean in ("outside", "inside"):
        expected, gradient = value_and_gradient(lambda leaf, mean=mean: dense(leaf, mean), embeddings)
        loss = SupCon(temperature=0.1, mean=mean)
        value, mine = value_and_gradient(
            lambda r, loss=loss: compute_pair_loss(Comparison(r, labels), loss), embeddings
        )
        assert value == pytest.approx(expected, rel=1e-12)
        torch.testing.assert_close(mine, gradient)


def test_both_forms_of_sup_con_are_one_with_a_single_positive() -> None:
    embeddings, _ = draw(10)
    batch = Comparison(embeddings, torch.arange(10) // 2)
    outside, inside = (compute_pair_loss(batch, SupCon(mean=mean)) for mean in ("outside", "inside"))
    torch.testing.assert_close(outside, inside)
    fours = Comparison(embeddings[:8], torch.arange(8) // 4)
    outside, inside = (compute_pair_loss(fours, SupCon(mean=mean)) for mean in ("outside", "inside"))
    assert inside < outside - 1e-3  # Jensen: the logarithm of the mean is above the mean of the logarithms


@EACH
@pytest.mark.parametrize("mining", [None, MultiSimilarityMining(epsilon=0.1), HardestMining(), EasyPositiveMining()])
@pytest.mark.parametrize("block_rows", [1, 5, 22])
def test_blocks_of_any_size_give_the_same(case: Case, mining: Mining | None, block_rows: int) -> None:
    embeddings, labels = draw()
    whole = value_and_gradient(lambda r: compute_pair_loss(Comparison(r, labels), case.loss, mining=mining), embeddings)
    parts = value_and_gradient(
        lambda r: compute_pair_loss(Comparison(r, labels), case.loss, mining=mining, block_rows=block_rows), embeddings
    )
    assert parts[0] == pytest.approx(whole[0], rel=1e-12)
    torch.testing.assert_close(parts[1], whole[1])


@EACH
def test_order_does_not_matter(case: Case) -> None:
    embeddings, labels = draw()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    value, gradient = value_and_gradient(lambda r: compute_pair_loss(Comparison(r, labels), case.loss), embeddings)
    other, moved = value_and_gradient(
        lambda r: compute_pair_loss(Comparison(r, labels[order]), case.loss), embeddings[order]
    )
    assert other == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(moved, gradient[order])


@EACH
def test_weights_are_what_the_gradient_is_made_of(case: Case) -> None:
    embeddings, labels = draw()
    weights = compute_pair_weights(Comparison(embeddings, labels), case.loss, mining=MultiSimilarityMining(epsilon=0.1))
    _, gradient = value_and_gradient(
        lambda r: compute_pair_loss(Comparison(r, labels), case.loss, mining=MultiSimilarityMining(epsilon=0.1)),
        embeddings,
    )
    torch.testing.assert_close(weights @ embeddings + weights.T @ embeddings, gradient)
    same = labels[:, None] == labels[None]
    if not isinstance(case.loss, SupCon | FastAP):  # there the positives of an anchor compete with each other
        assert (weights[same] <= 0).all()
    assert (weights[~same] >= 0).all()
    assert (weights.diagonal() == 0).all()


@EACH
def test_anchors_among_references_do_not_meet_themselves(case: Case) -> None:
    embeddings, labels = draw()
    whole = compute_pair_weights(Comparison(embeddings, labels), case.loss)
    rows = torch.tensor([7, 3, 20])
    part = compute_pair_weights(
        Comparison(embeddings[rows], labels[rows], references=embeddings, reference_labels=labels, own_rows=rows),
        case.loss,
    )
    alike = whole[rows] * (whole.abs().sum() > 0)
    # Rows are divided by their own number or count, so they are equal up to one factor.
    factor = part.abs().sum() / alike.abs().sum()
    torch.testing.assert_close(part, alike * factor)


def original_lifted_by_loops(embeddings: Tensor, labels: Tensor, margin: float) -> float:
    distances = torch.cdist(embeddings, embeddings).tolist()
    classes = labels.tolist()

    def near(row: int) -> float:
        return sum(
            math.exp(margin - d) for d, other in zip(distances[row], classes, strict=True) if other != classes[row]
        )

    gaps = [
        max(0.0, distances[i][j] + math.log(near(i) + near(j)))
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and classes[i] == classes[j]
    ]
    return mean([gap**2 / 2 for gap in gaps])


@pytest.mark.parametrize("block_rows", [None, 1, 5, 22])
def test_original_lifted_structure_equals_loops_and_its_gradient_is_the_values(block_rows: int | None) -> None:
    embeddings, labels = draw()
    loss = OriginalLiftedStructure(margin=0.7)

    def compute(rows: Tensor) -> Tensor:
        return compute_pair_loss(Comparison(rows, labels[: len(rows)]), loss, block_rows=block_rows)

    assert compute(embeddings).item() == pytest.approx(original_lifted_by_loops(embeddings, labels, 0.7), rel=1e-9)
    assert torch.autograd.gradcheck(compute, (embeddings[:12].requires_grad_(),))
    for alone in ([0], [0, 0, 0], [0, 1, 2]):
        few = embeddings[:1].detach().repeat(len(alone), 1)
        value, gradient = value_and_gradient(
            lambda r, alone=alone: compute_pair_loss(Comparison(r, torch.tensor(alone)), loss), few
        )
        assert value == 0
        assert (gradient == 0).all()


def test_original_lifted_structure_refuses_what_it_cannot_take() -> None:
    embeddings, labels = draw()
    with pytest.raises(TrainingError, match="compares a batch with itself only"):
        compute_pair_loss(
            Comparison(embeddings, labels, references=embeddings, reference_labels=labels), OriginalLiftedStructure()
        )
    with pytest.raises(TrainingError, match="takes no mining, .* got HardestMining"):
        compute_pair_loss(Comparison(embeddings, labels), OriginalLiftedStructure(), mining=HardestMining())


def test_pair_logistic_learns_its_affine() -> None:
    embeddings, labels = draw(9, 3)
    module = PairLogistic(scale=4.0, bias=-2.0).build(None, 3).double()
    similarities = 4 * embeddings @ embeddings.T - 2
    same = labels[:, None] == labels[None]
    terms = functional.softplus(torch.where(same, -similarities, similarities)).fill_diagonal_(0.0)
    assert module(embeddings, labels).item() == pytest.approx(terms.sum().item() / 9, rel=1e-6)

    def compute(rows: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"log_scale": scale, "bias": bias}, (rows, labels))

    inputs = (embeddings.requires_grad_(), module.log_scale.detach().clone(), module.bias.detach().clone())
    assert torch.autograd.gradcheck(compute, tuple(one.requires_grad_() for one in inputs))


def test_other_lengths_are_refused_where_a_loss_needs_unit_norm() -> None:
    embeddings, labels = draw()
    embeddings[4] *= 1.5
    for loss in (Circle(), EuclideanContrastive()):
        with pytest.raises(TrainingError, match="1 of 23 rows have not, the first, row 4, is 1.5 long"):
            compute_pair_loss(Comparison(embeddings, labels), loss)
    assert compute_pair_loss(Comparison(embeddings, labels), NTXent()).isfinite()


def test_without_own_rows_every_reference_of_the_class_is_a_positive() -> None:
    embeddings, labels = draw()
    weights = compute_pair_weights(
        Comparison(embeddings, labels, references=embeddings, reference_labels=labels),
        Contrastive(positive_margin=2.0, negative_margin=0.5),
    )
    assert (weights.diagonal() < 0).all()


@EACH
@pytest.mark.parametrize("labels", [[0], [0, 0, 0, 0], [0, 1, 2, 3]], ids=["one row", "one class", "all alone"])
@pytest.mark.parametrize("identical", [False, True])
def test_a_batch_with_nothing_to_compare_is_finite_and_keeps_its_graph(
    case: Case, labels: list[int], identical: bool
) -> None:
    embeddings, _ = draw(len(labels))
    embeddings = embeddings[:1].repeat(len(labels), 1) if identical else embeddings
    for mining in (
        None,
        MultiSimilarityMining(epsilon=0.1),
        HardestMining(),
        EasyPositiveMining(hardest_negative=True),
    ):
        value, gradient = value_and_gradient(
            lambda r, mining=mining: compute_pair_loss(Comparison(r, torch.tensor(labels)), case.loss, mining=mining),
            embeddings,
        )
        assert math.isfinite(value)
        assert gradient.isfinite().all()
        if mining == MultiSimilarityMining(epsilon=0.1) or len(labels) == 1:
            assert value == 0
            assert (gradient == 0).all()


@EACH
def test_extreme_similarities_are_finite(case: Case) -> None:
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    value, gradient = value_and_gradient(
        lambda r: compute_pair_loss(Comparison(r, torch.tensor([0, 0, 1, 1, 1])), case.loss), embeddings
    )
    assert math.isfinite(value)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "loss",
    [
        NTXent(temperature=0.005),
        SupCon(temperature=0.005),
        Circle(margin=0.25, gamma=256.0),
        MultiSimilarity(alpha=50.0, beta=1000.0),
    ],
)
def test_sharp_settings_are_finite(loss: PairLoss) -> None:
    embeddings, labels = draw(seed=8)
    value, gradient = value_and_gradient(lambda r: compute_pair_loss(Comparison(r, labels), loss), embeddings.float())
    expected = compute_pair_loss(Comparison(embeddings, labels), loss).item()
    assert value == pytest.approx(expected, rel=1e-4)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    embeddings, labels = draw()
    half = embeddings.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(
            lambda r: compute_pair_loss(Comparison(r, labels), MultiSimilarity()), half
        )
    assert value == pytest.approx(
        compute_pair_loss(Comparison(half.double(), labels), MultiSimilarity()).item(), rel=1e-4
    )
    assert gradient.dtype == dtype


def test_a_duplicate_is_a_pair() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    weights = compute_pair_weights(
        Comparison(embeddings, torch.tensor([0, 0, 1])), Contrastive(positive_margin=2.0, negative_margin=0.0)
    )
    assert weights[0, 1] < 0
    assert weights[0, 0] == 0


def test_hardest_and_easiest_are_the_ones_kept() -> None:
    similarities = torch.tensor([[0.9, 0.1, torch.inf], [torch.inf, torch.inf, torch.inf]])
    negatives = torch.tensor([[0.2, -torch.inf, 0.4], [0.3, 0.1, -torch.inf]])
    positives = similarities.clone()
    others = negatives.clone()
    HardestMining().drop(positives, others)
    assert positives.tolist() == [[torch.inf, pytest.approx(0.1), torch.inf], [torch.inf] * 3]
    assert others.tolist() == [[-torch.inf, -torch.inf, pytest.approx(0.4)], [pytest.approx(0.3)] + [-torch.inf] * 2]
    positives = similarities.clone()
    EasyPositiveMining().drop(positives, negatives.clone())
    assert positives.tolist() == [[pytest.approx(0.9), torch.inf, torch.inf], [torch.inf] * 3]
    others = negatives.clone()
    BandMining(low=0.15, high=0.35).drop(similarities.clone(), others)
    assert others.isfinite().tolist() == [[True, False, False], [True, False, False]]


def test_semi_hard_negatives_lie_between_a_positive_and_its_margin() -> None:
    positives = torch.tensor([[0.9, 0.5], [0.2, torch.inf], [torch.inf, torch.inf]])
    negatives = torch.tensor([[0.95, 0.85, 0.7, 0.45], [0.25, 0.15, -0.5, -torch.inf], [0.1, 0.2, 0.3, 0.4]])
    SemiHardMining(margin=0.1).drop(positives, negatives)
    kept = [[False, True, False, True], [False, True, False, False], [False] * 4]
    assert negatives.isfinite().tolist() == kept


def test_a_negative_as_similar_as_the_positive_is_not_semi_hard() -> None:
    anchor, twin = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.75**0.5]])
    references = torch.cat([twin, twin])
    loss = Triplet(margin=0.1, negatives="semi_hard")
    value = compute_pair_loss(
        Comparison(anchor, torch.tensor([0]), references=references, reference_labels=torch.tensor([0, 1])), loss
    )
    assert value == 0


def test_distance_weighted_mining_draws_evenly_over_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    sphere = functional.normalize(torch.randn(20_001, 16, generator=generator), dim=1)
    similarities = sphere[:1] @ sphere[1:].T
    torch.manual_seed(0)
    drawn = torch.cat([_draw_negatives(similarities) for _ in range(2000)])
    distances = (2 - 2 * drawn).sqrt()
    assert (distances <= 1.4).all()
    # Random negatives crowd at distance 1.41 in 16 dimensions; drawn ones are spread from where the sample begins.
    everything = (2 - 2 * similarities[0]).sqrt()
    reach = everything.min().item()
    share = (distances < (reach + 1.4) / 2).float().mean().item()
    assert (everything < (reach + 1.4) / 2).float().mean().item() < 0.05
    assert 0.3 < share < 0.8


def _draw_negatives(similarities: Tensor) -> Tensor:
    negatives = similarities.clone()
    DistanceWeightedMining(dimension=16).drop(torch.tensor([[0.5, 0.4, torch.inf]]), negatives)
    kept = negatives[negatives > -torch.inf]
    assert len(kept) == 2, "as many as positives"
    return kept


def test_nan_names_its_rows() -> None:
    embeddings, labels = draw()
    embeddings[5, 0] = torch.nan
    embeddings[9, 2] = torch.inf
    with pytest.raises(TrainingError, match=r"embeddings must be finite; got NaN or infinity in 2 of 23 rows \(5, 9\)"):
        compute_pair_loss(Comparison(embeddings, labels), MultiSimilarity(), mining=MultiSimilarityMining())


def test_the_gradient_carries_no_graph_of_its_own() -> None:
    embeddings, labels = draw()
    leaf = embeddings.requires_grad_()
    (gradient,) = torch.autograd.grad(compute_pair_loss(Comparison(leaf, labels), NTXent()), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_references_without_gradient_get_none() -> None:
    embeddings, labels = draw()
    leaf = embeddings.clone().requires_grad_()
    compute_pair_loss(Comparison(leaf, labels, references=embeddings, reference_labels=labels), NTXent()).backward()
    assert leaf.grad is not None


def test_labels_may_be_of_different_integer_types() -> None:
    embeddings, labels = draw()
    mixed = compute_pair_loss(
        Comparison(embeddings, labels.int(), references=embeddings, reference_labels=labels), NTXent()
    )
    assert mixed == compute_pair_loss(
        Comparison(embeddings, labels, references=embeddings, reference_labels=labels), NTXent()
    )


def test_references_that_do_not_fit_are_refused() -> None:
    embeddings, labels = draw()
    with pytest.raises(TrainingError, match="must come with references"):
        compute_pair_loss(Comparison(embeddings, labels, own_rows=labels), NTXent())
    with pytest.raises(TrainingError, match="must be on one device; got cpu, meta"):
        compute_pair_loss(Comparison(embeddings, labels.to("meta")), NTXent())
    with pytest.raises(TrainingError, match="must come with reference_labels"):
        compute_pair_loss(Comparison(embeddings, labels, references=embeddings), NTXent())
    with pytest.raises(TrainingError, match="must have 8 dimensions"):
        compute_pair_loss(
            Comparison(embeddings, labels, references=embeddings[:, :5], reference_labels=labels), NTXent()
        )
    with pytest.raises(TrainingError, match="own_rows must be one row number per embedding"):
        compute_pair_loss(
            Comparison(embeddings, labels, references=embeddings, reference_labels=labels, own_rows=labels[:3]),
            NTXent(),
        )


@pytest.mark.parametrize("rows", [8, 300])  # masks, and tables
@pytest.mark.parametrize("bad", [-2, "count"])
def test_own_rows_out_of_range_are_refused(rows: int, bad: object) -> None:
    embeddings = functional.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    labels, own_rows = torch.arange(rows) % 3, torch.arange(rows)
    own_rows[-1] = rows if bad == "count" else bad
    with pytest.raises(TrainingError, match=f"own_rows must be rows of the references, 0 to {rows - 1}, or -1"):
        Comparison(embeddings, labels, embeddings, labels, own_rows)


@pytest.mark.parametrize(
    "build",
    [
        lambda: MultiSimilarity(alpha=0),
        lambda: NTXent(temperature=0.0),
        lambda: SupCon(temperature=-1),
        lambda: Circle(gamma=0),
        lambda: LiftedStructure(scale=0),
        lambda: BinomialDeviance(beta=float("nan")),
        lambda: Triplet(soft=True, negatives="semi_hard"),
        lambda: BandMining(low=0.5, high=0.5),
    ],
)
def test_settings_that_weigh_nothing_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(RecipeError):
        build()


def test_the_module_is_the_function() -> None:
    embeddings, labels = draw()
    module = PairModule(Circle(), MultiSimilarityMining())
    assert module(embeddings, labels) == compute_pair_loss(
        Comparison(embeddings, labels), Circle(), mining=MultiSimilarityMining()
    )
    assert "Circle(margin=0.4" in repr(module)


class Squared(PairWeighting):
    """Half the squared distance to 1 of positives and to 0 of negatives, where that is wrong."""

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        return ((1 - positives).clamp(min=0).square().sum(1) + negatives.clamp(min=0).square().sum(1)) / 2


class WeighedSquared(Squared):
    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        pulled, pushed = (1 - positives).clamp(min=0), negatives.clamp(min=0)
        return Weighed((pulled.square().sum(1) + pushed.square().sum(1)) / 2, -pulled, pushed)


@pytest.mark.parametrize("rows", [9, 300])
def test_a_loss_of_ones_own_takes_three_lines(rows: int) -> None:
    embeddings, labels = draw(rows, 3, columns=4)
    leaf = embeddings.requires_grad_()
    if rows < 20:
        assert torch.autograd.gradcheck(lambda rows: compute_pair_loss(Comparison(rows, labels), Squared()), (leaf,))
    both = []
    for loss in (Squared(), WeighedSquared()):
        value = compute_pair_loss(Comparison(leaf, labels), loss, block_rows=64)
        both.append((value.item(), torch.autograd.grad(value, leaf)[0]))
    assert both[0][0] == pytest.approx(both[1][0])
    torch.testing.assert_close(both[0][1], both[1][1])


def test_a_formula_that_gives_no_loss_an_anchor_is_refused() -> None:
    class Summed(PairWeighting):
        def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
            return negatives.clamp(min=0).sum()

    embeddings, labels = draw(9, 3, columns=4)
    with pytest.raises(ValueError, match=r"one loss an anchor, shape \(9,\); it gave \(\)"):
        compute_pair_loss(Comparison(embeddings, labels), Summed())


WITH_FORMULA = {name: case for name, case in CASES.items() if not isinstance(case.loss, RelatedPairWeighting)}


@pytest.mark.parametrize("case", WITH_FORMULA.values(), ids=WITH_FORMULA)
@pytest.mark.parametrize("kind", ["plain", "mined", "one class", "all alone"])
def test_the_derivative_written_by_hand_is_that_of_the_formula(case: Case, kind: str) -> None:
    embeddings, labels = draw(40, 6)
    if kind in ("one class", "all alone"):
        labels = torch.zeros(40, dtype=torch.int64) if kind == "one class" else torch.arange(40)
    mining = MultiSimilarityMining() if kind == "mined" else None
    walk = PairWalk(Comparison(embeddings, labels), case.loss, mining)
    ((start, stop),) = walk.blocks
    near, far = (table.clone() for table in walk.take(start, stop))
    formula = differentiate(case.loss.compute, near, far)
    weighed = case.loss.weigh(near.clone(), far.clone())
    scales = 1.0 if weighed.scales is None else weighed.scales
    torch.testing.assert_close(formula.losses, weighed.losses, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(formula.positives, weighed.positives * scales, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(formula.negatives, weighed.negatives * scales, atol=1e-9, rtol=1e-9)
    if weighed.counts is not None and formula.counts is not None:
        torch.testing.assert_close(formula.counts.double(), weighed.counts.double())
