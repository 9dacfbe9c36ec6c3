"""What a step will want is known before it: by what autograd keeps in truth, and against the memory that is free."""

import pytest
import torch

from productrec.errors import TrainingError
from productrec.models.backbone import build_backbone
from productrec.runtime import measure_free_memory
from productrec.training.step import memory_estimate
from productrec.training.step.memory_estimate import check_step_fits, estimate_kept_bytes
from tests.unit.training.small_training import build


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"])
def test_the_estimate_is_what_autograd_keeps(name):
    network, _ = build_backbone(name, pretrained=False, side_px=64)
    network.train()
    kept = {}
    own = {one.untyped_storage().data_ptr() for one in [*network.parameters(), *network.buffers()]}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    before = {key: value.clone() for key, value in network.state_dict().items()}
    estimated = estimate_kept_bytes(network, 64)
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())  # statistics do not move
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = network(torch.zeros(4, 3, 64, 64))
    assert features.requires_grad
    print(name, estimated, sum(kept.values()) / 4)
    assert estimated == pytest.approx(sum(kept.values()) / 4, rel=0.15)


def test_a_network_that_needs_numbers_is_not_judged():
    class Choosy(torch.nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    assert estimate_kept_bytes(Choosy(), 64) is None


@pytest.mark.parametrize(("side_px", "batch_size", "free_gib"), [(2048, 64, 4), (224, 4096, 2), (8192, 4, 16)])
def test_what_is_surely_too_large_is_refused_with_what_may_fit(monkeypatch, side_px, batch_size, free_gib):
    monkeypatch.setattr(memory_estimate, "measure_free_memory", lambda: free_gib << 30)
    trainer = build()
    with pytest.raises(
        TrainingError, match=r"images of \d+ px need at least [\d.]+ GiB, and \d+\.0 GiB are free"
    ) as told:
        check_step_fits(trainer, batch_size=batch_size, side_px=side_px, multiple_of=2)
    advice = dict(part.split("=") for part in str(told.value).replace(".", " ").split() if "=" in part) or {}
    advised = {key: int(value) for key, value in advice.items()}
    assert "side_px" in advised, told.value
    check_step_fits(trainer, batch_size=batch_size, side_px=advised["side_px"], multiple_of=2)
    if "batch_size" in advised:
        check_step_fits(trainer, batch_size=advised["batch_size"], side_px=side_px, multiple_of=2)


def test_an_ordinary_step_passes_and_a_chunk_counts_for_itself(monkeypatch):
    monkeypatch.setattr(memory_estimate, "measure_free_memory", lambda: 2 << 30)
    check_step_fits(build(), batch_size=64, side_px=224, multiple_of=2)
    check_step_fits(build(chunk_size=32), batch_size=4096, side_px=224, multiple_of=2)
    monkeypatch.setattr(memory_estimate, "measure_free_memory", lambda: None)  # another system
    check_step_fits(build(), batch_size=4096, side_px=8192, multiple_of=2)


def test_free_memory_is_that_of_this_machine_at_most():
    free = measure_free_memory()
    if free is None:
        pytest.skip("this system does not say")
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) << 10
    assert 0 < free < 4 * total


def count_bytes(monkeypatch, trainer, **options):
    """The GiB that a step is said to need, on a machine that has next to nothing."""
    monkeypatch.setattr(memory_estimate, "measure_free_memory", lambda: 1 << 10)
    monkeypatch.setattr(memory_estimate, "_GIB", 1)
    with pytest.raises(TrainingError, match="GiB are free") as told:
        check_step_fits(trainer, batch_size=8, side_px=64, multiple_of=2, **options)
    return float(str(told.value).split("at least ")[1].split()[0])


def test_a_backbone_that_never_learns_keeps_nothing(monkeypatch):
    trainer = build()
    body = {id(one) for one in trainer.recognizer.backbone.parameters()}
    others = sum(one.numel() for one in trainer.parameters if id(one) not in body)
    assert count_bytes(monkeypatch, trainer, is_frozen=True) == 12 * others + 8 * 64**2 * 15
    assert count_bytes(monkeypatch, trainer) > 12 * sum(one.numel() for one in trainer.parameters)


@pytest.mark.parametrize(
    ("name", "each"), [("adamw", 12), ("lamb", 12), ("nadamw", 12), ("sgd", 8), ("lion", 8), ("adafactor", 4)]
)
def test_moments_are_those_of_the_optimiser(monkeypatch, name, each):
    trainer = build(optimizer=name)
    body = {id(one) for one in trainer.recognizer.backbone.parameters()}
    others = sum(one.numel() for one in trainer.parameters if id(one) not in body)
    assert count_bytes(monkeypatch, trainer, is_frozen=True) == each * others + 8 * 64**2 * 15
