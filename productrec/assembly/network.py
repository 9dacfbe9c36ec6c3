"""The network that a recipe says: built by one function, for training and for prediction alike."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from productrec.models.recognizer import Recognizer, build_recognizer
from productrec.models.text.tokens import Tokeniser
from productrec.models.text.tower import TextTower, build_text_tower
from productrec.recipe import Recipe, build_recipe
from productrec.training.run.checkpoint import Checkpoint


def build_network(
    recipe: Recipe,
    class_count: int,
    *,
    pretrained: bool | str | None = None,
    build_head: Callable[[int], nn.Module] | None = None,
    tokeniser: Tokeniser | None = None,
    encoder_config: str | None = None,
) -> Recognizer:
    """The network of a recipe, on the CPU.

    Args:
        recipe: every setting.
        class_count: C, classes of the head.
        pretrained: weights that it begins with; None for those of the recipe.
        build_head: makes another head than a `ClassificationHead`, of the number of features.
        tokeniser: of its text tower; None for a network without one.
        encoder_config: of a pretrained text encoder whose weights are loaded afterwards; None to begin with its own.

    Raises:
        TrainingError: the backbone, or the text tower, cannot be built.
    """
    text = None if tokeniser is None else _build_text_tower(recipe, tokeniser, encoder_config)
    return build_recognizer(
        backbone=recipe.model.backbone,
        pretrained=recipe.model.pretrained if pretrained is None else pretrained,
        side_px=recipe.train.side_px,
        pooling=recipe.model.pooling,
        gem_power=recipe.model.gem_power,
        embedding_dim=recipe.model.embedding_dim,
        neck=recipe.model.neck,
        class_count=class_count,
        drop_path=recipe.model.drop_path,
        dropout=recipe.model.dropout,
        weights_folder=recipe.model.weights_folder,
        build_head=build_head,
        text=text,
    )


def _build_text_tower(recipe: Recipe, tokeniser: Tokeniser, encoder_config: str | None) -> TextTower:
    text = recipe.model.text
    return build_text_tower(
        text.tower,
        vocabulary_size=tokeniser.vocabulary_size,
        embedding_dim=recipe.model.embedding_dim,
        max_tokens=text.max_tokens,
        width=text.width,
        layers=text.layers,
        heads=text.heads,
        dropout=text.dropout,
        freeze=text.freeze,
        config_json=encoder_config,
    )


def load_network(checkpoint: Checkpoint) -> Recognizer:
    """The network of a checkpoint, ready to recognise; no pretrained weights are looked for.

    Raises:
        ArtifactError: its weights do not fit its recipe.
    """
    recipe, tokeniser, config = build_recipe(checkpoint.recipe), None, None
    if recipe.model.text.is_wanted:
        tokeniser, config = load_tokeniser(checkpoint), checkpoint.load_text()["config"]
    network = build_network(
        recipe, len(checkpoint.class_ids), pretrained=False, tokeniser=tokeniser, encoder_config=config
    )
    checkpoint.load_weights(network)
    return network.eval()


def load_tokeniser(checkpoint: Checkpoint) -> Tokeniser:
    """What makes tokens of titles for a checkpoint's text tower.

    Raises:
        ArtifactError: it has none.
    """
    return Tokeniser.from_json(str(checkpoint.load_text()["tokeniser"]))


def describe_text_tower(network: Recognizer, tokeniser: Tokeniser) -> dict[str, str | None]:
    """What a checkpoint keeps of a network's text tower, see `Checkpoint.load_text`."""
    return {"tokeniser": tokeniser.to_json(), "config": None if network.text is None else network.text.config_json}
