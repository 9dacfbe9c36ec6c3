"""Images against titles: who is whose positive, what an anchor without any does, and what is refused."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.catalogue import list_losses
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.declared import PairLoss, RelatedPairLoss
from productrec.losses.engine.mining import (
    MINING_RULES,
    BandMining,
    DistanceWeightedMining,
    HardestMining,
    MiningRule,
    MultiSimilarityMining,
)
from productrec.losses.own_loss import OwnLoss
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.margin import Margin
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.original_lifted_structure import OriginalLiftedStructure
from productrec.losses.pair.pair_logistic import PairLogistic
from productrec.losses.pair.sum_of_hinges import SumOfHinges

PAIR_LOSSES = {
    name: Margin(beta_of="all") if name == "margin" else loss()
    for name, loss in list_losses().items()
    if issubclass(loss, PairLoss) and not issubclass(loss, RelatedPairLoss)
}

RULES = {"band": BandMining(low=-0.1, high=0.2)}  # by default it keeps all


def draw(rows: int, seed: int = 0, dim: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=generator), dim=1)


@pytest.mark.parametrize("loss", PAIR_LOSSES.values(), ids=PAIR_LOSSES)
def test_every_loss_over_pairs_teaches_both_towers(loss: PairLoss) -> None:
    images, titles = draw(12).requires_grad_(), draw(15, 1).requires_grad_()
    module = CrossModalLoss(loss)
    value = module(images, titles, torch.arange(12) // 2, torch.arange(15) // 3)
    assert value.shape == () and value.isfinite()
    value.backward()
    for rows in (images, titles):
        assert rows.grad is not None
        assert rows.grad.isfinite().all() and rows.grad.abs().sum() > 0
    for parameter in module.parameters():
        assert parameter.grad is not None


@pytest.mark.parametrize("loss", PAIR_LOSSES.values(), ids=PAIR_LOSSES)
def test_exchanging_the_modalities_changes_nothing(loss: PairLoss) -> None:
    images, titles = draw(12), draw(15, 1)
    module = CrossModalLoss(loss)
    there = module(images, titles, torch.arange(12) // 2, torch.arange(15) // 3)
    back = module(titles, images, torch.arange(15) // 3, torch.arange(12) // 2)
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-5)


def test_images_are_not_compared_with_images() -> None:
    """All images are one point, of different groups: between images that would be the hardest negative there is."""
    images = draw(1).expand(4, -1)
    titles = functional.normalize(draw(4, 1) + 9 * images[:1], dim=1)
    far = CrossModalLoss(SumOfHinges(margin=-3.0))  # no pair of an image and a title has a loss
    assert far(images, titles, torch.arange(4), torch.arange(4)) == 0
    only = torch.eye(4).roll(1, 0)
    value = CrossModalLoss(Contrastive(positive_margin=0.0, negative_margin=0.5))(
        torch.eye(4)[:1].expand(4, -1), only, torch.arange(4), torch.arange(4)
    )
    assert value == 2 * 3 / 4 * 0.5 + 0.0  # one title coincides with the four images: three pairs, in both directions


def test_equal_titles_are_positives_and_an_image_may_have_several() -> None:
    images, titles = draw(3), draw(1, 1).expand(3, -1)
    apart, together = torch.arange(3), torch.zeros(3, dtype=torch.int64)
    hinges = CrossModalLoss(MaxOfHinges())
    assert hinges(images, titles, together, together) == 0  # nothing is a negative
    assert hinges(images, titles, apart, apart) > 0


@pytest.mark.parametrize("loss", [MaxOfHinges(), SumOfHinges(), NTXent(), PAIR_LOSSES["circle"]])
def test_an_anchor_without_a_positive_counts_and_has_no_loss(loss: PairLoss) -> None:
    images, titles, groups = draw(4), draw(4, 1), torch.arange(4)
    lonely = torch.tensor([0, 1, 2, 9])  # the last image has no title, the last title no image
    value = CrossModalLoss(loss)(images, titles, lonely, groups)
    ways = 0.0
    for anchors, others, of_anchors, of_others in ((images, titles, lonely, groups), (titles, images, groups, lonely)):
        for row in range(3):
            positive = (anchors[row] @ others[row])[None, None]
            negatives = (others[of_others != of_anchors[row]] @ anchors[row])[None]
            computed = loss.compute(positive, negatives)
            ways += float(computed[0] if isinstance(computed, tuple) else computed) / (
                3 if isinstance(loss, NTXent) else 4
            )
    assert value.item() == pytest.approx(ways, rel=1e-5)


def test_what_pushes_every_negative_pushes_those_of_a_lonely_anchor_too() -> None:
    images, titles = draw(3), draw(4, 1)
    of_images, of_titles = torch.tensor([1, 2, 3]), torch.tensor([5, 6, 7, 8])
    for loss in (MultiSimilarity(), PairLogistic()):
        assert CrossModalLoss(loss)(images, titles, of_images, of_titles) > 0
    mined = CrossModalLoss(MultiSimilarity(), MultiSimilarityMining())
    assert mined(images, titles, of_images, of_titles) == 0


def test_a_side_without_rows_is_no_loss_with_a_graph() -> None:
    module = CrossModalLoss(MaxOfHinges())
    images, none = draw(3).requires_grad_(), draw(0).requires_grad_()
    for left, right in ((images, none), (none, images)):
        value = module(left, right, torch.arange(len(left)), torch.arange(len(right)))
        assert value == 0
        value.backward()
    assert images.grad is not None
    assert images.grad.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    images, titles, groups = draw(6).to(dtype).requires_grad_(), draw(6, 1).to(dtype).requires_grad_(), torch.arange(6)
    for loss in (MaxOfHinges(), NTXent(learn_temperature=True), PairLogistic()):
        value = CrossModalLoss(loss)(images, titles, groups, groups)
        assert value.dtype == torch.float32
        exact = CrossModalLoss(loss)(images.float(), titles.float(), groups, groups)
        torch.testing.assert_close(value, exact)
        value.backward()
        assert images.grad is not None
        assert images.grad.dtype == dtype


def test_extremes_stay_finite() -> None:
    point = draw(1)
    for loss in PAIR_LOSSES.values():
        for titles in (point.expand(6, -1), -point.expand(6, -1)):  # all alike, or all opposite
            for groups in (torch.arange(6), torch.zeros(6, dtype=torch.int64)):  # every negative, or none
                images = point.expand(6, -1).clone().requires_grad_()
                value = CrossModalLoss(loss)(images, titles.contiguous(), groups, groups)
                value.backward()
                assert value.isfinite() and images.grad is not None and images.grad.isfinite().all(), loss


@pytest.mark.parametrize("rule", [RULES.get(name, rule()) for name, rule in MINING_RULES.items()], ids=MINING_RULES)
def test_every_mining_chooses_among_the_other_modality(rule: MiningRule) -> None:
    images, titles = draw(40, dim=16).requires_grad_(), draw(50, 1, dim=16).requires_grad_()
    torch.manual_seed(0)
    module = CrossModalLoss(Contrastive(negative_margin=-1.0), rule.for_dimensions(16))
    groups = torch.arange(50) // 5
    value = module(images, titles, groups[:40], groups)
    value.backward()
    everything = CrossModalLoss(Contrastive(negative_margin=-1.0))(images, titles, groups[:40], groups)
    assert 0.0 < value.item() < everything.item()


def test_weighted_sampling_draws_as_many_negatives_as_positives_near_ones_oftener() -> None:
    """One image among titles at three distances, of which the near ones are few."""
    angles = torch.tensor([0.0, 0.6, *[1.3] * 40, *[3.0] * 5], dtype=torch.float64)
    titles = torch.stack([angles.cos(), angles.sin(), *[torch.zeros(len(angles))] * 6], dim=1)
    image = torch.eye(8, dtype=torch.float64)[:1]
    groups = torch.arange(len(angles))
    rule = DistanceWeightedMining().for_dimensions(8)
    torch.manual_seed(0)
    drawn = torch.zeros(len(angles))
    for _ in range(300):
        positives = torch.ones(1, 1, dtype=torch.float64)
        negatives = (image @ titles.T).clone()
        negatives[0, 0] = -torch.inf
        rule.drop(positives, negatives)
        assert (negatives > -torch.inf).sum() == 1
        drawn += (negatives > -torch.inf)[0]
    assert drawn[-5:].sum() == 0  # beyond the farthest distance
    assert drawn[1] > 5 * drawn[2:42].mean()
    leaf = titles.clone().requires_grad_()
    CrossModalLoss(Contrastive(negative_margin=-1.0), rule)(image, leaf, groups[:1], groups).backward()
    assert leaf.grad is not None


def test_hard_sampling_takes_the_hardest_pair_of_each_anchor_alone() -> None:
    images, titles, groups = draw(9), draw(9, 1), torch.arange(9) // 3
    s = images @ titles.T
    same = groups[:, None] == groups
    expected = 0.0
    for table, alike in ((s, same), (s.T, same.T)):
        hardest = table.masked_fill(alike, -9).amax(dim=1) - table.masked_fill(~alike, 9).amin(dim=1)
        expected += float((hardest + 0.2).clamp(min=0).mean())
    value = CrossModalLoss(SumOfHinges(), HardestMining())(images, titles, groups, groups)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_losses_that_have_no_two_directions_are_refused() -> None:
    with pytest.raises(RecipeError, match="original_lifted_structure: compares a batch with itself only"):
        CrossModalLoss(OriginalLiftedStructure())
    with pytest.raises(RecipeError, match="margin: learns a number for each class"):
        CrossModalLoss(Margin())


def test_a_loss_of_ones_own_is_one_too() -> None:
    loss = OwnLoss(path="productrec.losses.pair.max_of_hinges:MaxOfHinges", margin=0.4).load(allow_code=False)
    assert isinstance(loss, PairLoss)
    images, titles, groups = draw(5), draw(5, 1), torch.arange(5)
    expected = CrossModalLoss(MaxOfHinges(margin=0.4))(images, titles, groups, groups)
    assert CrossModalLoss(loss)(images, titles, groups, groups) == expected


FIVE, SIX = torch.arange(5), torch.arange(6)


@pytest.mark.parametrize(
    ("images", "titles", "image_groups", "title_groups", "message"),
    [
        (draw(5)[0], draw(6), FIVE, SIX, r"images: embeddings must be a floating-point matrix .* shape \(8,\)"),
        (draw(5), draw(6).int(), FIVE, SIX, r"titles: embeddings must be a floating-point matrix .* torch.int32"),
        (draw(5), draw(6), FIVE, FIVE, r"titles: groups must be one integer per row, shape \(6,\); got .* \(5,\)"),
        (draw(5), draw(6), FIVE.float(), SIX, r"images: groups must be one integer per row.*torch.float32"),
        (draw(5), draw(6), FIVE, SIX > 2, r"titles: groups must be one integer per row.*torch.bool"),
        (draw(5), draw(6, dim=7), FIVE, SIX, "must have as many dimensions; got 8 and 7"),
        (
            draw(5),
            draw(6) * torch.tensor([[1.0]] * 4 + [[torch.nan]] * 2),
            FIVE,
            SIX,
            "titles: .* in 2 of 6 rows, .* 4",
        ),
        (draw(5) / 0, draw(6), FIVE, SIX, "images: embeddings must be finite; got NaN or infinity in 5 of 5 rows"),
        (
            draw(5) * 2,
            draw(6),
            FIVE,
            SIX,
            "images: embeddings must have unit norm; 5 of 5 rows have not, the first is 0",
        ),
        (draw(5), draw(6).to("meta"), FIVE, SIX, "must be on one device; got cpu, meta"),
    ],
)
def test_damaged_batches_are_refused(
    images: Tensor, titles: Tensor, image_groups: Tensor, title_groups: Tensor, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        CrossModalLoss(MaxOfHinges())(images, titles, image_groups, title_groups)
