"""The network that a recipe says: built by one function, for training and for prediction alike."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from productrec.models.recognizer import Recognizer, build_recognizer
from productrec.recipe import Recipe, build_recipe
from productrec.training.run.checkpoint import Checkpoint


def build_network(
    recipe: Recipe,
    class_count: int,
    *,
    pretrained: bool | str | None = None,
    build_head: Callable[[int], nn.Module] | None = None,
) -> Recognizer:
    """The network of a recipe, on the CPU.

    Args:
        recipe: every setting.
        class_count: C, classes of the head.
        pretrained: weights that it begins with; None for those of the recipe.
        build_head: makes another head than a `ClassificationHead`, of the number of features.

    Raises:
        TrainingError: the backbone cannot be built.
    """
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
    )


def load_network(checkpoint: Checkpoint) -> Recognizer:
    """The network of a checkpoint, ready to recognise; no pretrained weights are looked for.

    Raises:
        ArtifactError: its weights do not fit its recipe.
    """
    network = build_network(build_recipe(checkpoint.recipe), len(checkpoint.class_ids), pretrained=False)
    checkpoint.load_weights(network)
    return network.eval()
