"""Both directions of a comparison in one call, as image to text and text to image (VSE++)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import TrainingError
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.mining import HardestMining
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import Mining, PairWeighting
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.quadruplet import Quadruplet
from productrec.losses.pair.sum_of_hinges import SumOfHinges

# Margins so wide that an image as its own positive would have a loss.
LOSSES = {
    "max": MaxOfHinges(margin=1.2),
    "sum": SumOfHinges(margin=1.2),
    "nt_xent": NTXent(temperature=0.2),
    "contrastive": Contrastive(positive_margin=1.2, negative_margin=0.1),  # both ways are one
}


def draw(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, 4, generator=generator, dtype=torch.float64), dim=1)


def test_image_to_text_and_text_to_image_by_hand() -> None:
    # s of three images (rows) and their texts (columns).
    s = torch.tensor([[0.5, 0.4, 0.0], [0.6, 0.9, 0.1], [0.2, 0.7, 0.8]], dtype=torch.float64)
    labels = torch.arange(3)
    images, texts = s, torch.eye(3, dtype=torch.float64)
    batch = Comparison(images, labels, texts, labels)
    # Images: 0.4 - 0.5, 0.6 - 0.9, 0.7 - 0.8; texts: 0.6 - 0.5, 0.7 - 0.9, 0.1 - 0.8; each plus 0.2.
    hardest = (0.1 + 0.0 + 0.1) / 3 + (0.3 + 0.0 + 0.0) / 3
    assert compute_pair_loss(batch, MaxOfHinges(), both_ways=True).item() == pytest.approx(hardest)
    # And the others that lie within the margin: none of the images', none of the texts'.
    assert compute_pair_loss(batch, SumOfHinges(), both_ways=True).item() == pytest.approx(hardest)
    assert compute_pair_loss(batch, SumOfHinges(margin=0.5), both_ways=True).item() == pytest.approx(
        ((0.4 + 0.0) + (0.2 + 0.0) + (0.0 + 0.4)) / 3 + ((0.6 + 0.2) + (0.0 + 0.3) + (0.0 + 0.0)) / 3
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("mining", [None, HardestMining()])
@pytest.mark.parametrize(("count", "block_rows"), [(9, None), (200, None), (200, 37)])
def test_equals_two_calls(loss: PairWeighting, mining: Mining | None, count: int, block_rows: int | None) -> None:
    images, texts = draw(count, 0), draw(count + 3, 1)
    of_images, of_texts = torch.arange(count) // 3, torch.arange(count + 3) // 3

    def both(left: Tensor, right: Tensor) -> Tensor:
        batch = Comparison(left, of_images, right, of_texts)
        return compute_pair_loss(batch, loss, mining=mining, both_ways=True, block_rows=block_rows)

    def apart(left: Tensor, right: Tensor) -> Tensor:
        there = compute_pair_loss(Comparison(left, of_images, right, of_texts), loss, mining=mining)
        return there + compute_pair_loss(Comparison(right, of_texts, left, of_images), loss, mining=mining)

    leaves = [images.requires_grad_(), texts.requires_grad_()]
    torch.testing.assert_close(both(*leaves), apart(*leaves), rtol=1e-12, atol=0)
    for mine, expected in zip(
        torch.autograd.grad(both(*leaves), leaves), torch.autograd.grad(apart(*leaves), leaves), strict=True
    ):
        torch.testing.assert_close(mine, expected)
    if count < 20 and mining is None:
        assert torch.autograd.gradcheck(both, leaves)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_row_meets_itself_in_either_direction(loss: PairWeighting) -> None:
    rows, labels = draw(9, 0), torch.arange(9) // 3
    others, classes = draw(4, 1), torch.tensor([0, 1, 2, 2])
    # Anchors 5, 0 and 7 of the rows; the references are the rows and four others, moved by two places.
    chosen = torch.tensor([5, 0, 7])
    references, of_references = torch.cat([others[:2], rows, others[2:]]), torch.cat([classes[:2], labels, classes[2:]])
    stranger = draw(1, 3)
    anchors, of_anchors = torch.cat([rows[chosen], stranger]), torch.cat([labels[chosen], torch.tensor([1])])
    batch = Comparison(anchors, of_anchors, references, of_references, torch.cat([chosen + 2, torch.tensor([-1])]))
    swapped = batch.swap()
    assert swapped.own_rows is not None
    assert swapped.own_rows.tolist() == [-1, -1, 1, -1, -1, -1, -1, 0, -1, 2, -1, -1, -1]
    again = swapped.swap()
    assert again.own_rows is not None
    assert again.own_rows.tolist() == [7, 2, 9, -1]

    def single(row: int) -> tuple[float, float]:
        """A reference's loss and its count by a comparison without its own row at all."""
        left = [place for place in range(4) if swapped.own_rows[row] != place]
        few = Comparison(references[row : row + 1], of_references[row : row + 1], anchors[left], of_anchors[left])
        positives = int((of_anchors[left] == of_references[row]).sum())
        weight = positives if isinstance(loss, NTXent) else 1
        return compute_pair_loss(few, loss).item() * weight, weight

    losses, weights = zip(*(single(row) for row in range(13)), strict=True)
    there = compute_pair_loss(batch, loss).item()
    assert compute_pair_loss(batch, loss, both_ways=True).item() == pytest.approx(there + sum(losses) / sum(weights))
    unguarded = Comparison(references, of_references, anchors, of_anchors)
    assert compute_pair_loss(unguarded, loss).item() != pytest.approx(sum(losses) / sum(weights))


def test_what_has_no_other_way_is_refused() -> None:
    rows, labels = draw(6, 0), torch.arange(6) // 2
    with pytest.raises(TrainingError, match="both ways must have references"):
        compute_pair_loss(Comparison(rows, labels), MaxOfHinges(), both_ways=True)
    twice = Comparison(rows, labels, rows, labels, torch.tensor([0, 0, 2, 3, 4, -1]))
    with pytest.raises(TrainingError, match="two have the same"):
        twice.swap()


def test_a_loss_that_finds_thresholds_in_the_batch_has_both_ways_too() -> None:
    images, texts, labels = draw(9, 0).requires_grad_(), draw(9, 1).requires_grad_(), torch.arange(9) // 3
    batch = Comparison(images, labels, texts, labels)
    both = compute_pair_loss(batch, Quadruplet(), both_ways=True)
    apart = compute_pair_loss(batch, Quadruplet()) + compute_pair_loss(batch.swap(), Quadruplet())
    for mine, expected in zip(
        torch.autograd.grad(both, [images, texts]), torch.autograd.grad(apart, [images, texts]), strict=True
    ):
        torch.testing.assert_close(mine, expected)


def test_what_is_not_finite_in_either_is_told() -> None:
    rows, labels = draw(6, 0), torch.arange(6) // 2
    spoilt = rows.clone()
    spoilt[4, 1] = torch.nan
    for batch, name in (
        (Comparison(spoilt, labels, rows, labels), "embeddings"),
        (Comparison(rows, labels, spoilt, labels), "references"),
    ):
        with pytest.raises(TrainingError, match=rf"{name} must be finite; got NaN or infinity in 1 of 6 rows \(4\)"):
            compute_pair_loss(batch, NTXent(), both_ways=True)


def test_a_second_derivative_of_both_ways_is_refused() -> None:
    rows, labels = draw(6, 0).requires_grad_(), torch.arange(6) // 2
    value = compute_pair_loss(Comparison(rows, labels, draw(6, 1), labels), NTXent(), both_ways=True)
    (slope,) = torch.autograd.grad(value, rows, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        slope.sum().backward()
