"""The memory of both towers: who meets whom, what is remembered when, and what a step that is not taken leaves."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.cross_modal.memory import CrossModalMemory
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.max_of_hinges import MaxOfHinges

LOSS = CrossModalLoss(Contrastive(positive_margin=2.0, negative_margin=0.0))


def draw(step: int, images: int = 4, titles: int = 3) -> CrossModalBatch:
    generator = torch.Generator().manual_seed(step)
    rows = functional.normalize(torch.randn(images + titles, 5, generator=generator), dim=1)
    groups = torch.randint(3, (images + titles,), generator=generator)
    return CrossModalBatch(rows[:images], rows[images:], groups[:images], groups[images:])


def build(rows: int = 10, start_step: int = 0, weight: float = 1.0) -> CrossModalMemory:
    return CrossModalMemory(rows=rows, embedding_dim=5, start_step=start_step, weight=weight)


def mean_over_anchors(anchors: Tensor, of_anchors: Tensor, known: Tensor, of_known: Tensor) -> float:
    total = 0.0
    for anchor, group in zip(anchors, of_anchors, strict=True):
        for other, its_group in zip(known, of_known, strict=True):
            s = float(anchor @ other)
            total += 2.0 - s if group == its_group else max(0.0, s)
    return total / len(anchors)


def test_each_tower_meets_the_last_rows_of_the_other() -> None:
    memory = build()
    seen: list[CrossModalBatch] = []
    for step in range(6):
        batch = draw(step, images=3 + step % 2, titles=2 + step % 3)
        seen.append(batch)
        found = memory.compare(batch, LOSS)
        assert found is not None
        titles, of_titles = torch.cat([b.titles for b in seen])[-10:], torch.cat([b.title_groups for b in seen])[-10:]
        images, of_images = torch.cat([b.images for b in seen])[-10:], torch.cat([b.image_groups for b in seen])[-10:]
        there = mean_over_anchors(batch.images, batch.image_groups, titles, of_titles)
        back = mean_over_anchors(batch.titles, batch.title_groups, images, of_images)
        assert found.item() == pytest.approx(there + back, rel=1e-5)


def test_a_remembered_title_of_the_images_group_is_no_negative() -> None:
    memory = build()
    axis = torch.eye(5)
    first, zero = torch.tensor([4]), CrossModalLoss(MaxOfHinges())
    memory.compare(CrossModalBatch(axis[1:2], axis[:1], first, first), zero)
    # Another step: the same title, this time beside an image that lies on it.
    value = memory.compare(CrossModalBatch(axis[:1], axis[:1], first, first), zero)
    assert value == 0
    value = memory.compare(CrossModalBatch(axis[:1], axis[2:3], first + 1, first + 1), zero)
    assert value is not None
    assert value > 0  # of another group it is the hardest negative


def test_before_the_start_and_in_evaluation_nothing_is_remembered() -> None:
    memory = build(start_step=2)
    assert memory.compare(draw(0), LOSS) is None
    assert memory.compare(draw(1), LOSS) is None
    memory.eval()
    assert memory.compare(draw(2), LOSS) is None
    assert memory.get_extra_state() == {"steps": 2, "images": (0, 0), "titles": (0, 0)}
    memory.train()
    assert memory.compare(draw(3), LOSS) is not None
    assert memory.get_extra_state() == {"steps": 3, "images": (4, 4), "titles": (3, 3)}


def test_a_state_dict_is_complete() -> None:
    first, second = build(), build()
    for step in range(5):
        first.compare(draw(step), LOSS)
    second.load_state_dict(first.state_dict())
    for step in range(5, 9):
        mine, other = first.compare(draw(step), LOSS), second.compare(draw(step), LOSS)
        assert mine is not None and other is not None
        assert torch.equal(mine, other)


@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_a_step_that_is_not_taken_leaves_nothing(steps: int) -> None:
    memory = build(start_step=1)
    for step in range(steps):
        memory.compare(draw(step), LOSS)
    before = copy.deepcopy(memory.state_dict())
    memory.compare(draw(50), LOSS)
    assert any(not same(memory.state_dict()[name], before[name]) for name in before)
    memory.forget_last()
    assert all(same(memory.state_dict()[name], before[name]) for name in before)
    memory.forget_last()  # once more changes nothing
    assert all(same(memory.state_dict()[name], before[name]) for name in before)


def same(left: object, right: object) -> bool:
    return torch.equal(left, right) if isinstance(left, Tensor) and isinstance(right, Tensor) else left == right


def test_gradient_reaches_the_batch_alone() -> None:
    memory = build()
    memory.compare(draw(0), LOSS)
    batch = draw(1)
    value = memory.compare(
        CrossModalBatch(
            batch.images.requires_grad_(), batch.titles.requires_grad_(), batch.image_groups, batch.title_groups
        ),
        LOSS,
    )
    assert value is not None
    value.backward()
    assert batch.images.grad is not None and batch.titles.grad is not None
    assert not memory.images.requires_grad and not memory.titles.requires_grad


def test_batches_without_a_side_enter_with_the_other() -> None:
    memory = build()
    none = torch.zeros(0, dtype=torch.int64)
    batch = draw(0)
    assert memory.compare(CrossModalBatch(batch.images, batch.titles[:0], batch.image_groups, none), LOSS) is None
    # These titles meet the images of the batch before.
    value = memory.compare(CrossModalBatch(batch.images[:0], batch.titles, none, batch.title_groups), LOSS)
    assert value is not None
    expected = mean_over_anchors(batch.titles, batch.title_groups, batch.images, batch.image_groups)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_what_does_not_fit_and_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="images of a batch must be at most 3 embeddings of 5 dimensions"):
        build(rows=3).compare(draw(0), LOSS)
    with pytest.raises(TrainingError, match="titles of a batch must be at most 4 embeddings of 5 dimensions"):
        build(rows=4).compare(draw(0, titles=5), LOSS)
    for settings in ({"rows": 0}, {"start_step": -1}, {"weight": 0.0}):
        with pytest.raises(RecipeError, match="memory: rows must be"):
            build(**settings)
