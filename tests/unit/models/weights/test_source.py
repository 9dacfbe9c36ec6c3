"""Pretrained weights: the first place that has them gives them, and each fault is one clear line."""

import shutil

import pytest
import torch
from huggingface_hub import constants

from productrec.errors import ArtifactError, TrainingError
from productrec.models.backbone import build_backbone, find_pretrained, get_side
from productrec.models.weights import hub, packages
from productrec.models.weights.folder import list_folder, save_weights
from productrec.models.weights.packages import PACKAGES, get_package, locate_package

LITE = "tf_efficientnet_lite0"


def save(folder, name, seed):
    torch.manual_seed(seed)
    network, _ = build_backbone(name, pretrained=False, side_px=64)
    return save_weights(folder, name, network.network.state_dict(), licence="mit", source="a test"), network


def fake_cache(root, hub_id):
    snapshot = root / f"models--{hub_id.replace('/', '--')}" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("0")
    return snapshot


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.backbone)
def test_a_package_gives_the_weights_of_its_backbone(package, capfd):
    network, normalisation = build_backbone(package.backbone, pretrained=True, side_px=64)
    assert f"pretrained weights from package {package.distribution} 0.1.0" in capfd.readouterr().err
    state = torch.load(locate_package(package) / package.file, weights_only=True)
    loaded = network.network.state_dict()
    torch.testing.assert_close(loaded["conv_stem.weight"], state["_conv_stem.weight"])
    torch.testing.assert_close(loaded["bn2.running_var"], state["_bn1.running_var"])
    assert normalisation.mean == (0.5, 0.5, 0.5)
    assert get_package(f"{package.backbone}.in1k") is package


def test_the_order_is_folder_cache_package_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    file, saved = save(folder, LITE, seed=3)
    source = find_pretrained(LITE, folder)
    assert (source.kind, source.path) == ("folder", file)
    loaded, _ = build_backbone(LITE, pretrained=True, side_px=64, weights_folder=folder)
    for name, value in saved.network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value)
    assert find_pretrained(LITE).kind == "package"
    (fake_cache(tmp_path / "cache", "timm/tf_efficientnet_lite0.in1k") / "model.safetensors").write_bytes(b"x")
    assert find_pretrained(LITE).kind == "cache"
    assert find_pretrained(LITE, folder).kind == "folder"
    assert find_pretrained("resnet10t", folder).kind == "hub"


def test_a_package_of_another_version_or_a_changed_file_is_refused(tmp_path, monkeypatch):
    package = get_package(LITE)
    copied = tmp_path / "package"
    shutil.copytree(locate_package(package), copied)
    monkeypatch.setattr("productrec.models.weights.source.locate_package", lambda package: copied)
    data = bytearray((copied / package.file).read_bytes())
    data[1000] ^= 1
    (copied / package.file).write_bytes(bytes(data))
    with pytest.raises(TrainingError, match=r"must have the SHA-256 579344248a93e230.*--reinstall"):
        build_backbone(LITE, pretrained=True, side_px=64)
    (copied / package.file).unlink()
    with pytest.raises(TrainingError, match="is missing"):
        build_backbone(LITE, pretrained=True, side_px=64)
    monkeypatch.setattr(packages.metadata, "version", lambda name: "0.2.0")
    with pytest.raises(TrainingError, match=r"must be version 0\.1\.0; got 0\.2\.0"):
        build_backbone(LITE, pretrained=True, side_px=64)


def test_a_timm_that_builds_the_backbone_otherwise_is_refused():
    package = get_package(LITE)
    network, _ = build_backbone(LITE, pretrained=False, side_px=64)
    names = {name: tuple(value.shape) for name, value in network.network.state_dict().items()}
    names["conv_stem.weight"] = (32, 3, 5, 5)
    with pytest.raises(TrainingError, match="one for one"):
        packages.read_package(package, locate_package(package), names)


def test_a_folder_with_another_networks_file_is_refused(tmp_path):
    file, _ = save(tmp_path, "resnet10t", seed=0)
    file.rename(tmp_path / f"{LITE}.safetensors")
    with pytest.raises(TrainingError, match=r"must hold the weights of tf_efficientnet_lite0.*those of resnet10t"):
        build_backbone(LITE, pretrained=True, side_px=64, weights_folder=tmp_path)
    shutil.move(tmp_path / f"{LITE}.safetensors", tmp_path / "resnet10t.safetensors")
    torch.save({"something": torch.zeros(1)}, tmp_path / f"{LITE}.pth")  # it says nothing of itself
    with pytest.raises(TrainingError, match="must hold every weight of the backbone"):
        build_backbone(LITE, pretrained=True, side_px=64, weights_folder=tmp_path)
    (tmp_path / "resnet10t.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be loaded as weights"):
        list_folder(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="must be a folder of weights files"):
        build_backbone(LITE, pretrained=True, side_px=64, weights_folder=tmp_path / "none")


def test_what_is_in_the_folder_stays(tmp_path):
    file, _ = save(tmp_path, "resnet10t", seed=0)
    before = file.read_bytes()
    with pytest.raises(ArtifactError, match="stays as it is"):
        save(tmp_path, "resnet10t", seed=1)
    assert file.read_bytes() == before


def test_a_vision_transformer_is_carried_and_takes_another_side(tmp_path):
    _, saved = save(tmp_path, "vit_tiny_patch16_224", seed=0)
    loaded, _ = build_backbone("vit_tiny_patch16_224", pretrained=True, side_px=96, weights_folder=tmp_path)
    name = "blocks.3.attn.qkv.weight"
    torch.testing.assert_close(loaded.network.state_dict()[name], saved.network.state_dict()[name])


def test_the_cache_lists_weights_that_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert hub.list_cached() == []
    (fake_cache(tmp_path, "timm/resnet10t.c3_in1k") / "model.safetensors").write_bytes(b"12345")
    (fake_cache(tmp_path, "timm/resnet18.a1_in1k") / "config.json").write_text("{}")
    (fake_cache(tmp_path, "other/resnet50") / "model.safetensors").write_bytes(b"1")
    assert [(weights.backbone, weights.size_bytes) for weights in hub.list_cached()] == [("resnet10t.c3_in1k", 5)]


def test_a_hub_out_of_reach_or_forbidden_is_one_line_at_once(tmp_path, monkeypatch, capfd):
    class Unreachable:
        def head(self, address, timeout):
            raise OSError("no route")

    monkeypatch.setattr(hub, "get_session", Unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TrainingError, match=r"not on this machine, and nothing answers at.*productrec weights"):
        build_backbone("resnet10t", pretrained=True, side_px=64)
    assert "Retrying" not in capfd.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TrainingError, match="HF_HUB_OFFLINE forbids"):
        build_backbone("resnet10t", pretrained=True, side_px=64)


def test_the_side_of_the_weights_is_known():
    assert [get_side(package.backbone) for package in PACKAGES] == [224, 240, 260]
