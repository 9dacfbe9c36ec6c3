"""The indexes of a run, one a preset of gallery views, and its network to grow them with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.network import load_network
from productrec.assembly.photo_batches import PhotoRecognizer
from productrec.assembly.resources import choose_loader_workers, claim_resources
from productrec.data.images import FileImages
from productrec.data.view_presets import get_views
from productrec.errors import ArtifactError, RecipeError
from productrec.models.recognizer import Recognizer
from productrec.recipe import Recipe
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.embedding_set import JOINED, TEXT
from productrec.retrieval.milvus import Address, parse_address
from productrec.retrieval.remote_catalogue import RemoteCatalogue
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint


def list_indexes(run: Path) -> list[Path]:
    """The index folders of a run, by name of their gallery's views.

    Raises:
        ArtifactError: there is none.
    """
    folders = sorted((run / "index").iterdir()) if (run / "index").is_dir() else []
    of_images = [folder for folder in folders if "." not in folder.name and folder.name not in (TEXT, JOINED)]
    found = [folder for folder in of_images if (folder / MANIFEST_NAME).is_file()]
    if not found:
        raise ArtifactError(f"{run}: has no index yet. Make one: productrec predict {run}")
    return found


class OpenIndex(NamedTuple):
    """An index that a command speaks of: what to call it, the preset of its gallery's views, and its catalogue."""

    where: str
    views: str
    catalogue: Catalogue | RemoteCatalogue


def open_indexes(run: Path, recipe: Recipe | None = None) -> list[OpenIndex]:
    """The indexes of a run: those in its folder, or the one at the address that its recipe names.

    Raises:
        ArtifactError: there is none, or it is damaged.
        StorageError: no server answers at the address.
    """
    if recipe is not None and recipe.predict.index_address is not None:
        return [open_remote(run, recipe)]
    return [OpenIndex(str(folder), folder.name, Catalogue(folder)) for folder in list_indexes(run)]


def open_remote(run: Path, recipe: Recipe) -> OpenIndex:
    """The index at the address that a recipe names; by the names of run and views, where the address names none."""
    address = parse_address(recipe.predict.index_address or "")
    name = address.name or name_remote(run, get_gallery_views(recipe, recipe.predict.tta))
    return open_address(address._replace(name=name))


def open_address(address: Address) -> OpenIndex:
    """The index at an address.

    Raises:
        ArtifactError: there is none.
        RecipeError: no index is named.
    """
    if address.name is None:
        raise RecipeError(f"{address}: must end in the name of an index, as {address}/NAME; got none.")
    remote = RemoteCatalogue(address)
    return OpenIndex(str(address), remote.about.preset, remote)


def name_remote(run: Path, views: str) -> str:
    """What the index of a run is called in a server where nothing else is said."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"productrec_{run.resolve().name}_{views}")[:128]


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
    if checkpoint.class_ids and not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    resources = claim_resources(recipe, run)
    network = load_network(checkpoint).to(resources.device)
    return Embedder(recipe, checkpoint, network, resources.device, resources.dtype)


def name_views(recipe: Recipe, views: str) -> list[str]:
    """Names of the views of a preset, as an index keeps them."""
    return [view.title for view in get_views(views, recipe.predict.own_views)]
