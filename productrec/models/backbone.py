"""The backbone: any timm model as a map from images to a feature map; the one user of timm."""

from __future__ import annotations

import contextlib
import difflib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models import group_parameters, load_checkpoint
from torch import Tensor, nn

from productrec.console import say
from productrec.errors import RecipeError, TrainingError, describe_error, describe_offenders
from productrec.models.weights.files import find_weights, read_own_weights
from productrec.models.weights.hub import reach_hub, stay_offline
from productrec.models.weights.packages import read_package
from productrec.models.weights.source import WeightsSource, find_source

_FUSED = "fused_attn"  # timm's name for it, in every kind of attention


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel (RGB, of pixels in [0, 1]) that the backbone was made for."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Backbone(nn.Module):
    """A timm model without its classifier; whatever its layout, it gives (B, C, H, W) features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.feature_dim = int(network.num_features)  # type: ignore[arg-type]
        self._layout = str(getattr(network, "output_fmt", "NCHW"))
        self._prefix_tokens = int(getattr(network, "num_prefix_tokens", 0))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised images to (B, C, H, W) features; tokens that are no square become (B, C, T, 1)."""
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        if features.ndim == 3:
            tokens = features[:, self._prefix_tokens :] if features.shape[1] > self._prefix_tokens else features
            side = math.isqrt(tokens.shape[1])
            height = side if side**2 == tokens.shape[1] else tokens.shape[1]
            return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, -1)
        if self._layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        if features.ndim == 2:
            return features[..., None, None]
        return features


def synchronise_norms(module: nn.Module) -> nn.Module:
    """Batch norms that see the images of all ranks, with the activations that timm's norms have in them; in place."""
    converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


def find_stages(network: nn.Module, *, needed_for: str) -> dict[str, int]:
    """Stage of each parameter of a timm model, from 0 (the stem), by its name.

    Stages are those of timm's coarse ``group_matcher``: of a transformer its blocks. What that leaves over, such as a
    final norm, belongs to the last.

    Raises:
        RecipeError: the network tells none; ``needed_for`` says what wants them.
    """
    try:
        matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    except (AttributeError, AssertionError):  # timm asserts where a model has fine groups alone
        raise RecipeError(
            f"{needed_for}: must have a backbone that tells its stages; {type(network).__name__} tells none. "
            "Leave the setting at its default, or take another backbone."
        ) from None
    if isinstance(matcher, dict):
        # timm's sign for "belongs to the group before", here for whatever no other pattern matches.
        matcher = {**matcher, "rest": (("", (99999,)),)}
    stages: dict[str, int] = group_parameters(network, matcher, reverse=True)
    return stages


@contextlib.contextmanager
def spell_out_attention(network: nn.Module) -> Iterator[None]:
    """Let timm's attention be matrix products and a softmax for a while, instead of torch's one fused function.

    The fused one lays its answer out in another order than what it is taken apart into, which ends an export.
    """
    fused = [module for module in network.modules() if getattr(module, _FUSED, False)]
    for module in fused:
        setattr(module, _FUSED, False)
    try:
        yield
    finally:
        for module in fused:
            setattr(module, _FUSED, True)


def build_backbone(
    name: str,
    *,
    pretrained: bool | str,
    side_px: int,
    drop_path: float = 0.0,
    weights_folder: Path | None = None,
) -> tuple[Backbone, Normalisation]:
    """Make a timm model by name.

    Args:
        name: any name timm lists.
        pretrained: true for timm's own weights, from where `find_source` finds them; false for random ones; or a path:
            a local ``.safetensors`` or ``.pth`` file of timm's, or a run folder, a checkpoint in it or its weights,
            whose backbone is taken. Files are loaded as weights only, never as code.
        side_px: side of the images it will see; models of a fixed size are built for it.
        drop_path: stochastic depth rate, where the model has it.
        weights_folder: where weights are looked for first, if ``pretrained`` is true.

    Raises:
        ArtifactError: the checkpoint that weights are taken from is damaged.
        TrainingError: no such model (the nearest names are given), or its weights cannot be had or do not fit.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise TrainingError(
            f"model.backbone: timm knows no {name!r}. " + (f"Did you mean {' or '.join(near)}?" if near else "")
        )
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    if pretrained is True:
        network = _build_pretrained(name, side_px, weights_folder, options)
    else:
        weights = find_weights(Path(pretrained)) if isinstance(pretrained, str) else None
        network = _create(name, side_px, options)
        if weights is not None:
            _load_weights(network, name, weights)
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
    return Backbone(network), Normalisation(mean, std)  # type: ignore[arg-type]


def find_pretrained(name: str, weights_folder: Path | None = None) -> WeightsSource:
    """Where `build_backbone` takes a backbone's pretrained weights from on this machine.

    Raises:
        TrainingError: see `find_source`.
    """
    config = timm.get_pretrained_cfg(name)
    hub_id = config.hf_hub_id if config is not None else None
    return find_source(name, full_name=_get_full_name(name), hub_id=hub_id, folder=weights_folder)


def describe_backbone(name: str) -> tuple[int, str]:
    """How many learned numbers a backbone has without its classifier, and the licence of its weights, as timm says."""
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, num_classes=0)
    config = timm.get_pretrained_cfg(name)
    return sum(value.numel() for value in network.parameters()), (config.license if config is not None else "") or ""


def get_side(name: str) -> int:
    """Side in pixels of the images that a backbone's pretrained weights were made for."""
    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None else 224


def is_backbone(name: str) -> bool:
    """Whether timm knows a model by this name, a tag of its weights (``resnet50.a1_in1k``) among them."""
    return bool(timm.is_model(name))


def _build_pretrained(name: str, side_px: int, folder: Path | None, options: dict[str, Any]) -> nn.Module:
    source = find_pretrained(name, folder)
    say(f"backbone {name}: pretrained weights from {source.name}")
    if source.kind == "cache":
        with stay_offline():
            return _create(name, side_px, options, pretrained=True)
    if source.kind == "hub":
        with reach_hub(name):
            return _create(name, side_px, options, pretrained=True)
    network = _create(name, side_px, options)
    if source.package is not None and source.path is not None:
        names = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        network.load_state_dict(read_package(source.package, source.path, names))
    elif source.path is not None:
        _load_weights(network, name, source.path)
    return network


def _get_full_name(name: str) -> str:
    config = timm.get_pretrained_cfg(name)
    tag = config.tag if config is not None else None
    return f"{name.partition('.')[0]}.{tag}" if tag else name


def _create(name: str, side_px: int, options: dict[str, Any], *, pretrained: bool = False) -> nn.Module:
    """A timm model without its classifier, with random weights or with timm's own from its cache or hub."""
    sizes: tuple[dict[str, Any], ...] = ({"img_size": side_px}, {})
    for extra in sizes:  # vision transformers want to know the size, convolutional nets refuse it
        try:
            network: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options, **extra)
            return network
        except TypeError as error:
            if extra:
                continue
            raise TrainingError(f"model: {name} cannot be built ({error}). drop_path may not apply to it.") from None
        except Exception as error:  # a hub that goes out of reach raises one of many kinds
            raise TrainingError(
                f"model: {name} cannot be built with its weights ({describe_error(error)}). "
                "Give model.pretrained=false for random weights, or the path of a local file."
            ) from None
    raise AssertionError("the last of the sizes returns or raises")


def _load_weights(network: nn.Module, name: str, path: Path) -> None:
    """Load a file in timm's format, one that timm knows to convert, or a checkpoint of ours; heads in it are left out.

    Args:
        network: of timm, changed in place.
        name: timm's, for messages.
        path: of the file, see `find_weights`.

    Raises:
        TrainingError: the file cannot be read, or a weight of the backbone is not in it, or of another shape.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    own = read_own_weights(path)
    try:
        if own:
            state = convert(own, network) if convert else own
            missing = list(network.load_state_dict(state, strict=False).missing_keys)
        else:
            missing = list(load_checkpoint(network, str(path), strict=False, filter_fn=convert).missing_keys)
    except Exception as error:  # damaged and foreign files raise one of many kinds
        raise TrainingError(
            f"{path}: cannot be loaded as weights of {name} ({describe_error(error)}). "
            "Take a file of the same timm model."
        ) from None
    if missing:
        raise TrainingError(
            f"{path}: must hold every weight of the backbone {name}; {describe_offenders(missing, 3)} are not in it. "
            "Take a file of the same timm model."
        )
    if own:
        say(f"backbone {name}: {len(own)} weights taken from {path}; pooling, neck and heads are new")
