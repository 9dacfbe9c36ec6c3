"""Equality with pytorch-metric-learning, in value and in gradient, wherever it agrees with the papers.

Where it does not, benchmarks/differences.py says why and who is right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.losses.declared import PairLoss, RelatedPairLoss
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.memory import CrossBatchMemory
from productrec.losses.engine.mining import EasyPositiveMining, HardestMining, MultiSimilarityMining
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import Mining
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.euclidean_contrastive import EuclideanContrastive
from productrec.losses.pair.fast_ap import FastAP
from productrec.losses.pair.lifted_structure import LiftedStructure
from productrec.losses.pair.margin import Margin
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.n_pair import NPair
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.original_lifted_structure import OriginalLiftedStructure
from productrec.losses.pair.sum_of_hinges import SumOfHinges
from productrec.losses.pair.sup_con import SupCon
from productrec.losses.pair.triplet import Triplet
from productrec.losses.proxy.arc_face import ArcFace
from productrec.losses.proxy.cos_face import CosFace
from productrec.losses.proxy.normalised_softmax import NormalisedSoftmax
from productrec.losses.proxy.proxy_anchor import ProxyAnchor
from productrec.losses.proxy.proxy_nca_pp import ProxyNCAPlusPlus
from productrec.losses.proxy.soft_triple import SoftTriple

distances = pytest.importorskip("pytorch_metric_learning.distances")
losses = pytest.importorskip("pytorch_metric_learning.losses")
miners = pytest.importorskip("pytorch_metric_learning.miners")
reducers = pytest.importorskip("pytorch_metric_learning.reducers")
regularizers = pytest.importorskip("pytorch_metric_learning.regularizers")

Loss = Callable[[Tensor, Tensor], Tensor]

COSINE = distances.CosineSimilarity()
MEAN, SUM = reducers.MeanReducer, reducers.SumReducer
# Relative to the value, and to the norm of the gradient.
TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-5}
BATCHES = ("even", "uneven", "duplicates", "one class", "all alone")
EACH_TYPE = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
EACH_SEED = pytest.mark.parametrize("seed", range(3))


@dataclass(frozen=True)
class Case:
    theirs: Loss
    ours: PairLoss | RelatedPairLoss
    mining: Mining | None = None
    batches: Sequence[str] = BATCHES


def mined(loss: Loss, miner: Callable[[Tensor, Tensor], object]) -> Loss:
    return lambda rows, labels: loss(rows, labels, miner(rows, labels))


def by_anchors(loss: Loss) -> Loss:
    """A sum over pairs, divided by the anchors."""
    return lambda rows, labels, *others: loss(rows, labels, *others) / len(rows)


def triplet(margin: float = 0.3, **settings: object) -> Loss:
    return losses.TripletMarginLoss(margin, distance=COSINE, **settings)


HARDEST = miners.BatchHardMiner(distance=COSINE)
EASY_ALL, EASY_HARD, ALL_HARD = (
    miners.BatchEasyHardMiner(*strategies, distance=COSINE)
    for strategies in (("easy", "all"), ("easy", "hard"), ("all", "hard"))
)
SEMI_HARD = miners.TripletMarginMiner(0.3, type_of_triplets="semihard", distance=COSINE)
CASES = {
    "multi_similarity": Case(losses.MultiSimilarityLoss(2, 50, 0.5), MultiSimilarity()),
    "multi_similarity, mined": Case(
        mined(losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)),
        MultiSimilarity(),
        MultiSimilarityMining(epsilon=0.1),
    ),
    "triplet": Case(triplet(), Triplet(margin=0.3)),
    "triplet, all": Case(triplet(reducer=MEAN()), Triplet(margin=0.3, average="all")),
    "triplet, soft": Case(triplet(0.0, smooth_loss=True, reducer=MEAN()), Triplet(soft=True, average="all")),
    # With duplicates rounding says whether a negative is as similar as the positive.
    "triplet, semi-hard": Case(
        mined(triplet(), SEMI_HARD),
        Triplet(margin=0.3, negatives="semi_hard"),
        batches=[one for one in BATCHES if one != "duplicates"],
    ),
    "triplet, hardest": Case(mined(triplet(), HARDEST), Triplet(margin=0.3), HardestMining()),
    "triplet, easy positive": Case(mined(triplet(), EASY_ALL), Triplet(margin=0.3), EasyPositiveMining()),
    "triplet, easy positive, hardest": Case(
        mined(triplet(), EASY_HARD), Triplet(margin=0.3), EasyPositiveMining(hardest_negative=True)
    ),
    "sum of hinges": Case(by_anchors(triplet(reducer=SUM())), SumOfHinges(margin=0.3)),
    "max of hinges": Case(by_anchors(mined(triplet(reducer=SUM()), ALL_HARD)), MaxOfHinges(margin=0.3)),
    "contrastive": Case(
        by_anchors(losses.ContrastiveLoss(0.9, 0.2, distance=COSINE, reducer=SUM())),
        Contrastive(positive_margin=0.9, negative_margin=0.2),
    ),
    "contrastive, Euclidean": Case(
        by_anchors(losses.ContrastiveLoss(0.1, 1.2, reducer=SUM())),
        EuclideanContrastive(positive_margin=0.1, negative_margin=1.2, power=1),
    ),
    "nt_xent": Case(losses.NTXentLoss(0.1), NTXent(temperature=0.1)),
    "sup_con": Case(losses.SupConLoss(0.1), SupCon(temperature=0.1), batches=("even", "duplicates", "all alone")),
    "sup_con, all anchors": Case(
        losses.SupConLoss(0.1, reducer=MEAN()),
        SupCon(temperature=0.1),
        batches=("even", "uneven", "duplicates", "all alone"),
    ),
    "circle": Case(losses.CircleLoss(0.4, 80), Circle(), batches=("even", "duplicates", "one class", "all alone")),
    "circle, all anchors": Case(losses.CircleLoss(0.25, 256, reducer=MEAN()), Circle(margin=0.25, gamma=256.0)),
    "lifted": Case(
        losses.GeneralizedLiftedStructureLoss(0.2, 0.7, distance=COSINE),
        LiftedStructure(margin=0.5),
        batches=("even", "duplicates"),
    ),
    "lifted, original": Case(losses.LiftedStructureLoss(1, 0), OriginalLiftedStructure(margin=1.0)),
    "fast_ap": Case(losses.FastAPLoss(10), FastAP()),
    "fast_ap, 7 bins": Case(losses.FastAPLoss(7), FastAP(bins=7)),
}
# Losses that the library takes references with.
REFERENCE_CASES = {
    "multi_similarity": (losses.MultiSimilarityLoss(), MultiSimilarity()),
    "triplet": (triplet(), Triplet(margin=0.3)),
    "contrastive": (
        by_anchors(losses.ContrastiveLoss(0.9, 0.2, distance=COSINE, reducer=SUM())),
        Contrastive(positive_margin=0.9, negative_margin=0.2),
    ),
    "nt_xent": (losses.NTXentLoss(0.1), NTXent(temperature=0.1)),
    "sup_con": (losses.SupConLoss(0.1, reducer=MEAN()), SupCon(temperature=0.1)),
    "circle": (losses.CircleLoss(reducer=MEAN()), Circle()),
}


def draw(kind: str, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows of any length, around the centres of their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = {
        "uneven": (torch.rand(24, generator=generator) ** 2 * 8).long(),
        "one class": torch.zeros(24, dtype=torch.int64),
        "all alone": torch.arange(24),
    }.get(kind, torch.arange(24) // 4)
    centres = torch.randn(24, 8, generator=generator, dtype=torch.float64)
    rows = 0.5 * centres[labels] + torch.randn(24, 8, generator=generator, dtype=torch.float64)
    if kind == "duplicates":  # of a positive, and of a negative
        rows[1], rows[9] = rows[0], rows[2]
    return rows.to(dtype), labels


def unit(rows: Tensor) -> Tensor:
    """The library brings rows to unit norm by itself."""
    return functional.normalize(rows, dim=1)


def assert_equal(theirs: Callable[[Tensor], Tensor], ours: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    found = []
    for loss_of in (theirs, ours):
        leaf = rows.detach().clone().requires_grad_()
        loss = loss_of(leaf)
        loss.backward()
        found.append((loss.item(), leaf.grad))
    (expected, gradient), (value, mine) = found
    tolerance = TOLERANCES[rows.dtype]
    assert value == pytest.approx(expected, rel=tolerance, abs=tolerance / 100)
    assert_close(mine, gradient)


def assert_close(mine: Tensor, expected: Tensor) -> None:
    assert (mine - expected).norm() <= TOLERANCES[expected.dtype] * (expected.norm() + 0.01)


@pytest.mark.parametrize(
    ("case", "kind"),
    [pytest.param(case, kind, id=f"{name}-{kind}") for name, case in CASES.items() for kind in case.batches],
)
@EACH_TYPE
@EACH_SEED
def test_pair_losses_are_those_of_the_library(case: Case, kind: str, dtype: torch.dtype, seed: int) -> None:
    rows, labels = draw(kind, seed, dtype)
    assert_equal(
        lambda leaf: case.theirs(leaf, labels),
        lambda leaf: compute_pair_loss(Comparison(unit(leaf), labels), case.ours, mining=case.mining),
        rows,
    )


@pytest.mark.parametrize(("theirs", "ours"), REFERENCE_CASES.values(), ids=REFERENCE_CASES)
@EACH_TYPE
@EACH_SEED
def test_references_are_those_of_the_library(
    theirs: Callable[..., Tensor], ours: PairLoss, dtype: torch.dtype, seed: int
) -> None:
    (anchors, labels), (references, others) = draw("even", seed, dtype), draw("even", seed + 9, dtype)
    others = others + 1  # so that some anchors have no positives

    def of_ours(leaf: Tensor) -> Tensor:
        return compute_pair_loss(
            Comparison(unit(leaf[:24]), labels, references=unit(leaf[24:]), reference_labels=others), ours
        )

    # One leaf of both, so that both have their gradients compared.
    assert_equal(
        lambda leaf: theirs(leaf[:24], labels, None, leaf[24:], others), of_ours, torch.cat([anchors, references])
    )


class FirstNegatives:
    """Keeps as many negatives as an anchor has positives, the first ones of the batch: pairs that can be told."""

    def drop(self, positives: Tensor, negatives: Tensor) -> None:
        wanted = (positives < torch.inf).sum(dim=1, keepdim=True)
        present = negatives > -torch.inf
        negatives.masked_fill_(~present | (present.cumsum(dim=1) > wanted), -torch.inf)


@pytest.mark.parametrize("beta_of", ["class", "all", "fixed"])
@EACH_TYPE
@EACH_SEED
def test_the_margin_loss_is_that_of_the_library(beta_of: str, dtype: torch.dtype, seed: int) -> None:
    """Over triplets in which every pair stands once; with all triplets the library weighs pairs by their number."""
    rows, labels = draw("uneven", seed, dtype)
    classes, nu = labels.tolist(), 0.0 if beta_of == "all" else 0.1  # the library's one boundary counts once, see docs
    triplets = []
    for anchor, mine in enumerate(classes):
        near = [row for row, other in enumerate(classes) if other == mine and row != anchor]
        far = [row for row, other in enumerate(classes) if other != mine]
        triplets += [(anchor, p, n) for p, n in zip(near, far, strict=False)]
        assert len(near) <= len(far)
    miner = tuple(torch.tensor(triplets).T)
    theirs = losses.MarginLoss(
        0.2, nu, 1.2, learn_beta=beta_of != "fixed", num_classes=8 if beta_of == "class" else None
    )
    ours = Margin(nu=nu, beta_of=beta_of).build(FirstNegatives(), 8)
    betas = torch.linspace(1.0, 1.3, 8) if beta_of == "class" else torch.tensor([1.2])
    theirs.beta.data = betas.to(dtype)
    if beta_of != "fixed":
        ours.thresholds.data = betas.to(dtype)
    assert_equal(lambda leaf: theirs(leaf, labels, miner), lambda leaf: ours(unit(leaf), labels), rows)
    if beta_of != "fixed":
        assert_close(ours.thresholds.grad, theirs.beta.grad)


@EACH_TYPE
def test_n_pairs_are_those_of_the_library(dtype: torch.dtype) -> None:
    rows, _ = draw("even", 0, dtype)
    labels = torch.arange(12)

    def ours(leaf: Tensor) -> Tensor:
        anchors, positives = unit(leaf)[::2], unit(leaf)[1::2]
        return compute_pair_loss(Comparison(anchors, labels, references=positives, reference_labels=labels), NPair())

    assert_equal(lambda leaf: losses.NPairsLoss()(leaf, labels.repeat_interleave(2)), ours, rows)


@dataclass(frozen=True)
class ProxyCase:
    theirs: Callable[[], nn.Module]
    centres: str
    ours: Callable[[], nn.Module]
    centres_per_class: int = 1


def build_soft_triple() -> nn.Module:
    regulariser = regularizers.SparseCentersRegularizer(7, 3)
    return losses.SoftTripleLoss(7, 8, 3, weight_regularizer=regulariser, weight_reg_weight=0.2)


PROXY_CASES = {
    "normalised_softmax": ProxyCase(
        lambda: losses.NormalizedSoftmaxLoss(7, 8, temperature=0.05), "W", lambda: NormalisedSoftmax().build(8, 7)
    ),
    "cos_face": ProxyCase(lambda: losses.CosFaceLoss(7, 8, margin=0.35, scale=64), "W", lambda: CosFace().build(8, 7)),
    "arc_face": ProxyCase(
        lambda: losses.ArcFaceLoss(7, 8, margin=math.degrees(0.5), scale=64), "W", lambda: ArcFace().build(8, 7)
    ),
    "arc_face, past pi": ProxyCase(
        lambda: losses.ArcFaceLoss(7, 8, margin=math.degrees(1.5), scale=64),
        "W",
        lambda: ArcFace(margin_rad=1.5).build(8, 7),
    ),
    "arc_face, three centres": ProxyCase(
        lambda: losses.SubCenterArcFaceLoss(
            num_classes=7, embedding_size=8, margin=math.degrees(0.5), scale=64, sub_centers=3
        ),
        "W",
        lambda: ArcFace(centres_per_class=3).build(8, 7),
        3,
    ),
    "proxy_nca, which is proxy_nca_plus_plus": ProxyCase(
        lambda: losses.ProxyNCALoss(7, 8, softmax_scale=9), "proxies", lambda: ProxyNCAPlusPlus().build(8, 7)
    ),
    "proxy_anchor": ProxyCase(
        lambda: losses.ProxyAnchorLoss(7, 8, margin=0.1, alpha=32), "proxies", lambda: ProxyAnchor().build(8, 7)
    ),
    "soft_triple, tau 0": ProxyCase(
        lambda: losses.SoftTripleLoss(7, 8, 3), "fc", lambda: SoftTriple(centres_per_class=3, tau=0.0).build(8, 7), 3
    ),
    "soft_triple": ProxyCase(build_soft_triple, "fc", lambda: SoftTriple(centres_per_class=3).build(8, 7), 3),
}


@pytest.mark.parametrize("case", PROXY_CASES.values(), ids=PROXY_CASES)
@pytest.mark.parametrize("sign", [1, -1], ids=["near", "opposite"])
@EACH_TYPE
@EACH_SEED
def test_losses_with_centres_are_those_of_the_library(
    case: ProxyCase, sign: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (16,), generator=generator)  # of seven classes: two at least are not there
    centres = torch.randn(7 * case.centres_per_class, 8, generator=generator, dtype=torch.float64).to(dtype)
    noise = torch.randn(16, 8, generator=generator, dtype=torch.float64).to(dtype)
    rows = sign * centres[labels * case.centres_per_class] + noise
    theirs, ours = case.theirs(), case.ours()
    held = getattr(theirs, case.centres)
    held.data = (centres if case.centres == "proxies" else centres.T).clone()
    ours.centres.data = centres.view_as(ours.centres).clone()
    assert_equal(lambda leaf: theirs(leaf, labels), lambda leaf: ours(unit(leaf), labels), rows)
    expected = held.grad if case.centres == "proxies" else held.grad.T
    assert_close(ours.centres.grad.view_as(expected), expected)


def remember(loss: nn.Module, miner: nn.Module | None = None) -> Loss:
    return losses.CrossBatchMemory(loss, 8, 20, miner)


MEMORY_CASES = {
    "multi_similarity": (lambda: remember(losses.MultiSimilarityLoss()), MultiSimilarity()),
    "triplet": (lambda: remember(triplet()), Triplet(margin=0.3)),
    "contrastive": (
        lambda: by_anchors(remember(losses.ContrastiveLoss(0.9, 0.2, distance=COSINE, reducer=SUM()))),
        Contrastive(positive_margin=0.9, negative_margin=0.2),
    ),
    "nt_xent": (lambda: remember(losses.NTXentLoss(0.1)), NTXent(temperature=0.1)),
    "sup_con": (lambda: remember(losses.SupConLoss(0.1, reducer=MEAN())), SupCon(temperature=0.1)),
    "circle": (lambda: remember(losses.CircleLoss(reducer=MEAN())), Circle()),
}


def compare_step(theirs: Loss, ours: CrossBatchMemory, rows: Tensor, labels: Tensor) -> None:
    """The library's memory is our memory's term, without the batch's own."""
    assert_equal(
        lambda leaf: theirs(leaf, labels),
        lambda leaf: ours(unit(leaf), labels) - ours.loss(unit(leaf), labels),
        rows,
    )


@pytest.mark.parametrize(("build", "loss"), MEMORY_CASES.values(), ids=MEMORY_CASES)
@EACH_TYPE
def test_the_memory_is_that_of_the_library(build: Callable[[], Loss], loss: PairLoss, dtype: torch.dtype) -> None:
    theirs = build()
    ours = CrossBatchMemory(PairModule(loss), rows=20, embedding_dim=8, start_step=0).to(dtype)
    for step in range(6):  # of 8 rows: the ring goes around twice
        rows, _ = draw("uneven", step, dtype)
        labels = torch.randint(12, (8,), generator=torch.Generator().manual_seed(step))
        compare_step(theirs, ours, rows[:8], labels)


@EACH_TYPE
def test_the_mined_memory_is_that_of_the_library_where_every_anchor_has_positives(dtype: torch.dtype) -> None:
    theirs = remember(losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner(0.1))
    loss = PairModule(MultiSimilarity(), MultiSimilarityMining(epsilon=0.1))
    ours = CrossBatchMemory(loss, rows=20, embedding_dim=8, start_step=0).to(dtype)
    for step in range(6):
        rows, labels = draw("even", step, dtype)
        compare_step(theirs, ours, rows[:8], labels[:8] + step % 3)
