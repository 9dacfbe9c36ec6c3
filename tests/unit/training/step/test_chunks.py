"""Chunks: the gradient of the whole batch, on networks as a recipe assembles them, whatever the size of a chunk."""

import functools

import pytest
import timm
import torch
from safetensors.torch import save_file

from productrec.assembly.trainer import build_trainer
from productrec.recipe import build_recipe
from productrec.training.tricks.freezing import set_norms_frozen
from tests.unit.training.small_training import PlainImages, build

COUNT, CLASSES, SIDE_PX = 96, 8, 32
METRICS = ["multi_similarity", "soft_triple", "arc_face", "none", "memory", "momentum"]


@functools.cache
def draw_batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % CLASSES
    noise = torch.randint(0, 60, (COUNT, SIDE_PX, SIDE_PX, 3), generator=generator)
    return (noise + 20 * labels[:, None, None, None]).to(torch.uint8), labels


def assemble(chunk_size, backbone="test_convnext", metric="multi_similarity", pretrained=False, **train):
    """A trainer as `train` has it."""
    torch.manual_seed(0)
    memory = {"rows": 4 * COUNT, "start_step": 0, "momentum": 0.9 if metric == "momentum" else 0.0}
    loss = {"metric": metric}
    if metric in ("memory", "momentum"):
        loss = {"metric": "multi_similarity", "memory": memory}
    recipe = build_recipe(
        {
            "name": "chunks",
            "model": {"backbone": backbone, "pretrained": pretrained, "embedding_dim": 16},
            "loss": loss,
            "train": {
                "side_px": SIDE_PX,
                "batch_size": COUNT,
                "chunk_size": chunk_size,
                "gradient_clip": 0.0,
                "freeze_norms": bool(pretrained),
                **train,
            },
        }
    )
    trainer = build_trainer(recipe, [12] * CLASSES, 10, device=torch.device("cpu"), dtype=torch.float32)
    trainer.recognizer.train()
    set_norms_frozen(trainer.recognizer, recipe.train.freeze_norms)
    return trainer


def take_step(trainer, images, labels):
    """What a step gives, the gradients of all that learns, and the network's statistics after it."""
    seen, step = {}, trainer.optimizer.step
    everything = dict(trainer.recognizer.named_parameters()) | dict(trainer.objective.named_parameters())
    trainer.optimizer.step = lambda *a, **k: seen.update(
        {name: one.grad.clone() for name, one in everything.items() if one.grad is not None}
    )
    said = trainer.run_step(images, labels)
    trainer.optimizer.step = step
    return said, seen, {name: one.clone() for name, one in trainer.recognizer.named_buffers()}


def watch_features(trainer):
    """The features of every chunk that goes through the backbone from now on."""
    seen = []
    trainer.recognizer.pooling.register_forward_hook(
        lambda module, given, features: seen.append(features.detach().clone())
    )
    return seen


def compare(trainers, *batch):
    """The relative error of all gradients together; figures and gradients' names must agree."""
    (whole, expected, _), (parts, seen, _) = (take_step(trainer, *batch) for trainer in trainers)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-5)
    assert expected.keys() == seen.keys()
    wrong = sum(float((seen[name] - value).double().square().sum()) for name, value in expected.items())
    return (wrong / sum(float(value.double().square().sum()) for value in expected.values())) ** 0.5


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("chunk_size", [2, 32])
@pytest.mark.parametrize("cut_mix", [0.0, 1.0])
def test_chunks_give_the_gradient_of_the_whole_batch(metric, chunk_size, cut_mix):
    trainers = [assemble(size, metric=metric, cut_mix=cut_mix) for size in (0, chunk_size)]
    assert compare(trainers, *draw_batch()) < 1e-5  # 0.57 where chunks ran through the neck's norm
    states = [dict(trainer.recognizer.named_buffers()) for trainer in trainers]
    for name, value in states[0].items():  # the neck's statistics move once, by the whole batch
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)


def test_frozen_norms_of_a_pretrained_backbone_make_chunks_exact_too(tmp_path):
    network = timm.create_model("resnet10t", num_classes=0)
    generator = torch.Generator().manual_seed(1)
    for name, one in network.named_buffers():  # statistics that a training left
        if name.endswith(("running_mean", "running_var")):
            one.copy_(torch.rand(one.shape, generator=generator) * 0.5 + (0.5 if name.endswith("var") else 0.0))
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    weights = str(tmp_path / "weights.safetensors")
    trainers = [assemble(size, "resnet10t", pretrained=weights) for size in (0, 16)]
    before = {name: one.clone() for name, one in trainers[1].recognizer.backbone.named_buffers()}
    assert compare(trainers, *draw_batch()) < 1e-5
    for name, one in trainers[1].recognizer.backbone.named_buffers():
        assert torch.equal(one, before[name]), name
    thawed = [assemble(size, "resnet10t", pretrained=weights, freeze_norms=False) for size in (0, 16)]
    (_, expected, _), (_, seen, _) = (take_step(trainer, *draw_batch()) for trainer in thawed)
    name = "backbone.network.conv1.0.weight"
    assert float((seen[name] - expected[name]).norm() / expected[name].norm()) > 0.1  # what the docs say differs


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_head_in_shards_takes_the_whole_batch(share):
    trainers = [assemble(size, shard_head=True, negative_share=share) for size in (0, 16)]
    for trainer in trainers:
        torch.manual_seed(4)
        trainer.run_step(*draw_batch())
    images, labels = draw_batch()
    torch.manual_seed(5)
    first = take_step(trainers[0], images, labels)[1]
    torch.manual_seed(5)
    second = take_step(trainers[1], images, labels)[1]
    assert first.keys() == second.keys()
    if share == 1.0:
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4)


def test_a_backbone_of_batch_norms_sees_a_chunk_at_a_time_and_its_neck_the_batch():
    trainer = build(chunk_size=8, dropout=0.0)
    trainer.recognizer.train()
    norm = next(one for one in trainer.recognizer.backbone.modules() if isinstance(one, torch.nn.BatchNorm2d))
    take_step(trainer, PlainImages(None).images, PlainImages(None).labels)
    assert norm.num_batches_tracked.item() == 2
    assert trainer.recognizer.neck.norm.num_batches_tracked.item() == 1


def test_what_the_backbone_drops_is_the_same_in_both_passes():
    """Features of the second pass are those whose gradient was taken in the first."""
    trainer = assemble(16, backbone="test_vit")
    for module in trainer.recognizer.backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    seen = watch_features(trainer)
    trainer.run_step(*draw_batch())
    assert len(seen) == 12
    for first, second in zip(seen[:6], seen[6:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(trainer.recognizer.extract_features(draw_batch()[0][:16]), seen[0])  # it does drop


def test_a_frozen_backbone_learns_nothing_and_its_heads_do():
    trainer = assemble(16)
    trainer.recognizer.backbone.requires_grad_(False)
    _, seen, _ = take_step(trainer, *draw_batch())
    assert {name.split(".")[0] for name in seen} == {"pooling", "neck", "head"}


def test_the_random_state_after_a_step_is_that_of_one_pass():
    trainer = build(chunk_size=4, dropout=0.5)
    trainer.recognizer.train()
    torch.manual_seed(3)
    take_step(trainer, PlainImages(None).images, PlainImages(None).labels)
    after = torch.rand(3)
    torch.manual_seed(3)
    for part in torch.tensor_split(PlainImages(None).images, 4):
        features = trainer.recognizer.extract_features(part)
        trainer.recognizer.head(features)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize(("metric", "shard_head"), [("multi_similarity", False), ("momentum", False), ("memory", True)])
def test_where_nothing_before_the_features_learns_one_pass_is_all(metric, shard_head):
    trainers = [assemble(size, "resnet10t", metric=metric, shard_head=shard_head) for size in (0, COUNT // 2)]
    for trainer in trainers:
        trainer.recognizer.backbone.requires_grad_(False)
        trainer.recognizer.pooling.requires_grad_(False)
        set_norms_frozen(trainer.recognizer, True)
    seen = watch_features(trainers[1])
    assert compare(trainers, *draw_batch()) < 1e-5
    assert [len(features) for features in seen] == [COUNT // 2] * 2  # four with the pass whose features nobody wanted
    set_norms_frozen(trainers[1].recognizer, False)
    norm = next(one for one in trainers[1].recognizer.backbone.modules() if isinstance(one, torch.nn.BatchNorm2d))
    take_step(trainers[1], *draw_batch())
    assert norm.num_batches_tracked.item() == 2  # what the only pass moved stays moved
