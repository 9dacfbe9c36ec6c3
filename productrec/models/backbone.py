"""The backbone: any timm model as a map from images to a feature map; the one user of timm."""

from __future__ import annotations

import contextlib
import difflib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models import load_checkpoint
from torch import Tensor, nn

from productrec.console import say
from productrec.errors import TrainingError, describe_error, describe_offenders
from productrec.models.weights import find_weights, reach_hub, read_own_weights


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
            return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], height, -1)
        if self._layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        if features.ndim == 2:
            return features[..., None, None]
        return features


def synchronise_norms(module: nn.Module) -> nn.Module:
    """Batch norms that see the images of all ranks, with the activations that timm's norms have in them; in place."""
    converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


def build_backbone(
    name: str, *, pretrained: bool | str, side_px: int, drop_path: float = 0.0
) -> tuple[Backbone, Normalisation]:
    """Make a timm model by name.

    Args:
        name: any name timm lists.
        pretrained: true for timm's own weights (fetched from their hub), false for random ones, or a path: a local
            ``.safetensors`` or ``.pth`` file of timm's, or a run folder, a checkpoint in it or its weights, whose
            backbone is taken. Files are loaded as weights only, never as code.
        side_px: side of the images it will see; models of a fixed size are built for it.
        drop_path: stochastic depth rate, where the model has it.

    Raises:
        ArtifactError: the checkpoint that weights are taken from is damaged.
        TrainingError: no such model (the nearest names are given), or its weights cannot be had or do not fit.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise TrainingError(
            f"model.backbone: timm knows no {name!r}. " + (f"Did you mean {' or '.join(near)}?" if near else "")
        )
    weights = find_weights(Path(pretrained)) if isinstance(pretrained, str) else None
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    sizes: tuple[dict[str, Any], ...] = ({"img_size": side_px}, {})
    network = None
    for extra in sizes:  # vision transformers want to know the size, convolutional nets refuse it
        try:
            with reach_hub() if pretrained is True else contextlib.nullcontext():
                network = timm.create_model(name, pretrained=pretrained is True, num_classes=0, **options, **extra)
            break
        except TrainingError:
            raise
        except TypeError as error:
            if extra:
                continue
            raise TrainingError(f"model: {name} cannot be built ({error}). drop_path may not apply to it.") from None
        except Exception as error:  # a hub that is out of reach raises one of many kinds
            raise TrainingError(
                f"model: {name} cannot be built with its weights ({describe_error(error)}). "
                "Give model.pretrained=false for random weights, or the path of a local file."
            ) from None
    assert network is not None
    if weights is not None:
        _load_weights(network, name, weights)
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
    return Backbone(network), Normalisation(mean, std)  # type: ignore[arg-type]


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
