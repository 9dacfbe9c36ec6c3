"""Images against titles, by loops written from the papers' equations, in float64."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.declared import PairLoss
from productrec.losses.engine.mining import HardestMining, MiningRule, MultiSimilarityMining
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.n_pair import NPair
from productrec.losses.pair.norm_of_hinges import NormOfHinges
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.pair_logistic import PairLogistic
from productrec.losses.pair.sum_of_hinges import SumOfHinges

SEEDS = st.integers(0, 2**31 - 1)
MARGIN = 0.2


def draw(seed: int, images: int, titles: int, groups: int, dim: int = 4, distinct: int = 99) -> CrossModalBatch:
    """Unit rows of which at most ``distinct`` differ; some groups have several titles or images, some lack a side."""
    generator = torch.Generator().manual_seed(seed)
    pool = functional.normalize(torch.randn(distinct, dim, generator=generator, dtype=torch.float64), dim=1)
    rows = pool[torch.randint(distinct, (images + titles,), generator=generator)]
    numbers = 7 * torch.randint(groups, (images + titles,), generator=generator) - 3
    return CrossModalBatch(rows[:images], rows[images:], numbers[:images], numbers[images:])


def vse_by_loops(batch: CrossModalBatch, *, hardest: bool) -> float:
    """Equations (5) and (6) of Faghri et al.: for each pair (i, c), over titles that are not of i and images not of c.

    The paper's mean is over pairs of one title each, so each of the two halves is a mean over its anchors here.
    """
    s = (batch.images @ batch.titles.T).tolist()
    of_images, of_titles = batch.image_groups.tolist(), batch.title_groups.tolist()
    images, titles = range(len(of_images)), range(len(of_titles))
    over_titles = over_images = 0.0
    for i, c in product(images, titles):
        if of_images[i] != of_titles[c]:
            continue
        wrong_titles = [max(0.0, MARGIN + s[i][k] - s[i][c]) for k in titles if of_titles[k] != of_images[i]]
        wrong_images = [max(0.0, MARGIN + s[k][c] - s[i][c]) for k in images if of_images[k] != of_titles[c]]
        over_titles += max(wrong_titles, default=0.0) if hardest else sum(wrong_titles)
        over_images += max(wrong_images, default=0.0) if hardest else sum(wrong_images)
    return over_titles / len(of_images) + over_images / len(of_titles)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, images=st.integers(1, 9), titles=st.integers(1, 9), groups=st.integers(1, 5), hardest=st.booleans())
def test_vse_of_both_directions(seed: int, images: int, titles: int, groups: int, hardest: bool) -> None:
    batch = draw(seed, images, titles, groups, distinct=6)
    loss = MaxOfHinges(margin=MARGIN) if hardest else SumOfHinges(margin=MARGIN)
    expected = vse_by_loops(batch, hardest=hardest)
    assert CrossModalLoss(loss).compare(batch).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for block_rows in (1, 4):
        parts = compute_pair_loss(batch.compare(), loss, both_ways=True, block_rows=block_rows)
        assert parts.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    single = CrossModalLoss(loss)(batch.images.float(), batch.titles.float(), batch.image_groups, batch.title_groups)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_with_one_title_an_image_it_is_the_papers_mean_over_pairs() -> None:
    batch = draw(3, 8, 8, 1)
    batch = CrossModalBatch(batch.images, batch.titles, torch.arange(8), torch.arange(8))
    s = batch.images @ batch.titles.T
    total = 0.0
    for i in range(8):
        others = [k for k in range(8) if k != i]
        total += max(max(0.0, MARGIN - float(s[i, i]) + float(s[i, k])) for k in others)
        total += max(max(0.0, MARGIN - float(s[i, i]) + float(s[k, i])) for k in others)
    assert CrossModalLoss(MaxOfHinges()).compare(batch).item() == pytest.approx(total / 8)


def test_the_loops_notice_equal_titles_that_count_as_wrong() -> None:
    batch = draw(5, 8, 8, 3)
    apart = CrossModalBatch(batch.images, batch.titles, torch.arange(8), torch.arange(8))
    for hardest, loss in ((True, MaxOfHinges(margin=MARGIN)), (False, SumOfHinges(margin=MARGIN))):
        expected = vse_by_loops(batch, hardest=hardest)
        assert CrossModalLoss(loss).compare(apart).item() != pytest.approx(expected, rel=1e-3)


Anchor = Callable[[list[float], list[float]], tuple[float, int]]


def nt_xent(p: list[float], n: list[float]) -> tuple[float, int]:
    return -sum(math.log(math.exp(a / 0.1) / (math.exp(a / 0.1) + sum(math.exp(b / 0.1) for b in n))) for a in p), len(
        p
    )


def n_pair(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(math.log(1 + sum(math.exp(b - a) for b in n)) for a in p), len(p)


def sigmoid(p: list[float], n: list[float]) -> tuple[float, int]:
    """Zhai et al.: minus the log of a sigmoid of z (t s + b), z = 1 for a pair that belongs together, else -1."""
    return sum(math.log(1 + math.exp(-(10 * s - 10))) for s in p) + sum(
        math.log(1 + math.exp(10 * s - 10)) for s in n
    ), 1


def multi_similarity(p: list[float], n: list[float]) -> tuple[float, int]:
    near = [s for s in p if n and s < max(n) + 0.1]  # (12)
    far = [s for s in n if p and s > min(p) - 0.1]  # (11)
    pulled = math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in near)) / 2  # (15)
    return pulled + math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in far)) / 50, 1


def circle(p: list[float], n: list[float]) -> tuple[float, int]:
    pushed = sum(math.exp(20 * max(0, s + 0.3) * (s - 0.3)) for s in n)
    return math.log(1 + pushed * sum(math.exp(-20 * max(0, 1.3 - s) * (s - 0.7)) for s in p)), 1


def norm_of_hinges(p: list[float], n: list[float]) -> tuple[float, int]:
    return sum(sum(max(0, b - a + 0.2) ** 4 for b in n) ** 0.25 for a in p), 1


def hardest_triplet(p: list[float], n: list[float]) -> tuple[float, int]:
    return max(0, max(n) - min(p) + 0.2) if p and n else 0.0, 1


CASES: dict[str, tuple[PairLoss, MiningRule | None, Anchor]] = {
    "nt_xent": (NTXent(temperature=0.1), None, nt_xent),
    "nt_xent, learned": (NTXent(temperature=0.1, learn_temperature=True), None, nt_xent),
    "n_pair": (NPair(), None, n_pair),
    "sigmoid": (PairLogistic(), None, sigmoid),
    "sigmoid, fixed": (PairLogistic(learned=False), None, sigmoid),
    "multi_similarity": (MultiSimilarity(), MultiSimilarityMining(), multi_similarity),
    "circle": (Circle(margin=0.3, gamma=20.0), None, circle),
    "norm_of_hinges": (NormOfHinges(temperature=0.25), None, norm_of_hinges),
    "hard sampling": (SumOfHinges(), HardestMining(), hardest_triplet),
}


def by_loops(batch: CrossModalBatch, anchor_loss: Anchor) -> float:
    found = 0.0
    s = batch.images @ batch.titles.T
    for table, anchors, others in (
        (s.tolist(), batch.image_groups.tolist(), batch.title_groups.tolist()),
        (s.T.tolist(), batch.title_groups.tolist(), batch.image_groups.tolist()),
    ):
        total, count = 0.0, 0
        for row, group in zip(table, anchors, strict=True):
            positives = [value for value, other in zip(row, others, strict=True) if other == group]
            negatives = [value for value, other in zip(row, others, strict=True) if other != group]
            value, weight = anchor_loss(positives, negatives)
            total, count = total + value, count + weight
        found += total / max(1, count)
    return found


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, images=st.integers(1, 9), titles=st.integers(1, 9), groups=st.integers(1, 5))
def test_every_loss_across_modalities(name: str, seed: int, images: int, titles: int, groups: int) -> None:
    loss, mining, anchor_loss = CASES[name]
    batch = draw(seed, images, titles, groups)
    expected = by_loops(batch, anchor_loss)
    found = CrossModalLoss(loss, mining).double().compare(batch).item()
    tolerance = 1e-6 if "learned" in name or name == "sigmoid" else 1e-9  # log 10 was rounded to float32
    assert found == pytest.approx(expected, rel=tolerance, abs=1e-9)


SMOOTH = {name: case for name, case in CASES.items() if name not in ("circle", "hard sampling")}
SMOOTH |= {"sum": (SumOfHinges(), None, n_pair), "max": (MaxOfHinges(), None, n_pair)}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_those_of_the_value(name: str) -> None:
    loss, mining, _ = SMOOTH[name]
    batch = draw(11, 7, 9, 4, distinct=9999)  # where two rows coincide, the hardest has no derivative
    module = CrossModalLoss(loss, mining).double()
    module.eval()  # a learned temperature is not brought back while it is varied

    def compute(images: Tensor, titles: Tensor, *_: Tensor) -> Tensor:
        return module.compare(CrossModalBatch(unit(images), unit(titles), batch.image_groups, batch.title_groups))

    def unit(rows: Tensor) -> Tensor:
        return functional.normalize(rows, dim=1)

    leaves = (batch.images.requires_grad_(), batch.titles.requires_grad_(), *module.parameters())
    assert torch.autograd.gradcheck(compute, leaves)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_several_blocks_and_float32(name: str) -> None:
    """Beyond a block of a CPU the directions are computed one after the other."""
    loss, mining, _ = CASES[name]
    batch = draw(1, 1100, 1000, 300, dim=8)
    module = CrossModalLoss(loss, mining)
    values, gradients = [], []
    for images, titles in ((batch.images, batch.titles), (batch.images.float(), batch.titles.float())):
        leaves = [images.detach().requires_grad_(), titles.detach().requires_grad_()]
        value = module(*leaves, batch.image_groups, batch.title_groups)
        gradients.append(torch.autograd.grad(value, leaves))
        values.append(value.item())
    comparison = batch.compare()
    whole = module.pairs.compare(comparison) + module.pairs.compare(comparison.swap())
    assert values[0] == pytest.approx(whole.item(), rel=1e-9)
    assert values[1] == pytest.approx(values[0], rel=1e-3)
    if mining is None:  # mining may choose others within rounding
        for exact, rounded in zip(*gradients, strict=True):
            torch.testing.assert_close(rounded.double(), exact, rtol=0.01, atol=2e-4 * float(exact.abs().max()))
