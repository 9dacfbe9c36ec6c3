"""What a format of sources is: how its files are known and how they are read; `formats` holds one file a format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from productrec.data.sources.rows import SourceRows
from productrec.data.sources.unpacked import Unpacked


@dataclass(frozen=True)
class ReadOptions:
    """What a person may say of a source beside its format; a reader looks at those its format can have.

    ``id_column``, ``label_column``, ``file_column``: headers of the image ids, of the labels, and of the file names
    where these are not the ids; None: found by their usual names. ``sample``: the sample submission; None where there
    is none. ``box_margin``: by which share of its size a box is widened on every side.
    """

    id_column: str | None = None
    label_column: str | None = None
    file_column: str | None = None
    sample: Path | None = None
    box_margin: float = 0.1


@dataclass(frozen=True)
class Format:
    """One format; the module ``formats/NAME.py`` makes the format NAME and calls it ``FORMAT``.

    ``rank``: formats are asked in ascending order whether a source is theirs, the more particular ones first, because
    a source may fit several. ``shows``: what its sources hold, for the sentence that lists what a source may be.
    ``detect(source)``: whether a folder is of this format; it raises no error for another one's files.
    ``read(source, options)``: the rows; it raises DataError where the files are not of this format.
    ``unpack(source, folder)``: for images that lie within larger files, writes them as files below ``folder``; ``read``
    then gets the unpacked folder. ``guess(source)``: whether a folder that no format detects may yet be of this one.
    ``lists``: patterns of the files below the source's own folder that say what its images are.
    """

    rank: int
    shows: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], SourceRows]
    unpack: Callable[[Path, Path], Unpacked] | None = None
    guess: Callable[[Path], bool] | None = None
    lists: tuple[str, ...] = ()
