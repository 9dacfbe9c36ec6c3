"""The network of a checkpoint, as the recipe in it says, ready to recognise."""

from __future__ import annotations

from productrec.models.recognizer import Recognizer, build_recognizer
from productrec.recipe import build_recipe
from productrec.training.run.checkpoint import Checkpoint


def load_network(checkpoint: Checkpoint) -> Recognizer:
    """The network of a checkpoint, ready to recognise; no pretrained weights are looked for."""
    trained = build_recipe(checkpoint.recipe)
    network = build_recognizer(
        backbone=trained.model.backbone,
        pretrained=False,
        side_px=trained.train.side_px,
        pooling=trained.model.pooling,
        gem_power=trained.model.gem_power,
        embedding_dim=trained.model.embedding_dim,
        class_count=len(checkpoint.class_ids),
    )
    checkpoint.load_weights(network)
    return network.eval()
