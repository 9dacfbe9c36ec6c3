"""Photos: a folder of new photos and a run become a CSV of classes; nothing is needed but the run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import write_file
from productrec.assembly.answering import ReadyRun
from productrec.assembly.blended import BlendedRuns
from productrec.assembly.photo_files import list_files
from productrec.console import say, show_progress, warn
from productrec.data.images import FileImages
from productrec.data.inspection import inspect_images
from productrec.delimited import write_for_people
from productrec.ensembling.blend import Blend
from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.runtime import count_cores

COLUMNS = ("id", "class", "class_id", "probability", "next_class", "next_class_id", "next_probability", "reason")


@dataclass(frozen=True)
class Photographed:
    """A written CSV: how many photos were classified, and why each other file was not, by id; how, for each run."""

    path: Path
    photos: int
    reasons: dict[str, str]
    ways: list[str]


def run_photos(
    prepare: Callable[[], Sequence[ReadyRun]],
    source: Path,
    out: Path,
    *,
    blend: Blend | None = None,
    replace: bool,
) -> Photographed:
    """Classify every file below a folder, or one photo, and write a line for each.

    The class is the most probable by head and neighbours, fused as `productrec predict` has fitted it on validation
    images; by the head alone where the run has no index of the same views. Several runs are averaged. Where the
    contract that they were fitted for has a label for unknown products, it is the class of a photo that is believed to
    be of none of the known ones, by runs of more than half of the weight, and the most probable class is the next one.

    Args:
        prepare: makes the runs ready; called once there are photos.
        source: folder, looked through with all that are in it, or a file.
        out: CSV to write, with the columns `COLUMNS`: ``id`` is the path below ``source``, ``class_id`` what the
            source of the training images calls the class (its id, or its folder), ``reason`` why a file is no photo.
        blend: how runs become one; an equal mean where None.
        replace: write over a file that is there.

    Raises:
        ArtifactError: a run is not trained or an artefact of it is damaged, runs know different classes, or ``out`` is
            there already.
        DataError: no photo is there.
    """
    if out.exists() and not replace:
        raise ArtifactError(
            f"{out}: is there already. Name another file with --out, or pass --replace to write over it."
        )
    files = list_files(source, out)
    with show_progress("reading photos", len(files)) as bar:
        states = inspect_images(list(files.values()), workers=count_cores(), on_progress=bar.advance)
    reasons = {
        name: state.reason or state.status for name, state in zip(files, states, strict=True) if state.status != "ok"
    }
    photos = [name for name in files if name not in reasons]
    if not photos:
        first = next(iter(reasons.items()))
        raise DataError(f"{source}: not one of {len(files)} files is a photo; the first, {first[0]}: {first[1]}")
    runs = BlendedRuns(prepare(), blend=blend)
    paths = [files[name] for name in photos]
    lines: dict[str, tuple[str, ...]] = {}
    with show_progress("classifying photos", len(photos)) as bar:
        for rows, probabilities, is_doubted, broken in runs.answer(FileImages(paths)):
            described = _describe(probabilities, runs.keys, runs.names)
            for row, line, is_away in zip(rows, described, is_doubted.tolist(), strict=True):
                lines[photos[row]] = (runs.unknown, "", "", *line[:3]) if is_away and runs.unknown is not None else line
            reasons |= {photos[row]: reason.removeprefix(f"{paths[row]}: ") for row, reason in broken.items()}
            bar.advance(len(rows))
    # A file name that is no UTF-8 is written as a person can read it.
    with write_file(out) as path, path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        nothing = ("",) * (len(COLUMNS) - 2)
        cells = ((name, *(nothing if name in reasons else lines[name]), reasons.get(name, "")) for name in files)
        write_for_people(file, COLUMNS, cells)
    ways = [f"{one.run}: {one.way}" for one in runs.runs]
    return Photographed(out, len(files) - len(reasons), reasons, ways)


def report(done: Photographed) -> None:
    """Say how photos were classified, and which files were none."""
    for way in done.ways:
        say(way)
    if done.reasons:
        warn(f"{describe_offenders(done.reasons)} are no photos; their lines in the CSV say why.")
    say(f"photos {done.path}: {done.photos:,} classified")


def _describe(probabilities: np.ndarray, keys: Sequence[str], names: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """The best and the next best class of each row, as they stand in the CSV."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    for row, columns in zip(probabilities, best.tolist(), strict=True):
        line: list[str] = []
        for column in columns:
            line += [names[column], keys[column], f"{row[column]:.4f}"]
        yield tuple(line + [""] * (6 - len(line)))
