"""What prediction embeds, as a recipe says: splits of the image table, each through a preset's views."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from productrec.data.table import DISTRACTORS, ImageTable
from productrec.recipe import Recipe


@dataclass(frozen=True)
class EmbeddingRequest:
    """Images to embed: a split, through a preset's views, with or without logits."""

    split: str
    views: str
    keep_logits: bool

    def get_folder(self, run: Path) -> Path:
        """Where the embedding set lands in a run."""
        return run / "embeddings" / self.views / self.split


def name_fold(fold: int) -> str:
    """The split that holds the training images of a fold."""
    return f"fold-{fold}"


def name_rest(fold: int) -> str:
    """The split that holds the training images of all folds but one."""
    return f"without-fold-{fold}"


def select_rows(table: ImageTable, split: str) -> pd.DataFrame:
    """Readable rows of a split of the table, or of those that `name_fold` and `name_rest` name."""
    named = re.fullmatch(r"(without-)?fold-(\d+)", split)
    if named is None:
        return table.select([split])
    rows = table.select(["train"])
    is_held_out = (rows["fold"] == int(named.group(2))).fillna(False).to_numpy(dtype=bool)
    return rows[~is_held_out if named.group(1) else is_held_out]


def list_requests(recipe: Recipe, table: ImageTable) -> list[EmbeddingRequest]:
    """What prediction needs of a table, as a recipe says: queries through its views, and the gallery."""
    settings = recipe.predict
    # A gallery split may also be a query split; then it is embedded once for each use.
    requests = [EmbeddingRequest(split, settings.tta, True) for split in ("val", "test") if len(table.select([split]))]
    gallery_views = "plain" if settings.tta == "plain" else settings.gallery_tta
    return (
        requests
        + list_distractor_requests(table, settings.tta, gallery_views)
        + [EmbeddingRequest(split, gallery_views, False) for split in settings.gallery_splits]
    )


def list_distractor_requests(table: ImageTable, views: str, gallery_views: str) -> list[EmbeddingRequest]:
    """Distractors as they ask, through the views of queries, and as they are compared with; none without any."""
    if not len(table.select([DISTRACTORS])):
        return []
    return [EmbeddingRequest(DISTRACTORS, views, True), EmbeddingRequest(DISTRACTORS, gallery_views, False)]


def add_plain(request: EmbeddingRequest) -> tuple[EmbeddingRequest, ...]:
    """A request, and before it that of the plain view, which is embedded on the way whatever the views."""
    plain = EmbeddingRequest(request.split, "plain", request.keep_logits)
    return (plain,) if request.views == "plain" else (plain, request)
