"""Networks: any layout becomes one embedding of unit norm and one row of logits."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from productrec.errors import ArtifactError, TrainingError
from productrec.models import inference
from productrec.models.backbone import build_backbone, synchronise_norms
from productrec.models.inference import ViewRecognizer
from productrec.models.pooling import GeMPooling, compute_gem_pooling
from productrec.models.recognizer import build_recognizer
from productrec.training.run.checkpoint import save_checkpoint

SETTINGS = {"pretrained": False, "gem_power": 3.0, "embedding_dim": 8, "class_count": 5}


def build(backbone="resnet10t", pooling="gem", side_px=32, **changes):
    torch.manual_seed(0)
    return build_recognizer(backbone=backbone, pooling=pooling, side_px=side_px, **(SETTINGS | changes)).eval()


@pytest.mark.parametrize(
    ("backbone", "side_px"),
    [("resnet10t", 32), ("vit_tiny_patch16_224", 48), ("swin_s3_tiny_224", 64), ("mobilenetv3_small_050", 32)],
)
@pytest.mark.parametrize("pooling", ["gem", "average"])
def test_every_layout_gives_unit_embeddings_and_logits(backbone, side_px, pooling):
    images = torch.randint(0, 256, (3, side_px, side_px, 3), dtype=torch.uint8)
    embeddings, logits = build(backbone, pooling, side_px)(images)
    assert embeddings.shape == (3, 8)
    assert logits.shape == (3, 5)
    assert embeddings.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_embeddings_stay_float32_of_unit_norm_under_autocast():
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings, logits = build()(images)
    assert embeddings.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4), atol=1e-6, rtol=0)


def test_gem_is_average_at_one_and_nears_the_maximum():
    features = torch.rand(2, 3, 4, 4) + 0.1
    torch.testing.assert_close(compute_gem_pooling(features, 1.0), features.mean(dim=(2, 3)))
    torch.testing.assert_close(compute_gem_pooling(features, 200.0), features.amax(dim=(2, 3)), rtol=0.05, atol=0)


def test_gem_is_finite_with_gradient_on_dead_features_and_its_power_is_learned():
    pooling = GeMPooling()
    features = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooling(features).sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert pooling.power.grad is not None
    assert torch.isfinite(pooling.power.grad)


def test_an_unknown_backbone_names_near_ones():
    with pytest.raises(TrainingError, match="resnet50"):
        build_backbone("resnet5O", pretrained=False, side_px=32)


def test_pretrained_weights_come_from_a_local_file(tmp_path):
    torch.manual_seed(1)
    source, _ = build_backbone("resnet10t", pretrained=False, side_px=32)
    state = source.network.state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    torch.manual_seed(2)
    loaded, _ = build_backbone("resnet10t", pretrained=str(path), side_px=32)
    for name, value in source.network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value)


def test_a_weights_file_that_is_missing_or_wrong_is_one_clear_error(tmp_path):
    with pytest.raises(TrainingError, match="none of these"):
        build_backbone("resnet10t", pretrained=str(tmp_path / "none.pth"), side_px=32)
    wrong = tmp_path / "wrong.pth"
    torch.save({"something": torch.zeros(1)}, wrong)
    with pytest.raises(TrainingError, match="every weight of the backbone"):
        build_backbone("resnet10t", pretrained=str(wrong), side_px=32)
    wrong.write_bytes(b"no weights at all")
    with pytest.raises(TrainingError, match="cannot be loaded"):
        build_backbone("resnet10t", pretrained=str(wrong), side_px=32)


@pytest.mark.parametrize("backbone", ["resnet10t", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("named", ["file", "checkpoint", "run"])
def test_a_run_of_ours_gives_its_backbone(tmp_path, backbone, named, capfd):
    source = build(backbone, side_px=32)
    folder = tmp_path / "run" / "checkpoints" / "best"
    save_checkpoint(
        folder,
        source,
        class_ids=[0, 1, 2, 3, 4],
        class_keys=list("abcde"),
        class_names=list("abcde"),
        recipe={},
        table_fingerprint="t",
        figures={},
        state=None,
    )
    place = {"file": folder / "weights.safetensors", "checkpoint": folder, "run": tmp_path / "run"}[named]
    torch.manual_seed(5)
    loaded, _ = build_backbone(backbone, pretrained=str(place), side_px=48)  # of another size, as a later run may be
    wanted = source.backbone.network.state_dict()
    for name, value in loaded.network.state_dict().items():
        if value.shape == wanted[name].shape:  # the positions of a vision transformer are interpolated
            torch.testing.assert_close(value, wanted[name])
    assert "pooling, neck and heads are new" in capfd.readouterr().err
    with pytest.raises(TrainingError, match="same timm model"):
        build_backbone("resnet18", pretrained=str(place), side_px=32)
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="damaged"):
        build_backbone(backbone, pretrained=str(place), side_px=48)


def test_views_average_embeddings_and_logits_and_keep_the_plain_ones():
    network = build()
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    crops = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    plan = [(0, False, 0), (0, True, 0), (1, False, 0), (0, False, 1), (0, True, 2)]
    recognise = ViewRecognizer(network, plan, device=torch.device("cpu"), dtype=torch.float32)
    plain, together = recognise([images, crops])
    turned = [
        torch.from_numpy(np.rot90(pixels, turns, axes=(1, 2)).copy())
        for pixels, turns in ((images.numpy(), 1), (images.flip(2).numpy(), 2))
    ]
    with torch.inference_mode():
        single = [network(batch) for batch in (images, images.flip(2), crops, *turned)]
    torch.testing.assert_close(plain.embeddings, single[0].embeddings)
    torch.testing.assert_close(together.logits, sum(one.logits for one in single) / 5)
    torch.testing.assert_close(together.embeddings, F.normalize(sum(one.embeddings for one in single), dim=1))


def test_probabilities_are_averaged_where_that_is_asked_even_those_too_small_to_hold():
    network = build()
    with torch.no_grad():
        network.head.linear.weight.mul_(300.0)
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    plan, cpu = [(0, False, 0), (0, True, 0), (0, False, 1)], torch.device("cpu")
    plain, together = ViewRecognizer(network, plan, device=cpu, dtype=torch.float32, average="probabilities")([images])
    by_logits = ViewRecognizer(network, plan, device=cpu, dtype=torch.float32)([images])
    with torch.inference_mode():
        turned = torch.from_numpy(np.rot90(images.numpy(), axes=(1, 2)).copy())
        logits = [network(batch).logits.double() for batch in (images, images.flip(2), turned)]
    expected = sum(one.softmax(dim=1) for one in logits) / 3
    torch.testing.assert_close(together.logits.double().softmax(dim=1), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.logits.double().exp(), expected, atol=1e-5, rtol=1e-4)
    assert together.logits.isfinite().all()
    assert (by_logits[1].logits.softmax(dim=1).double() - expected).abs().max() > 0.01
    torch.testing.assert_close(by_logits[1].embeddings, together.embeddings)
    torch.testing.assert_close(plain.logits, by_logits[0].logits)


def test_a_plan_without_views_is_refused():
    with pytest.raises(ValueError, match="plain view"):
        ViewRecognizer(build(), [], device=torch.device("cpu"), dtype=torch.float32)


def test_a_cpu_sees_few_enough_images_at_a_time(monkeypatch):
    network = build()
    images = torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8)
    cpu, plan = torch.device("cpu"), [(0, False, 0), (0, True, 0)]
    whole = ViewRecognizer(network, plan, device=cpu, dtype=torch.float32)([images])
    monkeypatch.setattr(inference, "_CHUNK_BYTES", 2 * 3 * inference.measure_largest(network, images[:1]))
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    parts = ViewRecognizer(network, plan, device=cpu, dtype=torch.float32)([images])
    assert seen == [1] + [2, 2, 2, 1] * 2  # the first is measured
    for all_at_once, chunked in zip(whole, parts, strict=True):
        torch.testing.assert_close(chunked, all_at_once)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "resnet10t"])
def test_synchronised_norms_keep_their_activations(backbone):
    network = build(backbone)
    for module in network.modules():  # random weights alone would hide an activation that is lost
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        before = network(images)
    converted = synchronise_norms(network).eval()
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules())
    with torch.inference_mode():
        after = converted(images)
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.embeddings, before.embeddings)


def test_a_linear_neck_has_no_batch_norm_and_its_embedding_depends_on_its_own_image_alone():
    plain, normed = build(neck="linear").train(), build().train()
    assert not any(isinstance(part, nn.BatchNorm1d) for part in plain.neck.modules())
    assert any(isinstance(part, nn.BatchNorm1d) for part in normed.neck.modules())
    features = torch.randn(4, plain.neck.linear.in_features, generator=torch.Generator().manual_seed(0))
    for network, is_alone in ((plain, True), (normed, False)):
        both, one = network.neck(features)[:2], network.neck(features[:2])
        assert torch.allclose(both, one, atol=1e-6) == is_alone
        torch.testing.assert_close(both.norm(dim=1), torch.ones(2))
