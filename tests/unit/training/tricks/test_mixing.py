import numpy as np
import pytest
import torch
from torch import nn

from productrec.losses.classification.cross_entropy import compute_classification_loss
from productrec.models.recognizer import Recognized
from productrec.training.step.objective import JointLoss
from productrec.training.tricks.mixing import Mixing, Mixture, cut_mix


@pytest.mark.parametrize("seed", range(20))
def test_the_share_is_that_of_the_pixels_that_stay(seed):
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 16, 12, 3).contiguous()
    before = images.clone()
    mixed, mixture = cut_mix(images, torch.tensor([10, 11, 12, 13]), np.random.default_rng(seed))
    assert torch.equal(images, before)
    for row in range(4):
        partner = int(mixture.partners[row]) - 10
        own = (mixed[row] == row).float().mean().item()
        assert own == pytest.approx(1.0 if partner == row else mixture.share)
        assert ((mixed[row] == row) | (mixed[row] == partner)).all()


def test_shares_spread_from_none_to_all_and_depend_on_the_seed_alone():
    images, labels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.tensor([0, 1])
    shares = [cut_mix(images, labels, np.random.default_rng(seed))[1].share for seed in range(200)]
    assert shares == [cut_mix(images, labels, np.random.default_rng(seed))[1].share for seed in range(200)]
    assert min(shares) < 0.2
    assert max(shares) > 0.95
    assert 0.5 < np.mean(shares) < 0.8  # above a half: what falls outside is cut off


def test_a_mixed_batch_has_both_labels_in_the_classification_term_and_no_other():
    class Never(nn.Module):
        def forward(self, embeddings, labels):
            raise AssertionError("a metric loss must not see mixed images")

    objective = JointLoss(Never(), metric_weight=1.0, classification_weight=2.0, label_smoothing=0.1)
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels, partners = torch.tensor([0, 1, 2]), torch.tensor([3, 1, 0])
    total, terms = objective(Recognized(torch.zeros(3, 2), logits), labels, Mixture(partners, 0.7))
    own, other = (compute_classification_loss(logits, one, label_smoothing=0.1) for one in (labels, partners))
    assert set(terms) == {"classification"}
    assert total.item() == pytest.approx(2 * (0.7 * own + 0.3 * other).item(), rel=1e-6)


@pytest.mark.parametrize("way", ["cut_mix_share", "mix_up_share"])
def test_ranks_mix_in_the_same_shares_each_its_own_images(way):
    shares = {"cut_mix_share": 0.0, "mix_up_share": 0.0, way: 1.0}
    ranks = [Mixing(**shares, mix_up_alpha=0.4, seed=0, rank=rank) for rank in range(2)]
    images, labels = torch.zeros(8, 16, 16, 3, dtype=torch.uint8), torch.arange(8)
    seen = [[one.mix(images, labels, step)[1] for step in range(10)] for one in ranks]
    assert [one.share for one in seen[0]] == [one.share for one in seen[1]]
    assert any(not torch.equal(one.partners, other.partners) for one, other in zip(*seen, strict=True))
