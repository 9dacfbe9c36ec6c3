"""Looks at every image file once: is it there, does it decode, how large is it, what is its digest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from productrec.data.decode import check_image, read_image_bytes
from productrec.errors import DataError

_CHUNK_IMAGES = 256


@dataclass(frozen=True)
class ImageState:
    """What was found of one file; ``digest`` is the SHA-256 of its bytes, the size is in pixels, upright.

    ``reason`` says why it is not ok, without the path.
    """

    status: str
    width: int | None = None
    height: int | None = None
    digest: str | None = None
    reason: str | None = None


_UNREAD = ImageState("ok")  # one for all: a million of them take a second and a quarter of a GiB


def inspect_image(path: str | Path | None, *, verify: bool = True, inside: Path | None = None) -> ImageState:
    """State of one file: missing, broken or ok.

    Args:
        path: the file; None where the source has none.
        verify: read and decode it; without, a file that exists counts as ok.
        inside: a folder that links must not lead out of; None to follow them anywhere.
    """
    try:
        is_link = path is not None and stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        path, is_link = None, False
    if path is None:
        return ImageState("missing", reason="no such file")
    if is_link:
        if inside is not None and not Path(os.path.realpath(path)).is_relative_to(inside):
            return ImageState("broken", reason="is a link that leads out of the source's folder.")
        if not os.path.exists(path):
            return ImageState("missing", reason="is a link that leads nowhere.")
    if not verify:
        return _UNREAD
    try:
        data = read_image_bytes(path)
    except DataError as error:
        return ImageState("broken", reason=_shorten(error, path))
    digest = hashlib.sha256(data).hexdigest()
    try:
        width, height = check_image(data, path)
    except DataError as error:
        return ImageState("broken", digest=digest, reason=_shorten(error, path))
    return ImageState("ok", width, height, digest)


def _shorten(error: DataError, path: str | Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def inspect_images(
    paths: Sequence[str | None],
    *,
    workers: int,
    verify: bool = True,
    inside: Path | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> list[ImageState]:
    """States of many files, in order; threads suffice, since Pillow decodes without the interpreter's lock.

    Without ``verify`` there are none: a look at one file is shorter than handing it over.
    """
    states: list[ImageState] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        look = pool.map if verify else map
        for start in range(0, len(paths), _CHUNK_IMAGES):
            chunk = paths[start : start + _CHUNK_IMAGES]
            states += look(lambda path: inspect_image(path, verify=verify, inside=inside), chunk)
            on_progress(len(chunk))
    return states
