"""Out of memory: the message's batch was tried, and the largest that fits is found to within an eighth."""

import pytest
import torch

from productrec.errors import TrainingError
from productrec.training.fitting import find_fitting_size
from productrec.training.trainer import Trainer
from tests.unit.training.playing import build, play


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


class SmallDevice:
    """A network on a device that holds so many images at most."""

    def __init__(self, network, most, error):
        self.network, self.most, self.error, self.seen = network, most, error, []

    def __call__(self, images):
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.network(images)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: not enough memory"),
    ],
)
def test_the_message_names_what_fits(error):
    trainer = build()
    trainer.passes._network = SmallDevice(trainer.passes._network, 2, error)
    with pytest.raises(TrainingError, match=r"4 images of 32 px do not\. 2 do, by trial.*chunk_size=2.*batch_size=2\."):
        play(trainer)
    assert trainer.passes._network.seen == [4, 2, 2, 2, 2, 2]  # the batch, a part of it, the batch in chunks, twice


class GreedyLoss(torch.nn.Module):
    """A metric loss that has no memory for so many embeddings."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, embeddings, labels):
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
    trainer.passes._network = SmallDevice(trainer.passes._network, 1, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(TrainingError, match=r"Nor do 2: lower train\.side_px"):
        play(trainer)


def test_an_optimiser_that_does_not_fit_is_part_of_the_trial(monkeypatch):
    trainer = build()
    trainer.passes._network = SmallDevice(trainer.passes._network, 3, torch.OutOfMemoryError("CUDA out of memory."))

    def refuse(*shape, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("productrec.training.fitting.torch.empty", refuse)
    with pytest.raises(TrainingError, match="Nor do 2"):
        play(trainer)


def test_other_errors_pass(monkeypatch):
    trainer = build()

    def fail(self, images, labels):
        raise RuntimeError("something else")

    monkeypatch.setattr(Trainer, "run_step", fail)
    with pytest.raises(RuntimeError, match="something else"):
        play(trainer)


def test_advice_that_would_be_refused_is_not_given():
    trainer = build(puzzle=True)
    trainer.objective.jigsaw.locate = None
    trainer.passes._network = SmallDevice(trainer.passes._network, 4, torch.OutOfMemoryError("CUDA out of memory."))
    trainer.passes._recognise_both = lambda images, others: trainer.passes._network(torch.cat([images, others]))
    with pytest.raises(TrainingError, match=r"2 do, by trial: give train\.batch_size=2\.$"):
        play(trainer)
    sharded = build(negative_share=1.0)
    sharded.passes._network = SmallDevice(sharded.passes._network, 2, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(TrainingError, match=r"Lower train\.batch_size or train\.negative_share"):
        play(sharded)


def test_a_frozen_network_can_be_rehearsed():
    trainer = build(negative_share=1.0)
    for one in trainer.recognizer.parameters():
        one.requires_grad_(False)
    trainer.passes.rehearse(torch.zeros(4, 32, 32, 3, dtype=torch.uint8))
