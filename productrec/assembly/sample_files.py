"""Which file of a folder each id of a sample submission means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from productrec.data.sources.files import IMAGE_SUFFIXES
from productrec.errors import DataError, describe_offenders


def match_files(ids: Sequence[str], files: Mapping[str, str]) -> dict[str, str]:
    """Path of the file of each id that has one.

    An id is the path of a file below the folder, or that path without an image's ending; where no file is so, it is a
    file's name alone, or that name without the ending.

    Args:
        ids: of the sample submission.
        files: paths of files by their names below the folder.

    Raises:
        DataError: an id is that of several files.
    """
    wanted = set(ids)
    found: dict[str, str] = {}
    for name_file in (_get_path, _cut_ending, _get_name, _cut_folder_and_ending):
        named: dict[str, list[str]] = {}
        for file in files:
            name = name_file(file)
            if name in wanted and name not in found:
                named.setdefault(name, []).append(file)
        several = {name: same for name, same in named.items() if len(same) > 1}
        if several:
            first, same = next(iter(several.items()))
            raise DataError(
                f"images: every id must be one file; got {first} for {describe_offenders(same)}, and "
                f"{len(several) - 1} more ids like it. Name the folder that holds the test images alone."
            )
        found |= {name: files[same[0]] for name, same in named.items()}
    return found


def _get_path(file: str) -> str:
    return file


def _cut_ending(file: str) -> str:
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else file


def _get_name(file: str) -> str:
    return PurePosixPath(file).name


def _cut_folder_and_ending(file: str) -> str:
    return PurePosixPath(_cut_ending(file)).name
