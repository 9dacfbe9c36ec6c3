import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.losses.build import build_metric_loss
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import diagnose_pairs
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.quadruplet import Quadruplet

LOSS = Quadruplet(margin=0.3, other_margin=0.15)


def draw(rows: int = 19, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64), dim=1)
    return embeddings, (torch.rand(rows, generator=generator) ** 2 * classes).long()


def by_loops(
    similarities: list[list[float]], classes: list[int], others: list[int], own: list[int], loss: Quadruplet
) -> float:
    """Over every positive pair and, for the second term, every pair of two other classes."""
    total, count = 0.0, 0
    for i, mine in enumerate(classes):
        negatives = [s for s, theirs in zip(similarities[i], others, strict=True) if theirs != mine]
        elsewhere = [
            similarities[row][column]
            for row, of_row in enumerate(classes)
            for column, of_column in enumerate(others)
            if of_row != of_column and mine not in (of_row, of_column)
        ]
        for j, theirs in enumerate(others):
            if theirs == mine and j != own[i]:
                s = similarities[i][j]
                total += max(0.0, max(negatives, default=-math.inf) - s + loss.margin)
                total += max(0.0, max(elsewhere, default=-math.inf) - s + loss.other_margin)
                count += 1
    return total / max(1, count)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("block_rows", [None, 1, 7])
def test_equals_loops_from_the_definition(seed: int, classes: int, block_rows: int | None) -> None:
    embeddings, labels = draw(classes=classes, seed=seed)
    expected = by_loops((embeddings @ embeddings.T).tolist(), *[labels.tolist()] * 2, list(range(19)), LOSS)
    value = compute_pair_loss(Comparison(embeddings, labels), LOSS, block_rows=block_rows)
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_references_are_paired_with_anchors(seed: int) -> None:
    (embeddings, labels), (references, others) = draw(9, seed=seed), draw(13, seed=seed + 9)
    own = torch.full((9,), -1)
    references[4], others[4], own[2] = embeddings[2], labels[2], 4
    expected = by_loops((embeddings @ references.T).tolist(), labels.tolist(), others.tolist(), own.tolist(), LOSS)
    value = compute_pair_loss(Comparison(embeddings, labels, references, others, own), LOSS)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_without_the_second_term_it_is_the_max_of_hinges_of_each_positive_pair() -> None:
    embeddings, labels = draw()
    batch = Comparison(embeddings, labels)
    pairs = (labels[:, None] == labels).sum() - len(labels)
    alone = compute_pair_loss(batch, Quadruplet(margin=0.3, other_margin=-9.0))
    torch.testing.assert_close(alone, compute_pair_loss(batch, MaxOfHinges(margin=0.3)) * len(labels) / pairs)
    two_classes = Comparison(embeddings, labels % 2)  # there is no third, so no pair of others
    torch.testing.assert_close(
        compute_pair_loss(two_classes, LOSS), compute_pair_loss(two_classes, Quadruplet(margin=0.3, other_margin=-9.0))
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_gradients_are_those_of_the_value_and_reach_the_pair_of_others(classes: int) -> None:
    embeddings, labels = draw(12, classes, seed=3)
    leaf = embeddings.requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: compute_pair_loss(Comparison(rows, labels), LOSS), (leaf,))
    references, others = draw(9, classes, seed=4)
    assert torch.autograd.gradcheck(
        lambda rows, theirs: compute_pair_loss(Comparison(rows, labels, theirs, others), LOSS),
        (leaf, references.requires_grad_()),
    )
    # An anchor alone in its class has no pair of its own with a loss, and is pushed from the pair of others.
    rows = functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.1, 1.0], [0.0, 1.0]]), dim=1).requires_grad_()
    loss = Quadruplet(margin=-9.0, other_margin=0.5)
    compute_pair_loss(Comparison(rows, torch.tensor([0, 0, 1, 2])), loss).backward()
    assert rows.grad is not None
    assert (rows.grad.norm(dim=1) > 0).all()


@pytest.mark.parametrize("labels", [[0], [0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 1, 2]])
@pytest.mark.parametrize("identical", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extremes_are_finite(labels: list[int], identical: bool, dtype: torch.dtype) -> None:
    count = len(labels)
    rows = (
        torch.eye(4)[:1].repeat(count, 1)
        if identical
        else torch.eye(4)[:count] * torch.tensor([1, -1, 1, 1])[:count, None]
    )
    leaf = rows.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = compute_pair_loss(Comparison(leaf, torch.tensor(labels)), LOSS)
    value.backward()
    similarities = (rows @ rows.T).tolist()
    assert value.item() == pytest.approx(by_loops(similarities, labels, labels, list(range(count)), LOSS), abs=1e-5)
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_it_takes_a_mining_a_memory_and_a_diagnosis() -> None:
    embeddings, labels = draw()
    module = build_metric_loss(LOSS, mining="auto", memory_rows=40, memory_start_step=0, embedding_dim=5, class_count=5)
    for step in range(3):
        rows, classes = draw(seed=step)
        assert module(rows.float(), classes).isfinite()
    seen = diagnose_pairs(Comparison(embeddings, labels), LOSS)
    assert 0 < seen.active_share <= 1
