"""Titles as a recipe says: whose words an image has, how they become tokens, and which of them belong together."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from productrec.assembly.training_data import TrainingData
from productrec.console import say
from productrec.data.table import ImageTable
from productrec.data.title_batches import RowTitles
from productrec.data.titles import normalise_title, number_groups, split_titles
from productrec.errors import DataError
from productrec.models.text.tokens import Tokeniser
from productrec.models.text.tower import build_tokeniser
from productrec.recipe import Recipe


def list_titles(table: ImageTable, rows: pd.DataFrame, reads: str) -> list[list[str]]:
    """The titles of each of N rows of a table, none where a row has none.

    Args:
        table: of the rows; a ``title`` there holds one title a line.
        rows: of its images.
        reads: ``title``, ``description`` (the class's) or ``both``.
    """
    described: dict[int, str] = {}
    if reads != "title":
        pairs = zip(table.classes["id"].tolist(), table.classes["description"].tolist(), strict=True)
        described = {class_id: normalise_title(text) for class_id, text in pairs if isinstance(text, str)}
    listed = []
    for title, label in zip(rows["title"].tolist(), rows["label"].tolist(), strict=True):
        own = [] if reads == "description" else [normalise_title(one) for one in split_titles(title)]
        if reads != "title" and not pd.isna(label) and described.get(int(label)):
            own.append(described[int(label)])
        listed.append(own)
    return listed


def list_known_titles(table: ImageTable, split: str, reads: str, *, gallery: Collection[str]) -> list[list[str]]:
    """The titles of each readable image of a split that may be known before its class is, as a query's must be.

    A class's description is known of the gallery's images alone: of another image it would tell the answer.

    Args:
        table: with the titles.
        split: of it.
        reads: as for `list_titles`.
        gallery: splits of the gallery.
    """
    rows = table.select([split])
    if split in gallery or reads == "title":
        return list_titles(table, rows, reads)
    return list_titles(table, rows, "title") if reads == "both" else [[] for _ in range(len(rows))]


def prepare_tokeniser(recipe: Recipe, titles: list[list[str]]) -> Tokeniser:
    """The tokeniser of a recipe's text tower, trained on the titles at hand where it is not an encoder's own.

    Raises:
        DataError: there is no title to learn from.
        TrainingError: the encoder cannot be had.
    """
    text = recipe.model.text
    every = [title for own in titles for title in own]
    if not every:
        raise DataError(
            f"{recipe.table}: must have titles for model.text.tower={text.tower}; no training image has one "
            f"(model.text.reads={text.reads}). Ingest a source with titles, or give model.text.tower=none."
        )
    without = sum(not own for own in titles)
    told = f"; {without:,} images have none" if without else ""
    say(f"titles: {len(every):,} of {len(titles) - without:,} images, {len(set(every)):,} different ones{told}")
    return build_tokeniser(text.tower, every, text.vocabulary)


def build_row_titles(recipe: Recipe, data: TrainingData, titles: list[list[str]], tokeniser: Tokeniser) -> RowTitles:
    """The titles of the training images as tokens."""
    tokens = tokeniser.encode([title for own in titles for title in own], recipe.model.text.max_tokens)
    by_class = recipe.loss.titles.positives == "class" and len(data.order) > 0
    return RowTitles(
        tokens.ids,
        tokens.lengths,
        np.concatenate([[0], np.cumsum([len(own) for own in titles])]).astype(np.int64),
        number_groups(titles, data.positions if by_class else None),
        recipe.seed,
    )
