"""What a run knows of the images that are asked about, in one small file, so that it can be fitted and asked anew."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import write_file
from productrec.assembly.embedding_requests import EmbeddingRequest, name_fold, name_rest
from productrec.assembly.evidence import get_gallery_views, get_labels, number_categories, widen_logits
from productrec.class_order import ClassOrder
from productrec.data.table import load_table
from productrec.recipe import Recipe
from productrec.recognition.classifier import Evidence
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.recognition.reranked import build_reranker
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.retrieval.engine import search_rows
from productrec.retrieval.reranking.declared import Reranking

NEIGHBOURS = 50


@dataclass(frozen=True)
class View:
    """Queries and gallery through one preset of views: unit embeddings (Q, D) and (M, D), logits (Q, C), float32."""

    queries: np.ndarray
    logits: np.ndarray
    gallery: np.ndarray


@dataclass(frozen=True)
class KeptEvidence:
    """What one run knows: class positions (Q,) and (M,) of queries and gallery, and a `View` a preset.

    ``categories``: (C,) a number for each class's category, None where all are of one.
    """

    labels: np.ndarray
    gallery_labels: np.ndarray
    views: dict[str, View]
    categories: list[int] | None

    def build(self, views: str, method: Reranking | None = None) -> Evidence:
        """The evidence through a preset, by exact search, and re-ranked where a method is given."""
        seen = self.views[views]
        rows, similarities = search_rows(seen.queries, seen.gallery, NEIGHBOURS)
        classes = seen.logits.shape[1]
        prototypes = build_prototypes(seen.gallery, self.gallery_labels, classes, categories=self.categories)
        near = compare_prototypes(seen.queries, prototypes)
        evidence = Evidence(seen.logits, self.gallery_labels[rows], similarities, near, self.categories)
        if method is None:
            return evidence
        reranker = build_reranker(
            method, seen.gallery, self.gallery_labels, prototypes, self.categories, depth=rows.shape[1]
        )
        return reranker.rerank(evidence, seen.queries, rows)


def list_asked(recipe: Recipe, fold: int | None, asked: str) -> dict[str, tuple[EmbeddingRequest, EmbeddingRequest]]:
    """What a run embeds, queries and gallery, by preset: those of its fold, or, where it has none, the split asked."""
    queries, gallery = (asked, "train") if fold is None else (name_fold(fold), name_rest(fold))
    return {
        views: (
            EmbeddingRequest(queries, views, True),
            EmbeddingRequest(gallery, get_gallery_views(recipe, views), False),
        )
        for views in dict.fromkeys(("plain", recipe.predict.tta))
    }


def collect(run: Path, recipe: Recipe, fold: int | None, asked: str, hidden: Path | None) -> KeptEvidence:
    """What a run that has embedded `list_asked` knows.

    Args:
        run: its folder.
        recipe: its recipe.
        fold: that it left out, if any.
        asked: split that is asked about.
        hidden: file of that split's labels (id, class) where the table holds none.
    """
    table = load_table(recipe.table, root=recipe.data.images)
    class_ids = sorted(int(value) for value in table.select(["train"])["label"].dropna().unique())
    order = ClassOrder(class_ids)
    own = None if hidden is None or fold is not None else _read_hidden(hidden)
    found: dict[str, View] = {}
    labels = gallery_labels = np.empty(0, np.int64)
    for views, (wanted, beside) in list_asked(recipe, fold, asked).items():
        queries = load_embedding_set(wanted.get_folder(run))
        gallery = load_embedding_set(beside.get_folder(run))
        assert queries.logits is not None
        columns = order.positions_of(queries.class_ids)
        logits = widen_logits(np.asarray(queries.logits), columns, len(class_ids))
        found[views] = View(np.array(queries.embeddings), logits, np.array(gallery.embeddings))
        labels = get_labels(table, queries.ids) if own is None else np.array([own[name] for name in queries.ids])
        labels, gallery_labels = order.positions_of(labels), order.positions_of(get_labels(table, gallery.ids))
    return KeptEvidence(labels, gallery_labels, found, number_categories(table, class_ids))


def save_evidence(path: Path, evidence: KeptEvidence) -> None:
    """Write it, in float16: a benchmark's figures of hundreds of images do not see the rounding."""
    arrays = {"labels": evidence.labels, "gallery_labels": evidence.gallery_labels}
    if evidence.categories is not None:
        arrays["categories"] = np.array(evidence.categories)
    for views, seen in evidence.views.items():
        for name in ("queries", "logits", "gallery"):
            arrays[f"{views}/{name}"] = getattr(seen, name).astype(np.float16)
    with write_file(path) as target, target.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_evidence_file(path: Path) -> KeptEvidence:
    """What `save_evidence` wrote; embeddings are unit rows again."""
    with np.load(path, allow_pickle=False) as arrays:
        presets = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files if "/" in name)
        views = {
            preset: View(
                _normalise(arrays[f"{preset}/queries"]),
                arrays[f"{preset}/logits"].astype(np.float32),
                _normalise(arrays[f"{preset}/gallery"]),
            )
            for preset in presets
        }
        categories = arrays["categories"].tolist() if "categories" in arrays.files else None
        return KeptEvidence(arrays["labels"], arrays["gallery_labels"], views, categories)


def _normalise(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float32)
    unit: np.ndarray = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def _read_hidden(path: Path) -> dict[str, int]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: int(row["class"]) for row in csv.DictReader(file)}
