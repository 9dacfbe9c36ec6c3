"""Settings of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from productrec.settings.fields import Positive, PositiveFloat, Settings, ShareBelowOne, setting

NO_TOWER = "none"


class TextSettings(Settings):
    """The text tower, which puts titles into the space of the images' embeddings."""

    tower: str = setting(
        NO_TOWER,
        "what reads titles: none; gru or transformer, which learn from the titles at hand alone; minilm, whose weights "
        "are a package's; or the name or folder of a Hugging Face text encoder",
    )
    reads: Literal["title", "description", "both"] = setting(
        "title", "the words of an image: its own title, its class's description, or both"
    )
    vocabulary: Positive = setting(8192, "pieces of words that the tokeniser of a gru or transformer learns, at most")
    max_tokens: Positive = setting(48, "pieces of a title that are read; what follows is left out")
    width: Positive = setting(256, "numbers a piece is held in, of a gru or transformer")
    layers: Positive = setting(1, "blocks of a transformer, or layers of a gru")
    heads: Positive = setting(4, "attention heads of a transformer's block")
    dropout: ShareBelowOne = setting(0.1, "dropout in a gru or transformer")
    freeze: bool = setting(False, "leave a pretrained encoder as it is and learn only what brings it into the space")
    rate_factor: PositiveFloat = setting(1.0, "learning rate of a pretrained encoder, times that of the backbone")

    @model_validator(mode="after")
    def _check_freeze(self) -> TextSettings:
        if self.freeze and self.tower in (NO_TOWER, "gru", "transformer"):
            raise ValueError(
                f"freeze leaves a pretrained encoder as it is; {self.tower} has none. Name one (minilm), or train it"
            )
        return self

    @property
    def is_wanted(self) -> bool:
        """Whether there is a tower."""
        return self.tower != NO_TOWER


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
    text: TextSettings = TextSettings()
