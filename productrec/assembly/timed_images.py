"""The test images that a run is to predict: how many, and some to time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from productrec.assembly.answering import ReadyRun
from productrec.assembly.photo_files import list_files
from productrec.assembly.timing import measure_rate
from productrec.data.images import FileImages, Images, open_images
from productrec.data.sources.files import IMAGE_SUFFIXES
from productrec.data.table import load_table
from productrec.errors import ArtifactError, DataError
from productrec.recipe import Recipe

_TIMED = 256  # images at most
_SECONDS = 10.0
_BATCH = 16  # small, so that the first batches, which wait for loader processes, are few images


@dataclass(frozen=True)
class TimedImages:
    """``count``: of test images, None where no table says; ``images``: some that can be timed, None for none."""

    count: int | None
    images: Images | None


def find_timed_images(recipe: Recipe, folder: Path | None = None) -> TimedImages:
    """Some images to time and how many there are to predict.

    Args:
        recipe: of the run; its table is asked where it is at hand.
        folder: of images to time instead of the table's.

    Raises:
        DataError: ``folder`` holds no image.
    """
    given: Images | None = None
    if folder is not None:
        paths = [path for name, path in list_files(folder).items() if name.lower().endswith(IMAGE_SUFFIXES)]
        if not paths:
            raise DataError(f"{folder}: must hold images to time; it holds none.")
        given = FileImages(paths[:_TIMED])
    try:
        table = load_table(recipe.table, root=recipe.data.images)
        count = len(table.select(["test"], usable=False))
        rows = next((found for split in ("test", "val", "train") if len(found := table.select([split]))), None)
        own = None if rows is None else open_images(table, rows.iloc[:_TIMED])
        return TimedImages(count, given or own)
    except (ArtifactError, DataError):  # a run may have been carried here without its table or its images
        return TimedImages(None, given)


def time_answers(runs: Sequence[ReadyRun], images: Images) -> float | None:
    """Images a second that runs answer one after the other; None where not one image can be read."""
    seconds = 0.0
    for one in runs:
        counts = (len(answered.rows) for answered in one.answer(images, batch_size=_BATCH))
        rate = measure_rate(counts, waits=1, most_seconds=_SECONDS)
        if rate <= 0:
            return None
        seconds += 1 / rate
    return 1 / seconds
