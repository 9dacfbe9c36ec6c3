"""The packed store: a table's images shrunk and encoded once, in a few large files that are read by row.

A shard is an Arrow IPC file of `ROWS_PER_SHARD` rows in record batches of `ROWS_PER_BATCH`, memory-mapped, so that all
loader processes of a machine share one copy. docs/decisions/0003-packed-store.md says why.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL
import pyarrow as pa

from productrec.artifacts import (
    check_files,
    check_replaceable,
    compute_digest,
    is_fresh,
    load_manifest,
    write_artifact,
    write_file,
)
from productrec.data.boxes import crop_to_box
from productrec.data.decode import check_image, decode_image, read_image_bytes
from productrec.data.inspection import ImageState, inspect_image
from productrec.errors import ArtifactError, DataError, RecipeError

KIND = "packed images"
ROWS_PER_SHARD = 4096
ROWS_PER_BATCH = 256
_AHEAD_IMAGES = 512  # encoded while a shard is flushed; bounds the memory too
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_IDENTITY = b"productrec.pack"
_SHARD = "images-{:06d}.arrow"
_STATE = ("status", "width", "height", "digest", "reason")
_COLUMNS = dict.fromkeys(("image_id", *_STATE), pa.string())
_COLUMNS |= {"width": pa.int32(), "height": pa.int32(), "image": pa.large_binary()}


@dataclass(frozen=True)
class Packed:
    """What was packed: the folder, what was found of each row's file, and whether there was nothing to do."""

    folder: Path
    states: list[ImageState]
    skipped: bool


class _Encoded(NamedTuple):
    state: ImageState
    image: bytes | None


class _Batch(NamedTuple):  # as it lies in the map: nothing is copied
    offsets: np.ndarray
    images: memoryview
    columns: pa.RecordBatch


def pack_images(
    paths: Sequence[str | None],
    out: Path,
    *,
    ids: Sequence[str],
    max_side_px: int,
    quality: int = 92,
    workers: int,
    inputs: Mapping[str, str],
    boxes: Sequence[str | None] | None = None,
    inside: Path | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Packed:
    """Verify, shrink and encode images once; the same files and settings give the same bytes whatever interrupts it.

    Shards are finished one by one in a hidden folder beside ``out``, which gets its name once all are there; a rerun
    goes on with those that are missing. An image that cannot be read keeps its row.

    Args:
        paths: files by row; None where a row has none.
        out: the store's folder; an older store there is replaced once the new one is complete.
        ids: image ids by row.
        max_side_px: the longer side at most; smaller images keep their size.
        quality: of the JPEGs, 1 to 100; colour is stored at half the resolution.
        workers: threads that decode and encode.
        inputs: fingerprints that change whenever the files do.
        boxes: the part of its file that each row shows, as the table keeps it; None where every row shows all of it.
        inside: a folder that links must not lead out of; None to follow them anywhere.
        on_progress: told how many rows were finished since it was last told.

    Raises:
        RecipeError: a setting is out of range.
        DataError: ``paths`` and ``ids`` differ in length.
        ArtifactError: ``out`` holds something else.
        StorageError: the disk refused; finished shards stay for the next run.
    """
    if max_side_px < 1 or not 1 <= quality <= 100:
        raise RecipeError(f"packing: max_side_px must be 1 or more, quality 1 to 100; got {max_side_px} and {quality}.")
    if len(paths) != len(ids):
        raise DataError(f"packing: there must be one id a path; got {len(ids)} and {len(paths)}.")
    check_replaceable(out, kind=KIND)
    inputs = {**inputs, "ids": compute_digest(list(ids))}
    if boxes is not None:
        inputs["boxes"] = compute_digest(list(boxes))
    settings = {"max_side_px": max_side_px, "quality": quality}
    settings |= {"rows_per_shard": ROWS_PER_SHARD, "rows_per_batch": ROWS_PER_BATCH}
    working = out.with_name(f".{out.name}.packing")
    fresh = is_fresh(out, kind=KIND, inputs=inputs, settings=settings)
    if fresh:
        on_progress(len(ids))
    else:
        # Another version may encode to other bytes, and a store must be of one kind throughout.
        libraries = {"opencv": cv2.__version__, "pillow": PIL.__version__, "pyarrow": pa.__version__}
        identity = compute_digest([inputs, settings, libraries])
        starts = range(0, len(ids), ROWS_PER_SHARD)
        spans = {_SHARD.format(i): range(start, len(ids))[:ROWS_PER_SHARD] for i, start in enumerate(starts)}
        todo = {name: span for name, span in spans.items() if not _is_done(working / name, identity, len(span))}
        rows = [row for span in todo.values() for row in span]
        on_progress(len(ids) - len(rows))
        shown = boxes or [None] * len(ids)
        work = (partial(_encode_file, paths[row], shown[row], max_side_px, quality, inside) for row in rows)
        with contextlib.closing(_run_ahead(work, workers)) as encoded:
            _write_shards(working, todo, ids, identity, encoded, on_progress)
        notes = {"images": len(ids), "identity": identity, **libraries}
        with write_artifact(out, kind=KIND, inputs=inputs, settings=settings, notes=notes) as temporary:
            for name in spans:
                try:  # a second name, so that a kill before the end loses nothing
                    os.link(working / name, temporary / name)
                except OSError:  # no links on this disk
                    os.rename(working / name, temporary / name)
    shutil.rmtree(working, ignore_errors=True)
    return Packed(out, PackedImages(out).get_states(), fresh)


class PackedImages:
    """A packed store, read by row; cheap to open and to send to another process, which maps the files itself."""

    def __init__(self, folder: Path, *, digests: bool = False) -> None:
        """Open ``folder``; sizes of its files are checked, and SHA-256 too (a second a gigabyte) with ``digests``.

        Raises:
            ArtifactError: no packed store there, or a damaged one.
        """
        manifest = load_manifest(folder, kind=KIND)
        check_files(folder, manifest, digests=digests)
        self.folder = folder
        self.fingerprint = manifest.fingerprint
        self._ids_digest = manifest.inputs["ids"]
        self._identity = str(manifest.notes["identity"])
        self._rows = int(manifest.notes["images"])
        self._rows_per_shard = int(manifest.settings["rows_per_shard"])
        self._rows_per_batch = int(manifest.settings["rows_per_batch"])
        self._batches: dict[int, _Batch] = {}

    def __len__(self) -> int:
        return self._rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": {}}

    def read(self, row: int) -> memoryview:
        """The encoded image of a row, as it lies in the map.

        Raises:
            DataError: the row's image was missing or broken when it was packed.
            ArtifactError: the shard is damaged, or was replaced since the store was opened.
            IndexError: no such row.
        """
        if not 0 <= row < self._rows:
            raise IndexError(f"row must be from 0 to {self._rows - 1}; got {row}")
        number, position = divmod(row, self._rows_per_batch)
        batch = self._batches.get(number) or self._open_shard(row // self._rows_per_shard)[number]
        image = batch.images[batch.offsets[position] : batch.offsets[position + 1]]
        if not len(image):
            image_id, reason = (batch.columns.column(name)[position].as_py() for name in ("image_id", "reason"))
            raise DataError(f"{self.folder}: image {image_id}: {reason}")
        return image

    def decode(self, row: int) -> np.ndarray:
        """The pixels of a row: (H, W, 3) uint8 RGB; raises as `read`."""
        pixels = cv2.imdecode(np.frombuffer(self.read(row), np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise ArtifactError(f"{self.folder}: row {row} is damaged. Pack the images again.")
        return pixels

    def get_states(self) -> list[ImageState]:
        """What was found of each row's file when it was packed; sizes and digests are those of the source."""
        states: list[ImageState] = []
        for shard in range(-(-self._rows // self._rows_per_shard)):
            for batch in self._open_shard(shard).values():
                columns = [batch.columns.column(name).to_pylist() for name in _STATE]
                states += [ImageState(*values) for values in zip(*columns, strict=True)]
        return states

    def check_ids(self, ids: Sequence[str]) -> None:
        """Refuse a store whose rows are not those of ``ids``, in the same order.

        Raises:
            ArtifactError: they differ.
        """
        if compute_digest(list(ids)) != self._ids_digest:
            raise ArtifactError(f"{self.folder}: must hold the images of this table, row by row. Pack them again.")

    def _open_shard(self, shard: int) -> dict[int, _Batch]:
        first_row = shard * self._rows_per_shard
        rows = min(self._rows_per_shard, self._rows - first_row)
        batches = _map_shard(self.folder / _SHARD.format(shard), self._identity, rows, self._rows_per_batch)
        opened = dict(enumerate(batches, first_row // self._rows_per_batch))
        self._batches |= opened
        return opened


def _map_shard(path: Path, identity: str, rows: int, rows_per_batch: int) -> list[_Batch]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if (reader.schema.metadata or {}).get(_IDENTITY) != identity.encode():
            raise ValueError("it belongs to another store")
        batches = []
        for columns in map(reader.get_batch, range(reader.num_record_batches)):
            _, offsets, images = columns.column("image").buffers()
            numbers = np.frombuffer(offsets, np.int64, count=len(columns) + 1)
            batches.append(_Batch(numbers, memoryview(images or b""), columns))
        # Every batch but the last is full, else a row would be looked for in the wrong one.
        sizes = [len(batch.columns) for batch in batches]
        if sum(sizes) != rows or any(size != rows_per_batch for size in sizes[:-1]):
            raise ValueError("rows are missing")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}). Pack the images again.") from None
    return batches


def _is_done(path: Path, identity: str, rows: int) -> bool:
    with contextlib.suppress(ArtifactError):  # not there, or of other files or settings
        return bool(_map_shard(path, identity, rows, ROWS_PER_BATCH))
    return False


def _write_shards(
    working: Path,
    spans: Mapping[str, range],
    ids: Sequence[str],
    identity: str,
    encoded: Iterator[_Encoded],
    on_progress: Callable[[int], None],
) -> None:
    schema = pa.schema(_COLUMNS, metadata={_IDENTITY: identity})
    for shard, span in spans.items():
        with write_file(working / shard) as path, path.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
            for start in span[::ROWS_PER_BATCH]:
                rows = slice(start, min(start + ROWS_PER_BATCH, span.stop))
                states, images = zip(*islice(encoded, rows.stop - start), strict=True)
                columns = [list(ids[rows]), *([getattr(state, name) for state in states] for name in _STATE), images]
                arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema))
                on_progress(rows.stop - start)


def _run_ahead(work: Iterator[Callable[[], _Encoded]], workers: int) -> Generator[_Encoded, None, None]:
    """Results in order; at most `_AHEAD_IMAGES` are worked on or wait to be taken."""
    threads = cv2.getNumThreads()
    pool = ThreadPoolExecutor(max(1, workers))  # threads suffice: OpenCV and Pillow leave the interpreter's lock
    try:
        cv2.setNumThreads(1)  # OpenCV's own would fight with them
        waiting = deque(pool.submit(task) for task in islice(work, _AHEAD_IMAGES))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(task) for task in islice(work, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def _encode_file(path: str | None, box: str | None, max_side_px: int, quality: int, inside: Path | None) -> _Encoded:
    state = inspect_image(path, verify=False, inside=inside)
    if path is None or state.status != "ok":
        return _Encoded(state, None)
    digest = None
    try:
        data = read_image_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if data.startswith(_JPEG_START) and not data.endswith(_JPEG_END):
            check_image(data, path)  # perhaps truncated: OpenCV would fill it with grey
        pixels = decode_image(data, path)
    except DataError as error:
        return _Encoded(ImageState("broken", digest=digest, reason=str(error).removeprefix(f"{path}: ")), None)
    height, width = pixels.shape[:2]
    state = ImageState("ok", width, height, digest)
    if box is not None:
        pixels = crop_to_box(pixels, box)
        height, width = pixels.shape[:2]
    scale = max_side_px / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, image = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _Encoded(state, bytes(image))
