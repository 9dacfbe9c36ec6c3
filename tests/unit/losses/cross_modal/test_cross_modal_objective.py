"""The objective as a recipe asks for it: its terms, what it forgets, and what cannot be built."""

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.catalogue import list_losses
from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.build import build_cross_modal_loss
from productrec.losses.cross_modal.information import compute_information_bound
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.cross_modal.memory import CrossModalMemory
from productrec.losses.cross_modal.objective import CrossModalObjective
from productrec.losses.engine.mining import DistanceWeightedMining, HardestMining, MultiSimilarityMining
from productrec.losses.own_loss import OwnLoss
from productrec.losses.pair.margin import Margin
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.pair_logistic import PairLogistic
from productrec.losses.pair.sum_of_hinges import SumOfHinges

GROUPS = torch.arange(8) // 2


def draw(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, titles = functional.normalize(torch.randn(2, 8, 6, generator=generator), dim=2)
    return images.requires_grad_(), titles.requires_grad_()


def build_all() -> CrossModalObjective:
    """With every part."""
    torch.manual_seed(0)
    return build_cross_modal_loss(
        MaxOfHinges(margin=0.3),
        warm_up_steps=4,
        memory_rows=20,
        memory_start_step=1,
        memory_weight=0.5,
        embedding_dim=6,
    )


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    objective = build_all()
    for step in range(3):
        images, titles = draw(step)
        found = objective(images, titles, GROUPS, GROUPS)
        batch = CrossModalBatch(images, titles, GROUPS, GROUPS)
        pairs = CrossModalLoss(MaxOfHinges(margin=0.3)).compare(batch)  # a warm-up keeps its value
        torch.testing.assert_close(found.terms["pairs"], pairs.detach())
        assert found.terms.keys() == {"pairs", "information_bound"} | ({"memory"} if step else set())
        assert not any(term.requires_grad for term in found.terms.values())
        total = found.terms["pairs"] + 0.5 * found.terms.get("memory", 0)
        torch.testing.assert_close(found.total.detach(), total)
        found.total.backward()
        for leaf in (images, titles, *objective.parameters()):
            assert leaf.grad is not None
            assert leaf.grad.isfinite().all()


def test_without_any_part_it_is_the_loss_alone() -> None:
    images, titles = draw()
    objective = build_cross_modal_loss(MaxOfHinges(), embedding_dim=6, log_information=False)
    found = objective(images, titles, GROUPS, GROUPS)
    assert found.terms.keys() == {"pairs"}
    assert found.total == CrossModalLoss(MaxOfHinges())(images, titles, GROUPS, GROUPS) == found.terms["pairs"]
    assert not list(objective.parameters()) and not objective.list_statistics()


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_a_step_that_is_not_taken_leaves_nothing(steps: int) -> None:
    objective = build_all()
    for step in range(steps):
        objective(*draw(step), GROUPS, GROUPS)
    before = copy.deepcopy(objective.state_dict())
    first = objective(*draw(9), GROUPS, GROUPS)
    objective.forget_last()
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name], name
    again = objective(*draw(9), GROUPS, GROUPS)
    assert torch.equal(first.total, again.total)


def test_a_state_dict_goes_on_exactly() -> None:
    first, second = build_all(), build_all()
    for step in range(3):
        first(*draw(step), GROUPS, GROUPS)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        assert torch.equal(first(*draw(step), GROUPS, GROUPS).total, second(*draw(step), GROUPS, GROUPS).total)


def test_evaluation_changes_nothing() -> None:
    objective = build_all()
    for step in range(2):
        objective(*draw(step), GROUPS, GROUPS)
    before = copy.deepcopy(objective.state_dict())
    objective.eval()
    found = objective(*draw(5), GROUPS, GROUPS)
    assert "memory" not in found.terms
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name], name


def test_a_batch_of_images_alone_has_no_pairs() -> None:
    images, titles = draw()
    found = build_all()(images, titles[:0], GROUPS, GROUPS[:0])
    assert found.total == 0 and found.terms == {"pairs": torch.zeros(())}
    found.total.backward()


@pytest.mark.parametrize(
    ("loss", "temperature"),
    [(MaxOfHinges(), 0.07), (NTXent(temperature=0.2), 0.2), (NTXent(temperature=0.3, learn_temperature=True), 0.3)],
)
def test_the_bound_is_at_the_temperature_of_the_loss(loss: NTXent, temperature: float) -> None:
    images, titles = draw()
    found = build_cross_modal_loss(loss, embedding_dim=6)(images, titles, GROUPS, GROUPS)
    expected = compute_information_bound(CrossModalBatch(images, titles, GROUPS, GROUPS), temperature=temperature)
    torch.testing.assert_close(found.terms["information_bound"], expected)
    if temperature != 0.07:  # for InfoNCE it is log N minus the mean of both directions' losses
        expected = math.log(1 + 6) - found.terms["pairs"] / 2
        torch.testing.assert_close(found.terms["information_bound"], expected)


def test_mining_is_the_losss_own_unless_it_is_named() -> None:
    auto = build_cross_modal_loss(MultiSimilarity(), embedding_dim=6)
    assert auto.loss.pairs.mining == MultiSimilarityMining()
    assert build_cross_modal_loss(MultiSimilarity(), mining=None, embedding_dim=6).loss.pairs.mining is None
    named = build_cross_modal_loss(SumOfHinges(), mining=HardestMining(), embedding_dim=6)
    assert named.loss.pairs.mining == HardestMining()
    drawn = build_cross_modal_loss(Margin(beta_of="all"), embedding_dim=6).loss.pairs.mining
    assert drawn == DistanceWeightedMining(dimension=6)


def test_what_a_loss_learns_is_learned_by_both_directions() -> None:
    learned = build_cross_modal_loss(NTXent(learn_temperature=True), embedding_dim=6)
    assert [name for name, _ in learned.named_parameters()] == ["loss.pairs.log_scale"]
    sigmoid = build_cross_modal_loss(PairLogistic(), embedding_dim=6)
    assert [name for name, _ in sigmoid.named_parameters()] == ["loss.pairs.log_scale", "loss.pairs.bias"]
    assert sigmoid.loss.pairs.log_scale.item() == pytest.approx(math.log(10)) and sigmoid.loss.pairs.bias == -10


def test_settings_reach_their_parts() -> None:
    objective = build_all()
    assert isinstance(objective.memory, CrossModalMemory)
    assert (len(objective.memory.images), objective.memory.start_step, objective.memory.weight) == (20, 1, 0.5)
    assert objective.warm_up is not None and (objective.warm_up.steps, objective.warm_up.how) == (4, "mix")


def test_what_cannot_be_built_is_said() -> None:
    for name in ("soft_triple", "arc_face"):
        with pytest.raises(RecipeError, match=f"{name}: has centres of classes, and titles have none"):
            build_cross_modal_loss(list_losses()[name](), embedding_dim=6)
    with pytest.raises(RecipeError, match="warm-up: leads from the sum of hinges to max_of_hinges; got circle"):
        build_cross_modal_loss(list_losses()["circle"](), warm_up_steps=3, embedding_dim=6)
    with pytest.raises(RecipeError, match="--allow-code"):
        build_cross_modal_loss(OwnLoss(path="somewhere:Else"), embedding_dim=6)
