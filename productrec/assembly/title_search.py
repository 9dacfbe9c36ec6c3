"""Search by words: a run's towers put titles and photos into one space, where its indexes hold images and titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.network import load_tokeniser
from productrec.assembly.run_indexes import Embedder, load_embedder
from productrec.assembly.titles import list_titles
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable, load_table
from productrec.data.titles import normalise_title
from productrec.errors import ArtifactError, ProductrecError
from productrec.models.text.embed_titles import embed_titles
from productrec.models.text.tokens import Tokeniser
from productrec.models.text.tower import TextTower
from productrec.recipe import Recipe
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.embedding_set import TEXT, EmbeddingSet

Target = Literal["images", "titles"]


@dataclass(frozen=True)
class Hit:
    """What was found: an image of the gallery, its class's ``key`` and ``name``, its ``title``, and the similarity.

    ``key`` and ``name`` are empty where the gallery has no classes, ``title`` where the image has none.
    """

    image_id: str
    key: str
    name: str
    title: str
    similarity: float


@dataclass(frozen=True)
class TitleSearch:
    """A run that is searched by words, or whose titles are."""

    run: Path
    recipe: Recipe
    embedder: Embedder
    tower: TextTower
    tokeniser: Tokeniser
    catalogue: Catalogue
    names: dict[str, str]
    titles: dict[str, str]

    def embed_words(self, words: Sequence[str]) -> np.ndarray:
        """Embeddings (Q, D) of titles."""
        return embed_titles(
            self.tower,
            self.tokeniser,
            [normalise_title(text) for text in words],
            batch_size=self.recipe.predict.batch_size,
            device=self.embedder.device,
            dtype=self.embedder.dtype,
        )

    def embed_photos(self, paths: Sequence[str]) -> tuple[list[int], np.ndarray]:
        """Positions of the photos that can be read, and their embeddings (Q, D)."""
        parts = list(self.embedder.embed(paths, self.recipe.predict.tta))
        return [row for rows, _ in parts for row in rows], np.concatenate([part for _, part in parts])

    def find(self, embeddings: np.ndarray, k: int) -> list[list[Hit]]:
        """The ``k`` most similar of the gallery for each query (Q, D), the most similar first.

        Raises:
            ArtifactError: see `Catalogue.search`.
        """
        queries = EmbeddingSet(
            ids=[str(number) for number in range(len(embeddings))],
            embeddings=embeddings,
            logits=None,
            class_ids=[],
            views=[],
            weights_digest=self.embedder.checkpoint.weights_digest,
            broken={},
            fingerprint="",
        )
        rows, similarities = self.catalogue.search(queries, k, across=True)
        found = []
        for own, near in zip(rows, similarities, strict=True):
            keys = [self.catalogue.keys[place] for place in self.catalogue.get_classes(own)]
            ids = self.catalogue.get_ids(own)
            found.append([self._describe(*one) for one in zip(ids, keys, near.tolist(), strict=True)])
        return found

    def _describe(self, image_id: str, key: str, similarity: float) -> Hit:
        name = self.catalogue.names.get(key) or self.names.get(key, key)
        return Hit(image_id, key, name, self.titles.get(image_id, ""), similarity)


def prepare_title_search(run: Path, recipe: Recipe, to: Target) -> TitleSearch:
    """A run ready to be searched.

    Args:
        run: the run folder, whose predictions were made.
        recipe: settings of prediction.
        to: whether images of the gallery are looked for, or their titles.

    Raises:
        ArtifactError: it has no text tower, or no index yet.
    """
    embedder = load_embedder(run, recipe)
    tokeniser = load_tokeniser(embedder.checkpoint)
    tower = embedder.network.text
    assert tower is not None, "a checkpoint with a tokeniser has a tower"
    views = TEXT if to == "titles" else get_gallery_views(recipe, recipe.predict.tta)
    folder = run / "index" / views
    if not folder.exists():
        raise ArtifactError(f"{run}: has no index of {to} yet. Make it: productrec predict {run}")
    names, titles = dict[str, str](), dict[str, str]()
    try:
        table = load_table(recipe.table, root=recipe.data.images)
        names, titles = _read_table(table, str(embedder.checkpoint.recipe["model"]["text"]["reads"]))
    except ProductrecError:  # the run may have been carried elsewhere without its table
        pass
    return TitleSearch(run, recipe, embedder, tower, tokeniser, Catalogue(folder), names, titles)


def _read_table(table: ImageTable, reads: str) -> tuple[dict[str, str], dict[str, str]]:
    """What the classes of a table are called, by key, and the titles of its images, by id."""
    class_ids = [int(class_id) for class_id in table.classes["id"]]
    names = dict(zip(get_class_keys(table, class_ids), table.get_class_names(class_ids), strict=True))
    listed = list_titles(table, table.images, reads)
    titles = {image_id: " / ".join(own) for image_id, own in zip(table.images["image_id"], listed, strict=True) if own}
    return names, titles
