"""Query: photos are asked about, and answered by a table, by JSON lines, or by a strip of pictures to look at."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from productrec.assembly.answering import ReadyRun
from productrec.assembly.asking import Answer, ask
from productrec.assembly.photo_files import list_photos
from productrec.console import print_table, say
from productrec.data.boxes import crop_to_box, is_box
from productrec.data.images import FileImages, open_images
from productrec.data.sheets import check_sheet_name, write_sheet
from productrec.data.table import load_table
from productrec.data.views import resize_square
from productrec.errors import ArtifactError, DataError, ProductrecError, RecipeError

_TILE_PX = 160
_STRIP_ROWS = 100  # photos on a strip at most
_TOLD = {True: "yes", False: "doubtful", None: ""}


def run_query(
    prepare: Callable[[], ReadyRun],
    photos: Sequence[Path],
    *,
    box: str | None = None,
    nearest: int = 3,
    doubts: bool = False,
    as_json: bool = False,
    strip: Path | None = None,
    replace: bool = False,
) -> list[Answer]:
    """Ask a run, or an exported file, about photos, and print what it says.

    Args:
        prepare: makes it ready; called once the photos are found.
        photos: files, and folders, which are looked through with all that are in them.
        box: the part of each photo that shows the product, ``x,y,width,height`` in pixels; None for all of it.
        nearest: products to name beside the class.
        doubts: say that a photo is of no known product, where the run's threshold does not believe that it is of one.
        as_json: print a JSON object a photo instead of a table.
        strip: JPEG or PNG to write: a row a photo, with its nearest products beside it.
        replace: write over a strip that is there.

    Raises:
        ArtifactError: the run is not trained, an artefact of it is damaged, or the strip is there already.
        DataError: there is no photo, or not one of them can be read.
        RecipeError: the box is none.
    """
    if box is not None and not is_box(box):
        raise RecipeError(f"--box: must be x,y,width,height in pixels, such as 40,12,200,300; got {box!r}.")
    if strip is not None:
        check_sheet_name(strip)
        if strip.exists() and not replace:
            raise ArtifactError(f"{strip}: is there already. Name another file, or pass --replace to write over it.")
    files = list_photos(photos)
    paths = list(files.values())
    ready = prepare()
    answers = list(ask(ready, FileImages(paths, [box] * len(paths)), list(files), nearest=nearest))
    if as_json:
        for answer in answers:
            sys.stdout.write(json.dumps(answer.describe(doubts=doubts), ensure_ascii=False) + "\n")
    else:
        _print(answers, doubts)
    if strip is not None:
        _write_strip(strip, ready, answers[:_STRIP_ROWS], files, box, nearest, doubts)
        shown = min(len(answers), _STRIP_ROWS)
        say(f"strip {strip}: {shown:,} of {len(answers):,} photos, each beside the nearest products")
    say(f"{ready.run}: {ready.way}")
    if all(answer.reason for answer in answers):
        raise DataError(f"not one of {len(answers)} photos can be read; the first: {answers[0].reason}")
    return answers


def _print(answers: Sequence[Answer], doubts: bool) -> None:
    rows = [
        (
            answer.photo,
            "" if answer.reason else answer.say(doubts=doubts),
            "" if answer.reason else f"{answer.confidence:.2f}",
            "" if answer.reason else _TOLD[answer.is_known],
            answer.reason or ", ".join(f"{near.name} {near.similarity:.2f}" for near in answer.nearest),
        )
        for answer in answers
    ]
    columns = ("photo", "class", "confidence", "known", "nearest products and their similarity")
    print_table("answers", columns, rows, wrap_last=True)


def _write_strip(
    path: Path,
    ready: ReadyRun,
    answers: Sequence[Answer],
    files: dict[str, str],
    box: str | None,
    nearest: int,
    doubts: bool,
) -> None:
    """A row a photo: it, then a picture of each of its nearest products, grey where none is at hand."""
    pictures = _Pictures(ready)
    lines, captions = [], []
    for answer in answers:
        own = _read(files[answer.photo])
        lines.append([_shrink(own if box is None or own is None else crop_to_box(own, box))])
        captions.append([answer.reason or f"{answer.say(doubts=doubts)} {answer.confidence:.2f}"])
        for number in range(nearest):
            near = answer.nearest[number] if number < len(answer.nearest) else None
            lines[-1].append(_shrink(None if near is None else pictures.find(near.image_id)))
            captions[-1].append("" if near is None else f"{near.name} {near.similarity:.2f}")
    write_sheet(path, lines, captions)


class _Pictures:
    """Pictures of a run's gallery, as far as they are at hand: of its image table, and of what was grown."""

    def __init__(self, ready: ReadyRun) -> None:
        self._grown: dict[str, str] = {}
        if ready.catalogue is not None:
            rows = ready.catalogue.get_grown_rows()
            self._grown = dict(zip(rows.ids, rows.paths, strict=True))
        self._places: dict[str, int] = {}
        if ready.recipe is None:
            return
        try:
            table = load_table(ready.recipe.table, root=ready.recipe.data.images)
            self._images = open_images(table, table.images)
            self._places = {image_id: row for row, image_id in enumerate(table.images["image_id"])}
        except ProductrecError:  # the run may have been carried elsewhere without its table
            return

    def find(self, image_id: str) -> np.ndarray | None:
        if image_id in self._grown:
            return _read(self._grown[image_id])
        row = self._places.get(image_id)
        if row is None:
            return None
        try:
            return self._images.decode(row)
        except DataError:
            return None


def _read(path: str) -> np.ndarray | None:
    try:
        return FileImages([path]).decode(0)
    except DataError:
        return None


def _shrink(picture: np.ndarray | None) -> np.ndarray:
    if picture is None:
        return np.full((_TILE_PX, _TILE_PX, 3), 200, np.uint8)
    return resize_square(picture, _TILE_PX)
