"""Out of memory: the message's batch was tried, and the largest that fits is found to within an eighth."""

import pytest
import torch

from productrec.errors import TrainingError
from productrec.losses.engine.module import MetricModule
from productrec.training.step.fitting import find_fitting_size
from productrec.training.step.trainer import Trainer
from tests.unit.training.small_training import build, play


@pytest.mark.parametrize("multiple_of", [1, 2, 4, 7])
@pytest.mark.parametrize("failed", [8, 64, 100, 1000])
def test_the_largest_that_fits_is_found(failed, multiple_of):
    for limit in range(failed):
        tried = {}

        def fits(count, limit=limit, tried=tried):
            assert count < failed or count - failed < multiple_of
            tried[count] = count <= limit
            return tried[count]

        found = find_fitting_size(fits, failed=failed, multiple_of=multiple_of)
        if limit < multiple_of:
            assert found is None
            continue
        assert found is not None and tried[found] and found % multiple_of == 0
        assert limit < found + multiple_of + found / 8
        assert len(tried) <= 14


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


def limit_device(trainer, most, error=OUT_OF_MEMORY):
    """Have the backbone run on a device that holds so many images at most; gives how many each pass asked for."""
    seen = []

    def look(module, inputs):
        seen.append(len(inputs[0]))
        if seen[-1] > most:
            raise error

    trainer.recognizer.backbone.register_forward_pre_hook(look)
    return seen


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: not enough memory"),
    ],
)
def test_the_message_names_what_fits(error):
    trainer = build()
    seen = limit_device(trainer, 2, error)
    with pytest.raises(TrainingError, match=r"4 images of 32 px do not\. 2 do, by trial.*chunk_size=2.*batch_size=2\."):
        play(trainer)
    assert seen == [4, 2, 2, 2, 2, 2, 2]  # the batch, a part, the batch in chunks, twice, a batch of two


class GreedyLoss(MetricModule):
    """A metric loss that has no memory for so many embeddings."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, embeddings, labels, keys=None):
        if len(embeddings) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.inner(embeddings, labels)


def test_losses_that_do_not_fit_are_part_of_the_trial():
    chunked = build(chunk_size=2)
    chunked.objective.metric = GreedyLoss(chunked.objective.metric, 3)
    with pytest.raises(
        TrainingError, match=r"2 images at a time do, but the losses of 4 images do not fit.*batch_size"
    ):
        play(chunked)
    trainer = build()
    trainer.objective.metric = GreedyLoss(trainer.objective.metric, 3)
    with pytest.raises(TrainingError, match=r"2 do, by trial: give train\.batch_size=2\.$"):
        play(trainer)


def test_where_nothing_fits_it_says_so():
    trainer = build()
    limit_device(trainer, 1)
    with pytest.raises(TrainingError, match=r"Nor do 2: lower train\.side_px"):
        play(trainer)


def test_an_optimiser_that_does_not_fit_is_part_of_the_trial(monkeypatch):
    trainer = build()
    limit_device(trainer, 3)

    def refuse(*shape, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("productrec.training.step.fitting.torch.empty", refuse)
    with pytest.raises(TrainingError, match="Nor do 2"):
        play(trainer)


def test_other_errors_pass(monkeypatch):
    trainer = build()

    def fail(self, images, labels, titles=None):
        raise RuntimeError("something else")

    monkeypatch.setattr(Trainer, "run_step", fail)
    with pytest.raises(RuntimeError, match="something else"):
        play(trainer)


def test_advice_that_would_be_refused_is_not_given():
    trainer = build(jigsaw={"parts": 4})
    trainer.objective.jigsaw.locate = None
    limit_device(trainer, 4)
    with pytest.raises(TrainingError, match=r"2 do, by trial: give train\.batch_size=2\.$"):
        play(trainer)
    sharded = build(shard_head=True)
    limit_device(sharded, 2)
    with pytest.raises(TrainingError, match=r"Lower train\.batch_size or train\.negative_share"):
        play(sharded)


def test_a_frozen_network_can_be_rehearsed():
    trainer = build(shard_head=True)
    for one in trainer.recognizer.parameters():
        one.requires_grad_(False)
    trainer.passes.rehearse(torch.zeros(4, 32, 32, 3, dtype=torch.uint8))


def test_the_smallest_batch_is_tried_as_well():
    trainer = build()
    trainer.objective.metric = GreedyLoss(trainer.objective.metric, 1)
    with pytest.raises(TrainingError, match=r"2 do, by trial, but not with their losses: lower train\.side_px"):
        play(trainer)
