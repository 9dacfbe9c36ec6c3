"""Settings of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from productrec.settings.fields import Positive, PositiveFloat, Settings, ShareBelowOne, setting


class ModelSettings(Settings):
    """The backbone and the two heads on it."""

    backbone: str = setting("resnet50", "any timm model name")
    pretrained: bool | str = setting(
        True,
        "true: timm's weights, from model.weights_folder, the hub's cache, a package or the hub, in this order; false: "
        "random; a path: a weights file, or a run whose backbone is taken",
    )
    weights_folder: Path | None = setting(
        None,
        "folder of weights files that `productrec weights fetch` wrote, looked in first where model.pretrained is true",
        decides="nothing",
    )
    pooling: Literal["gem", "average"] = setting("gem", "how the feature map becomes one vector")
    gem_power: PositiveFloat = setting(3.0, "initial GeM exponent, learned")
    embedding_dim: Positive = setting(512, "D, dimensions of the embedding")
    neck: Literal["batch_norm", "linear"] = setting(
        "batch_norm",
        "what makes the embedding of the pooled features: a linear layer, with batch norm behind it or alone",
    )
    drop_path: ShareBelowOne = setting(0.0, "stochastic depth rate, where the backbone has it")
    dropout: ShareBelowOne = setting(0.0, "dropout before the classification head")
