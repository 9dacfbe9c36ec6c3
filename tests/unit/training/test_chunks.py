"""Chunks: the gradient of the whole batch, whatever the size of a chunk, and less memory."""

import pytest
import torch

from tests.unit.training.playing import PlainImages, build


def take_gradients(trainer, norms_see_a_chunk=False):
    images, labels = PlainImages(None).images, PlainImages(None).labels
    trainer.recognizer.train()
    if not norms_see_a_chunk:
        for module in trainer.recognizer.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
    seen = {}
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda *a, **k: seen.update(
        {name: one.grad.clone() for name, one in trainer.recognizer.named_parameters() if one.grad is not None}
    )
    losses = trainer.run_step(images, labels)
    trainer.optimizer.step = step
    return losses, seen


@pytest.mark.parametrize("metric", ["multi_similarity", "memory", "soft_triple", "none", "momentum"])
@pytest.mark.parametrize("chunk_size", [1, 5, 8])
@pytest.mark.parametrize("cut_mix", [0.0, 1.0])
def test_chunks_give_the_gradient_of_the_whole_batch(metric, chunk_size, cut_mix):
    if metric in ("memory", "momentum"):
        options = {"metric": metric, "dropout": 0.0, "cut_mix": cut_mix}
        trainers = [build(**options), build(**options, chunk_size=chunk_size)]
        for trainer in trainers:  # sixteen rows must fit
            loss = trainer.objective.metric
            loss.embeddings, loss.labels = torch.zeros(40, 8), torch.zeros(40, dtype=torch.int64)
    else:
        trainers = [
            build(metric, dropout=0.0, cut_mix=cut_mix),
            build(metric, dropout=0.0, cut_mix=cut_mix, chunk_size=chunk_size),
        ]
    for trainer in trainers:
        trainer._clip = 0.0
    (whole, expected), (parts, seen) = (take_gradients(trainer) for trainer in trainers)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-5)
    assert expected.keys() == seen.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        assert float((seen[name] - value).abs().max()) <= 1e-5 * max(1.0, largest), name


def test_dropout_drops_the_same_in_both_passes():
    """With one chunk of everything the two passes are the plain step, drop for drop."""
    plain, chunked = build(dropout=0.5), build(dropout=0.5, chunk_size=15)
    chunked.passes.chunk_size = 15
    torch.manual_seed(5)
    _, expected = take_gradients(plain)
    torch.manual_seed(5)
    first = take_gradients(chunked)[1]
    other = build(dropout=0.5, chunk_size=15)
    torch.manual_seed(5)
    second = take_gradients(other)[1]
    assert all(torch.equal(first[name], second[name]) for name in first)
    # The embedding's head has no dropout: there the two must agree.
    torch.testing.assert_close(first["neck.linear.weight"], expected["neck.linear.weight"], rtol=1e-4, atol=1e-5)


def test_statistics_of_norms_move_once_a_chunk():
    trainer = build(chunk_size=8, dropout=0.0)
    before = trainer.recognizer.neck.norm.num_batches_tracked.item()
    take_gradients(trainer, norms_see_a_chunk=True)
    assert trainer.recognizer.neck.norm.num_batches_tracked.item() == before + 2


def test_the_random_state_after_a_step_is_that_of_one_pass():
    trainer = build(chunk_size=4, dropout=0.5)
    torch.manual_seed(3)
    take_gradients(trainer)
    after = torch.rand(3)
    torch.manual_seed(3)
    trainer.recognizer.train()
    for part in torch.tensor_split(PlainImages(None).images, 4):
        trainer.recognizer(part)
    assert torch.equal(after, torch.rand(3))
