"""The indexes of a run, one a preset of gallery views, and its network to grow them with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.network import load_network
from productrec.assembly.photo_batches import PhotoRecognizer
from productrec.assembly.resources import choose_loader_workers, claim_resources
from productrec.data.images import FileImages
from productrec.data.view_presets import get_views
from productrec.errors import ArtifactError
from productrec.models.recognizer import Recognizer
from productrec.recipe import Recipe
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint


def list_indexes(run: Path) -> list[Path]:
    """The index folders of a run, by name of their gallery's views.

    Raises:
        ArtifactError: there is none.
    """
    folders = sorted((run / "index").iterdir()) if (run / "index").is_dir() else []
    found = [folder for folder in folders if "." not in folder.name and (folder / MANIFEST_NAME).is_file()]
    if not found:
        raise ArtifactError(f"{run}: has no index yet. Make one: productrec predict {run}")
    return found


@dataclass(frozen=True)
class Embedder:
    """A run's network, ready to embed photos as its gallery was."""

    recipe: Recipe
    checkpoint: Checkpoint
    network: Recognizer
    device: torch.device
    dtype: torch.dtype

    @property
    def side_px(self) -> int:
        """Side of the squares that the network sees."""
        return int(self.checkpoint.recipe["train"]["side_px"])

    def embed(self, paths: Sequence[str], views: str) -> Iterator[tuple[list[int], np.ndarray]]:
        """Positions of the photos that could be read, and their embeddings (B, D), batch by batch."""
        recognizer = PhotoRecognizer(
            self.network,
            views=get_views(views, self.recipe.predict.own_views),
            side_px=self.side_px,
            device=self.device,
            dtype=self.dtype,
            workers=choose_loader_workers(self.recipe, self.device),
            average=self.recipe.predict.average,
            seed=self.recipe.seed,
        )
        for seen in recognizer.go_through(FileImages(paths), batch_size=self.recipe.predict.batch_size):
            good = [place for place, row in enumerate(seen.rows) if row not in seen.broken]
            yield [seen.rows[place] for place in good], seen.embeddings[good]


def load_embedder(run: Path, recipe: Recipe) -> Embedder:
    """The network of a run.

    Raises:
        ArtifactError: no checkpoint, or one that was written before class names were kept.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    if not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    resources = claim_resources(recipe, run)
    network = load_network(checkpoint).to(resources.device)
    return Embedder(recipe, checkpoint, network, resources.device, resources.dtype)


def name_views(recipe: Recipe, views: str) -> list[str]:
    """Names of the views of a preset, as an index keeps them."""
    return [view.title for view in get_views(views, recipe.predict.own_views)]
