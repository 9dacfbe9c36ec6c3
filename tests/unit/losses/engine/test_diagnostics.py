import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.losses.build import build_metric_loss
from productrec.losses.catalogue import list_losses, list_pair_losses
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import diagnose_pairs, list_driving_pairs
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_weighting import compute_pair_weights
from productrec.losses.engine.weight_curves import VIEWS, compute_weight_curve
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.pair_logistic import PairLogistic


def draw(rows: int = 23, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(rows, 8, generator=generator, dtype=torch.float64), dim=1)
    return embeddings, (torch.rand(rows, generator=generator) ** 2 * 6).long()


@pytest.mark.parametrize("rows", [23, 300])
def test_figures_are_those_of_the_whole_matrix(rows: int) -> None:
    embeddings, labels = draw(rows)
    loss, mining = MultiSimilarity(), MultiSimilarityMining()
    seen = diagnose_pairs(Comparison(embeddings, labels), loss, mining=mining)
    matrix = embeddings @ embeddings.T
    same = labels[:, None] == labels
    positive = same & ~torch.eye(rows, dtype=torch.bool)
    assert seen.positive_similarity == pytest.approx(matrix[positive].mean().item())
    assert seen.negative_similarity == pytest.approx(matrix[~same].mean().item())
    for pair, mask, extreme in ((seen.hardest_positive, positive, min), (seen.hardest_negative, ~same, max)):
        assert pair is not None
        assert mask[pair.anchor, pair.reference]
        assert pair.similarity == pytest.approx(extreme(matrix[mask].tolist()))
        assert pair.similarity == pytest.approx(matrix[pair.anchor, pair.reference].item())
    weights = compute_pair_weights(Comparison(embeddings, labels), loss, mining=mining).abs() * rows
    marks = (weights.amax(dim=1, keepdim=True) / 1000).clamp(min=1e-6)
    active = (weights > marks).sum().item() / (positive.sum() + (~same).sum()).item()
    assert seen.active_share == pytest.approx(active)
    assert 0 < seen.active_share < 1


def test_a_batch_without_pairs_has_no_figures() -> None:
    embeddings, _ = draw(1)
    seen = diagnose_pairs(Comparison(embeddings, torch.tensor([0])), Circle())
    assert seen.active_share == 0
    assert math.isnan(seen.positive_similarity)
    assert seen.hardest_positive is None
    assert seen.hardest_negative is None


@pytest.mark.parametrize("count", [1, 7, 5000])
def test_driving_pairs_are_those_of_the_largest_weights(count: int) -> None:
    embeddings, labels = draw()
    found = list_driving_pairs(
        Comparison(embeddings, labels), Contrastive(positive_margin=0.9, negative_margin=0.1), count=count
    )
    weights = compute_pair_weights(
        Comparison(embeddings, labels), Contrastive(positive_margin=0.9, negative_margin=0.1)
    )
    expected = sorted(weights[weights != 0].abs().tolist(), reverse=True)[:count]
    assert [abs(pair.weight) for pair in found] == pytest.approx(expected)
    for pair in found:
        assert pair.weight == pytest.approx(weights[pair.anchor, pair.reference].item())
        assert pair.is_positive == (labels[pair.anchor] == labels[pair.reference])
        assert pair.similarity == pytest.approx(float(embeddings[pair.anchor] @ embeddings[pair.reference]))


@pytest.mark.parametrize("name", list_losses())
def test_every_loss_tells_its_diagnostics(name: str) -> None:
    module = build_metric_loss(list_losses()[name](), embedding_dim=8, class_count=6)
    assert module is not None
    embeddings, labels = draw()
    seen = module.diagnose(embeddings.float(), labels)
    assert 0 <= seen.active_share <= 1
    assert -1 <= seen.positive_similarity <= 1
    assert -1 <= seen.negative_similarity <= 1
    assert -1.001 <= seen.hardest_negative.similarity <= 1.001


def test_pair_logistic_tells_similarities_and_not_logits() -> None:
    embeddings, labels = draw()
    plain = diagnose_pairs(Comparison(embeddings, labels), Contrastive())
    seen = PairLogistic().build(None, 3).double().diagnose(embeddings, labels)
    assert seen.positive_similarity == pytest.approx(plain.positive_similarity)
    assert seen.hardest_positive.similarity == pytest.approx(plain.hardest_positive.similarity)


@pytest.mark.parametrize("name", [name for name, loss in list_losses().items() if loss.kind == "proxy"])
def test_what_is_diagnosed_is_what_trains(name: str) -> None:
    """Active pairs by the weights that the embeddings' own gradient holds: centres in general position give them."""
    torch.manual_seed(3)
    classes, dim, rows = 6, 80, 30
    loss = list_losses()[name](**({"margin_power": 1.0} if name == "arc_face" else {}))
    sizes = [1, 2, 4, 8, 200, 5000]
    module = build_metric_loss(loss, embedding_dim=dim, class_count=classes, class_sizes=sizes)
    module = module.double()
    labels = torch.arange(rows) % (classes - 1)  # a class is not in the batch
    centres = functional.normalize(module.centres.detach().flatten(0, 1), dim=1)
    per_class = len(centres) // classes
    noise = functional.normalize(torch.randn(rows, dim, dtype=torch.float64), dim=1)
    leaf = functional.normalize(centres[labels * per_class] + noise, dim=1).requires_grad_()
    if name == "ada_cos":
        module.scale.fill_(15.0)  # one that it comes to; the first is 2.3
    module.eval()
    (gradient,) = torch.autograd.grad(module(leaf, labels), leaf)
    weights = (gradient @ torch.linalg.pinv(centres)).abs()
    anchors = weights.T * classes if name == "proxy_anchor" else weights * rows
    marks = (anchors.amax(dim=1, keepdim=True) / 1000).clamp(min=1e-6)
    seen = module.diagnose(leaf.detach(), labels)
    assert seen.active_share == pytest.approx((anchors > marks).double().mean().item(), abs=1e-9)
    similarities = leaf.detach() @ centres.T
    positive = labels[:, None] == torch.arange(classes).repeat_interleave(per_class)
    assert seen.positive_similarity == pytest.approx(similarities[positive].mean().item())
    assert seen.negative_similarity == pytest.approx(similarities[~positive].mean().item())
    for pair, value in (
        (seen.hardest_positive, similarities[positive].min()),
        (seen.hardest_negative, similarities[~positive].max()),
    ):
        assert pair is not None
        image, centre = (pair.reference, pair.anchor) if name == "proxy_anchor" else (pair.anchor, pair.reference)
        assert pair.similarity == pytest.approx(value.item())
        assert similarities[image, centre].item() == pytest.approx(value.item())


# ---------------------------------------------------------------- weight curves


@pytest.mark.parametrize("name", list_pair_losses())
@pytest.mark.parametrize("of_positive", [True, False])
def test_a_curve_is_the_engines_weight(name: str, of_positive: bool) -> None:
    """An anchor on the first axis, and references of chosen similarities to it, give the same weight."""
    loss, mining = list_pair_losses()[name]
    if name == "original_lifted_structure":
        pytest.skip("it needs the other row's pairs, which a curve takes as equal")
    for view in VIEWS:
        curve = compute_weight_curve(loss, view, of_positive=of_positive, mining=mining, steps=9)
        for step in (1, 4, 6):
            varied = curve.similarities[step].item()
            positives, negatives = [0.7] * 3, [0.4] * 12
            if view == "positive relative":
                positives = [varied] * 3
            if view == "negative relative":
                negatives = [varied] * 12
            (positives if of_positive else negatives)[0] = varied if view == "self" else 0.5
            s = torch.tensor(positives + negatives, dtype=torch.float64)
            references = torch.stack([s, (1 - s * s).sqrt()], dim=1)
            weights = compute_pair_weights(
                Comparison(
                    torch.tensor([[1.0, 0.0]], dtype=torch.float64),
                    torch.tensor([0]),
                    references=references,
                    reference_labels=torch.tensor([0] * 3 + [1] * 12),
                ),
                loss,
                mining=mining,
            )
            # Means over positives or triplets divide by their number, which the curve leaves out.
            ratio = weights.abs()[0, 0 if of_positive else 3].item()
            assert (curve.weights[step].item() > 1e-9) == (ratio > 1e-9)
            if name in ("multi_similarity", "contrastive", "circle", "sup_con", "lifted_structure", "smooth_ap"):
                assert curve.weights[step].item() == pytest.approx(ratio, rel=1e-6, abs=1e-12)


def test_the_three_similarities_of_multi_similarity() -> None:
    """The paper's point: its weights follow all three."""
    loss = MultiSimilarity()
    own = compute_weight_curve(loss, "self", of_positive=False).weights
    relative = compute_weight_curve(loss, "negative relative", of_positive=False).weights
    assert (own.diff() >= 0).all()
    assert (relative.diff() <= 1e-12).all()
    mined = compute_weight_curve(loss, "positive relative", of_positive=False, mining=MultiSimilarityMining())
    assert mined.weights[0] > 0
    assert mined.weights[-1] == 0
    contrastive = compute_weight_curve(Contrastive(), "negative relative", of_positive=True).weights
    assert contrastive.unique().numel() == 1
