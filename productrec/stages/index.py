"""Index: the gallery's embeddings become searchable, and the nearest of every query are written down."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from productrec.artifacts import is_fresh
from productrec.assembly.evidence import get_gallery_views, get_labels
from productrec.assembly.titles import list_known_titles
from productrec.assembly.voters import keep_title_neighbours
from productrec.console import say
from productrec.data.class_keys import get_class_keys
from productrec.data.table import DISTRACTORS, ImageTable, load_table
from productrec.errors import ArtifactError
from productrec.recipe import Recipe
from productrec.retrieval.choice import describe_built, describe_wanted
from productrec.retrieval.embedding_set import JOINED, TEXT, join_embedding_sets, load_embedding_set
from productrec.retrieval.index import INDEX_KIND, NO_CLASS, load_index, save_index
from productrec.retrieval.neighbours import NEIGHBOURS_KIND, save_neighbours


def run_index(run: Path, recipe: Recipe, *, views: str) -> None:
    """Index the gallery and search the validation and test queries of one preset of views.

    Args:
        run: the run folder, with embedding sets.
        recipe: gallery splits and number of neighbours.
        views: preset of the queries; the gallery's is plain for plain, else the recipe's ``gallery_tta``; or the space
            of titles, or of images and titles joined.

    Raises:
        ArtifactError: an embedding set is missing, or of another network.
    """
    table = load_table(recipe.table, root=recipe.data.images)
    gallery_views = get_gallery_views(recipe, views)
    splits = recipe.predict.gallery_splits
    if views in (TEXT, JOINED):
        splits = tuple(split for split in splits if _has_titles(recipe, table, split))
    sets = [load_embedding_set(run / "embeddings" / gallery_views / split) for split in splits]
    index_folder = run / "index" / gallery_views
    inputs = {f"gallery {split}": embedded.fingerprint for split, embedded in zip(splits, sets, strict=True)}
    kind, recall = recipe.predict.index, recipe.predict.index_recall
    search = describe_wanted(kind, recall, rows=sum(len(part.ids) for part in sets))
    settings = {"metric": "inner product", "search": search, "splits": list(splits), "classes": "by key"}
    if not is_fresh(index_folder, kind=INDEX_KIND, inputs=inputs, settings=settings):
        gallery = join_embedding_sets(sets, keep_logits=False)
        labels = dict(zip(table.images["image_id"], table.images["label"], strict=True))
        known = [labels[image_id] for image_id in gallery.ids]
        gallery_labels = [NO_CLASS if pd.isna(label) else int(label) for label in known]
        class_ids = sorted(set(gallery_labels) - {NO_CLASS})
        keys = dict(zip(class_ids, get_class_keys(table, class_ids), strict=True)) | {NO_CLASS: ""}
        keys = {label: keys[label] for label in sorted(set(gallery_labels))}
        built = save_index(
            index_folder,
            gallery,
            gallery_labels,
            inputs=inputs,
            settings=settings,
            keys=keys,
            kind=kind,
            recall=recall,
        )
        if search != "exact":
            say(f"index {index_folder}: {describe_built(built, recall)}")
    index = load_index(index_folder)
    gallery_ids = [image_id for embedded in sets for image_id in embedded.ids]
    gallery_classes = get_labels(table, gallery_ids)
    for split in ("val", "test") if views in (TEXT, JOINED) else ("val", "test", DISTRACTORS):
        folder = run / "embeddings" / views / split
        if not len(table.select([split])):  # what lies in the folder is of an earlier state of the table
            continue
        if views in (TEXT, JOINED) and not _has_titles(recipe, table, split):
            shutil.rmtree(run / "neighbours" / views / split, ignore_errors=True)  # of when it had some
            continue
        queries = load_embedding_set(folder)
        if split in splits:
            raise ArtifactError(
                f"gallery_splits: {split} must not be in the gallery of its own queries, each image would find itself. "
                "Leave it out of predict.gallery_splits."
            )
        if views not in (TEXT, JOINED):
            keep_title_neighbours(run, recipe, table, split, queries.ids, gallery_ids, gallery_classes)
        out = run / "neighbours" / views / split
        search_inputs = {"index": index.fingerprint, "queries": queries.fingerprint}
        search_settings = {"k": recipe.predict.neighbours}
        if not is_fresh(out, kind=NEIGHBOURS_KIND, inputs=search_inputs, settings=search_settings):
            save_neighbours(
                out, index, queries, recipe.predict.neighbours, inputs=search_inputs, settings=search_settings
            )


def _has_titles(recipe: Recipe, table: ImageTable, split: str) -> bool:
    """Whether an image of a split has a title that may be known of it."""
    reads, gallery = recipe.model.text.reads, recipe.predict.gallery_splits
    return any(list_known_titles(table, split, reads, gallery=gallery))
