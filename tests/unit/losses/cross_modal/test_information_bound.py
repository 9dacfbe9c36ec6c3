"""The bound that InfoNCE gives on the mutual information."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.information import compute_information_bound


def draw(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, 16, generator=generator, dtype=torch.float64), dim=1)


def test_with_one_title_an_image_it_is_log_n_minus_cross_entropy() -> None:
    images, titles, order = draw(9, 0), draw(9, 1), torch.arange(9)
    logits = images @ titles.T / 0.2
    losses = [functional.cross_entropy(table, order) for table in (logits, logits.T)]
    expected = math.log(9) - float(sum(losses)) / 2
    found = compute_information_bound(CrossModalBatch(images, titles, order, order), temperature=0.2)
    assert found.item() == pytest.approx(expected)
    assert not found.requires_grad


def test_several_positives_are_looked_at_one_by_one_among_the_anchors_negatives() -> None:
    images, titles = draw(5, 0), draw(7, 1)
    of_images, of_titles = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([0, 1, 1, 1, 2, 2, 9])
    ways = []
    for s, anchors, others in (
        (images @ titles.T, of_images, of_titles),
        (titles @ images.T, of_titles, of_images),
    ):
        gaps = []
        for row, group in zip(s, anchors, strict=True):
            negatives = row[others != group]
            for positive in row[others == group]:
                candidates = torch.cat([positive[None], negatives]) / 0.1
                gaps.append(math.log(len(candidates)) - float(candidates.logsumexp(0) - candidates[0]))
        ways.append(sum(gaps) / len(gaps))
    found = compute_information_bound(CrossModalBatch(images, titles, of_images, of_titles), temperature=0.1)
    assert found.item() == pytest.approx(sum(ways) / 2)


def test_it_never_passes_log_n_and_is_about_nothing_for_towers_that_know_nothing() -> None:
    rows, order = draw(256, 0), torch.arange(256)
    perfect = compute_information_bound(CrossModalBatch(rows, rows, order, order), temperature=0.02)
    assert 0.99 * math.log(256) < perfect.item() <= math.log(256)
    ignorant = compute_information_bound(CrossModalBatch(rows, draw(256, 1), order, order), temperature=1.0)
    assert abs(ignorant.item()) < 0.1


def test_without_a_positive_pair_it_is_0() -> None:
    batch = CrossModalBatch(draw(3, 0), draw(3, 1), torch.arange(3), torch.arange(3) + 3)
    assert compute_information_bound(batch) == 0
