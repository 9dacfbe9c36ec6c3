"""Search: words find images or titles of a run's gallery, and photos find titles."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from productrec.assembly.photo_files import list_photos
from productrec.assembly.title_search import Hit, TitleSearch
from productrec.console import print_table, say
from productrec.errors import DataError, RecipeError


def run_search(
    prepare: Callable[[], TitleSearch],
    *,
    words: Sequence[str] = (),
    photos: Sequence[Path] = (),
    nearest: int = 10,
    as_json: bool = False,
) -> dict[str, list[Hit]]:
    """Search the gallery that was made ready, and print what is found.

    Args:
        prepare: makes the run ready; called once the photos are found.
        words: titles to search by.
        photos: files and folders of photos to search by.
        nearest: how many to find for each.
        as_json: print a JSON object a query instead of a table.

    Raises:
        ArtifactError: the run has no text tower, or no index.
        DataError: there is no photo, or not one can be read.
        RecipeError: a text is blank.
    """
    blank = [text for text in words if not text.strip()]
    if blank:
        raise RecipeError(f"--text: must be some words; got {blank[0]!r}.")
    files = list_photos(photos) if photos else {}
    search = prepare()
    found = dict(zip(words, search.find(search.embed_words(words), nearest), strict=True)) if words else {}
    if files:
        rows, embeddings = search.embed_photos(list(files.values()))
        if not rows:
            raise DataError(f"not one of {len(files)} photos can be read; the first is {next(iter(files.values()))}.")
        names = list(files)
        found |= dict(zip([names[row] for row in rows], search.find(embeddings, nearest), strict=True))
    for asked, hits in found.items():
        if as_json:
            described = [
                {
                    "image": hit.image_id,
                    "class": hit.name or None,
                    "class_id": hit.key or None,
                    "title": hit.title or None,
                    "similarity": round(hit.similarity, 4),
                }
                for hit in hits
            ]
            sys.stdout.write(json.dumps({"query": asked, "found": described}, ensure_ascii=False) + "\n")
        else:
            cells = [(f"{hit.similarity:.2f}", hit.image_id, hit.name, hit.title) for hit in hits]
            print_table(asked, ("similarity", "image", "class", "title"), cells, wrap_last=True)
    say(f"{search.run}: {len(search.catalogue):,} searched, {len(found):,} queries")
    return found
