"""Pretrained text encoders of Hugging Face, from a folder; the one user of transformers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from productrec.errors import TrainingError, describe_error, describe_offenders
from productrec.models.text.pooling import average_tokens, mark_tokens

_EXTRA = "productrec[text]"


class PretrainedEncoder(nn.Module):
    """A network of transformers without its task's head; a title's features are the mean over its subwords."""

    def __init__(self, network: nn.Module, config: Any) -> None:
        super().__init__()
        if getattr(network, "pooler", None) is not None:  # not asked here, and a parameter that never gets a gradient
            network.register_module("pooler", None)
        self.network = network
        self.feature_dim = int(config.hidden_size)
        self.vocabulary_size = int(config.vocab_size)
        self.max_tokens = _count_positions(config)
        self.config_json: str = config.to_json_string(use_diff=False)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) subwords of which ``lengths`` (B,) count, to (B, F) features; what fills a row up changes nothing."""
        is_token = mark_tokens(ids, lengths)
        states = self.network(input_ids=ids, attention_mask=is_token.long()).last_hidden_state
        return average_tokens(states, is_token)


def load_encoder(folder: Path) -> PretrainedEncoder:
    """The encoder in a folder that `find_encoder_folder` found, weights and all; nothing else is read.

    Only safetensors are loaded, and no code of the folder is run.

    Raises:
        TrainingError: transformers is not installed, or cannot make a text encoder of the folder.
    """
    transformers = _import()
    with _be_quiet(transformers):
        try:
            network, report = transformers.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # it raises one of many kinds
            raise _refuse(str(folder), describe_error(error)) from None
    unused = ("pooler.", "decoder.") if _has_decoder(network) else ("pooler.",)
    missing = sorted(key for key in report["missing_keys"] if not any(part in key for part in unused))
    if missing:
        raise TrainingError(
            f"text tower: {folder} must hold all weights of its config.json; it lacks {describe_offenders(missing)}. "
            "Copy its files again."
        )
    return _wrap(network, str(folder))


def build_encoder(config_json: str) -> PretrainedEncoder:
    """An encoder with random weights, as one of a run is built before its own weights are loaded.

    Args:
        config_json: `PretrainedEncoder.config_json` of the one that was trained.

    Raises:
        TrainingError: transformers is not installed, or knows no such network.
    """
    transformers = _import()
    try:
        settings = json.loads(config_json)
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        network = transformers.AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # it raises one of many kinds
        raise _refuse("the run's encoder", describe_error(error)) from None
    return _wrap(network, "the run's encoder")


def _wrap(network: Any, where: str) -> PretrainedEncoder:
    if _has_decoder(network):
        network = network.get_encoder()
    config = network.config
    lacking = [name for name in ("hidden_size", "vocab_size") if not isinstance(getattr(config, name, None), int)]
    if lacking or network.get_input_embeddings() is None:
        raise _refuse(where, f"{type(network).__name__} reads no text alone")
    return PretrainedEncoder(network, config)


def _has_decoder(network: Any) -> bool:
    """Whether a network also writes, as T5 does, so that only its encoder is of use."""
    return hasattr(network, "encoder") and hasattr(network, "decoder")


def _count_positions(config: Any) -> int | None:
    """Subwords that the network can tell apart by position; None where it needs no table of them."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa and its kin count from behind the number that fills up.
    offset = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type or config.model_type == "mpnet" else 0
    return int(positions) - offset


def _import() -> Any:
    try:
        import transformers
    except ImportError:
        raise TrainingError(
            "text tower: a pretrained encoder needs transformers, which is not installed. "
            f"`uv pip install '{_EXTRA}'`, or take gru or transformer, which need neither it nor a download."
        ) from None
    return transformers


@contextlib.contextmanager
def _be_quiet(transformers: Any) -> Iterator[None]:
    """Keep its progress bar and its report of weights off the terminal: what matters of them is told by us."""
    logging = transformers.utils.logging
    had_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


def _refuse(where: str, why: str) -> TrainingError:
    return TrainingError(
        f"text tower: {where} must be a text encoder that transformers can build; got {why}. Name another encoder, or "
        "take minilm, gru or transformer."
    )
