"""The recognizer: backbone, pooling, and two heads, an embedding for retrieval and logits for classification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from productrec.models.backbone import Backbone, Normalisation, build_backbone
from productrec.models.neck import EmbeddingNeck
from productrec.models.pooling import AveragePooling, GeMPooling
from productrec.models.text.tower import TextTower

Neck = Literal["batch_norm", "linear"]


class Recognized(NamedTuple):
    """What the network says of a batch: embeddings (B, D) float32 of unit norm, logits (B, C) float32."""

    embeddings: Tensor
    logits: Tensor


class ClassificationHead(nn.Module):
    """Dropout and a linear layer: (B, F) features to (B, C) logits."""

    def __init__(self, feature_dim: int, class_count: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(feature_dim, class_count)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(features))
        return logits.float()


class NoClasses(nn.Module):
    """A head without classes, of a network that learns from titles alone: (B, F) features to (B, 0) logits."""

    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros((len(features), 0), dtype=torch.float32)


class Recognizer(nn.Module):
    """uint8 images in, embeddings and logits out; carries its own normalisation, so that no caller can forget it."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        pooling: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        normalisation: Normalisation,
        text: TextTower | None = None,
    ) -> None:
        """``text``: the tower that embeds titles in the same space, for recognizers that have one."""
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.neck = neck
        self.head = head
        self.text = text
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Recognized:
        """Recognise images.

        Args:
            images: (B, S, S, 3) uint8 RGB.

        Returns:
            Embeddings and logits, see `Recognized`.
        """
        return self.recognise_features(self.extract_features(images))

    def extract_features(self, images: Tensor) -> Tensor:
        """Pooled features (B, F), float32, of images (B, S, S, 3) uint8 RGB."""
        features: Tensor = self.pooling(self.extract_maps(images))
        return features

    def recognise_features(self, features: Tensor) -> Recognized:
        """What both heads say of pooled features (B, F)."""
        return Recognized(self.neck(features), self.head(features))

    def recognise_both(self, images: Tensor, others: Tensor) -> tuple[Recognized, Tensor]:
        """Recognise images and others that are classified alone, as one batch.

        Args:
            images: (B, S, S, 3) uint8 RGB.
            others: (B, S, S, 3) uint8 RGB, such as destroyed copies.

        Returns:
            Embeddings (B, D) of the images, logits (2 B, C) of both; and the feature maps (2 B, F, H, W) of both.
        """
        maps = self.extract_maps(torch.cat([images, others]))
        features = self.pooling(maps)
        return Recognized(self.neck(features[: len(images)]), self.head(features)), maps

    def extract_maps(self, images: Tensor) -> Tensor:
        """Feature maps (B, F, H, W) of images (B, S, S, 3) uint8 RGB."""
        # NHWC pixels seen as NCHW are already in channels-last memory order: nothing is copied but the conversion.
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        maps: Tensor = self.backbone(pixels)
        return maps

    def iterate_head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of everything but the backbone and the text tower."""
        towers = ("backbone.", "text.")
        return ((name, value) for name, value in self.named_parameters() if not name.startswith(towers))


def build_recognizer(
    *,
    backbone: str,
    pretrained: bool | str,
    side_px: int,
    pooling: str,
    gem_power: float,
    embedding_dim: int,
    class_count: int,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    neck: Neck = "batch_norm",
    weights_folder: Path | None = None,
    build_head: Callable[[int], nn.Module] | None = None,
    text: TextTower | None = None,
) -> Recognizer:
    """Build the network in channels-last memory order; weights beyond the backbone's are random.

    ``weights_folder`` is where pretrained weights are looked for first. ``build_head`` makes another head than a
    `ClassificationHead`, of the number of features F; without classes there is none. ``text`` is the text tower.

    Raises:
        TrainingError: the backbone cannot be built.
    """
    body, normalisation = build_backbone(
        backbone, pretrained=pretrained, side_px=side_px, drop_path=drop_path, weights_folder=weights_folder
    )
    recognizer = Recognizer(
        body,
        GeMPooling(gem_power) if pooling == "gem" else AveragePooling(),
        EmbeddingNeck(body.feature_dim, embedding_dim, batch_norm=neck == "batch_norm"),
        _build_head(body.feature_dim, class_count, dropout) if build_head is None else build_head(body.feature_dim),
        normalisation,
        text,
    )
    return recognizer.to(memory_format=torch.channels_last)


def _build_head(feature_dim: int, class_count: int, dropout: float) -> nn.Module:
    return ClassificationHead(feature_dim, class_count, dropout) if class_count else NoClasses()
