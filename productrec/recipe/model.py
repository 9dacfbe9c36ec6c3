"""Settings of the network."""

from __future__ import annotations

from typing import Literal

from productrec.settings.fields import Positive, PositiveFloat, Settings, ShareBelowOne, setting


class ModelSettings(Settings):
    """The backbone and the two heads on it."""

    backbone: str = setting("resnet50", "any timm model name")
    pretrained: bool | str = setting(
        True,
        "true: timm's weights; false: random; a path: a weights file, or a run whose backbone is taken",
    )
    pooling: Literal["gem", "average"] = setting("gem", "how the feature map becomes one vector")
    gem_power: PositiveFloat = setting(3.0, "initial GeM exponent, learned")
    embedding_dim: Positive = setting(512, "D, dimensions of the embedding")
    drop_path: ShareBelowOne = setting(0.0, "stochastic depth rate, where the backbone has it")
    dropout: ShareBelowOne = setting(0.0, "dropout before the classification head")
