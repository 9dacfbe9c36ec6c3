"""Datasets and loaders: rows of the image table to uint8 batches; normalisation waits for the device."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from productrec.data.images import Images
from productrec.data.samplers import Draw, EpochSampler
from productrec.data.slots import Slots, Slotted
from productrec.data.transforms import Augmentation
from productrec.data.view_presets import View, plan_views
from productrec.data.views import compute_side_px, cut_views
from productrec.errors import DataError, StorageError

_PREFETCH_BATCHES = 4
_PIECE_IMAGES = 128  # a larger batch is made by several loader processes, each a piece of it at a time


class ViewBatch(NamedTuple):
    """Some images, cut for every view.

    ``rows``: positions in the dataset; ``cuts``: one (B, S, S, 3) uint8 tensor a distinct cut; ``broken``: messages of
    the images that could not be decoded, by row (their pixels are zeros and must not be used).
    """

    rows: torch.Tensor
    cuts: list[torch.Tensor]
    broken: dict[int, str]


class TrainingBatch(NamedTuple):
    """Some augmented images: (B, S, S, 3) uint8, class positions (B,) int64, and what went wrong with any of them.

    ``rows``: (B,) int64, their positions in the dataset.
    """

    images: torch.Tensor
    labels: torch.Tensor
    broken: list[str]
    rows: torch.Tensor


class Piece(NamedTuple):
    """Some images of a batch, and how many images the whole batch has."""

    draws: Sequence[Draw]
    batch_size: int


class LoadedPiece(NamedTuple):
    """A piece with its images: squares, or their slot. No other tensor, since each would be a file of its own."""

    images: torch.Tensor | Slotted
    labels: list[int]
    rows: list[int]
    broken: list[str]
    batch_size: int


class TrainingItem(NamedTuple):
    """One augmented image, its class position, its row, and what went wrong."""

    pixels: np.ndarray
    label: int
    row: int
    problem: str | None


class TrainingImages(Dataset[TrainingItem]):
    """Augmented squares with their class position, addressed by `Draw`.

    Where there are several augmentations, one an epoch, as for squares that grow, the last one serves all later epochs.
    """

    def __init__(
        self, images: Images, labels: np.ndarray, augmentation: Augmentation | Sequence[Augmentation], seed: int
    ) -> None:
        self._images = images
        self._labels = labels
        self._augmentations = [augmentation] if isinstance(augmentation, Augmentation) else list(augmentation)
        self._seed = seed
        self.slots: Slots | None = None

    @property
    def image_bytes(self) -> int:
        """Size of one image in a batch at most."""
        return 3 * max(augmentation.side_px for augmentation in self._augmentations) ** 2

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> TrainingItem:
        epoch, row, occurrence = draw
        augmentation = self._augmentations[min(epoch, len(self._augmentations) - 1)]
        pixels, problem = _decode(self._images, row)
        if problem is not None:  # a pipeline may refuse the stand-in for its size
            side_px = augmentation.side_px
            return TrainingItem(np.zeros((side_px, side_px, 3), np.uint8), int(self._labels[row]), row, problem)
        name = f"{self._seed} {epoch} {row} {occurrence}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "little")
        return TrainingItem(augmentation(pixels, seed), int(self._labels[row]), row, problem)

    def __getitems__(self, piece: Piece) -> LoadedPiece:
        """A piece as it travels from a loader process to the main one, each image written while it is in the cache."""
        draws = piece.draws
        worker = get_worker_info()
        slot: Slotted | None = None
        squares = np.empty(0, np.uint8)
        labels, rows, broken = [], [], []
        for number, draw in enumerate(draws):
            item = self[draw]
            if number == 0:
                shape = (len(draws), *item.pixels.shape)
                if worker is not None and self.slots is not None:
                    slot, squares = self.slots.open(worker.id, shape)
                else:
                    squares = np.empty(shape, np.uint8)
            squares[number] = item.pixels
            labels.append(item.label)
            rows.append(item.row)
            if item.problem is not None:
                broken.append(item.problem)
        images = torch.from_numpy(squares) if slot is None else slot
        return LoadedPiece(images, labels, rows, broken, piece.batch_size)


class ViewedImages(Dataset[tuple[int, list[np.ndarray], str | None]]):
    """The cuts of each image that a set of views needs, addressed by row."""

    def __init__(
        self, images: Images, views: Sequence[View], side_px: int, *, seed: int = 0, first: int | None = 0
    ) -> None:
        """Of some images.

        Args:
            images: of any size.
            views: to cut for.
            side_px: the network's side.
            seed: decides what random pipelines draw.
            first: row of the first image, for these to draw by; None draws for each image as if it were asked alone.
        """
        self._images = images
        self._seed, self._first = seed, first
        self._cuts = plan_views(views)[0]
        self._side_px = side_px

    @property
    def image_bytes(self) -> int:
        """Size of all cuts of one image in a batch."""
        return sum(3 * compute_side_px(self._side_px, scale) ** 2 for _, scale, _ in self._cuts)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[int, list[np.ndarray], str | None]:
        pixels, problem = _decode(self._images, row)
        own = 0 if self._first is None else self._first + row
        if problem is None:
            try:
                return row, cut_views(pixels, self._cuts, self._side_px, seed=self._seed, row=own), None
            except DataError as error:
                problem = str(error)
        sides = [compute_side_px(self._side_px, scale) for _, scale, _ in self._cuts]
        return row, [np.zeros((side, side, 3), np.uint8) for side in sides], problem


class TrainingLoader:
    """Gives the `TrainingBatch`es of an epoch each time it is gone through."""

    def __init__(
        self, pieces: Iterable[LoadedPiece], sampler: EpochSampler, slots: Slots | None, *, pin_memory: bool
    ) -> None:
        self._pieces, self._sampler, self._slots, self._pin_memory = pieces, sampler, slots, pin_memory

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[TrainingBatch]:
        labels, rows, broken = list[int](), list[int](), list[str]()
        images = torch.empty(0, dtype=torch.uint8)
        for piece in self._pieces:
            if not labels:
                shape = (piece.batch_size, *piece.images.shape[1:])
                images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory)
            target = images[len(labels) : len(labels) + len(piece.labels)]
            if isinstance(piece.images, Slotted):
                assert self._slots is not None
                self._slots.take(piece.images, target)
            else:
                target.copy_(piece.images)
            labels, rows, broken = labels + piece.labels, rows + piece.rows, broken + piece.broken
            if len(labels) == piece.batch_size:
                yield TrainingBatch(images, torch.tensor(labels), broken, torch.tensor(rows))
                labels, rows, broken = [], [], []


class _PieceSampler:
    """The batches of a sampler in pieces of nearly equal size, for as many loader processes to work on."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[Piece]:
        for batch in self._sampler:
            count = -(-len(batch) // _PIECE_IMAGES)
            edges = [len(batch) * number // count for number in range(count + 1)]
            for start, stop in itertools.pairwise(edges):
                yield Piece(batch[start:stop], len(batch))


def build_training_loader(
    dataset: TrainingImages, sampler: EpochSampler, *, workers: int, pin_memory: bool, local_size: int = 1
) -> TrainingLoader:
    """`TrainingBatch`es in the sampler's order.

    Args:
        dataset: of the images.
        sampler: of their batches.
        workers: loader processes.
        pin_memory: whether batches lie where a GPU can fetch them.
        local_size: how many such loaders this machine has, one a rank.

    Raises:
        StorageError: see `check_shared_memory`.
    """
    slot_bytes = min(sampler.own_batch_size, _PIECE_IMAGES) * dataset.image_bytes
    check_shared_memory(workers * local_size, slot_bytes)
    dataset.slots = Slots(workers, _PREFETCH_BATCHES + 1, slot_bytes) if workers else None
    loader = DataLoader(
        dataset,
        batch_sampler=_PieceSampler(sampler),  # type: ignore[arg-type]  # it is only gone through
        num_workers=workers,
        collate_fn=_keep,
        persistent_workers=workers > 0,
        prefetch_factor=_PREFETCH_BATCHES if workers else None,
        worker_init_fn=functools.partial(_start_worker, _share_ending()),
        generator=torch.Generator().manual_seed(0),  # else every epoch draws from the global random state
    )
    return TrainingLoader(loader, sampler, dataset.slots, pin_memory=pin_memory)


def build_view_loader(
    dataset: ViewedImages, *, batch_size: int, workers: int, pin_memory: bool, persistent: bool = False
) -> DataLoader[tuple[int, list[np.ndarray], str | None]]:
    """`ViewBatch`es over the whole dataset, in order, the last one smaller; raises as `check_shared_memory`."""
    check_shared_memory(workers, min(batch_size, len(dataset)) * dataset.image_bytes)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate_views,
        pin_memory=pin_memory,
        persistent_workers=persistent and workers > 0,
        prefetch_factor=_PREFETCH_BATCHES if workers else None,
        worker_init_fn=functools.partial(_start_worker, _share_ending()),
        generator=torch.Generator().manual_seed(0),
    )


def check_shared_memory(workers: int, batch_bytes: int, *, folder: Path = Path("/dev/shm")) -> None:
    """Refuse loader processes whose batches do not fit the shared memory they travel in: they would wait for ever.

    Args:
        workers: loader processes; 0 needs none.
        batch_bytes: size of one batch.
        place: where the system keeps shared memory; where there is no such folder nothing is checked.

    Raises:
        StorageError: too little is free, as in a container that was given the usual 64 MB.
    """
    if not workers or not folder.is_dir():
        return
    needed, free = workers * (_PREFETCH_BATCHES + 1) * batch_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{folder}: must have {needed >> 20} MB free for {workers} loader processes; got {free >> 20} MB. "
            "Start the container with a larger --shm-size, or lower train.workers or the batch size."
        )


def choose_workers(wanted: int, *, cores: int, on_gpu: bool) -> int:
    """Loader processes: ``wanted``, or for -1 all cores but one beside a GPU, a quarter of them without."""
    if wanted >= 0:
        return wanted
    return max(1, min(16, cores - 1 if on_gpu else cores // 4))


def _keep(batch: Any) -> Any:
    return batch


def _collate_views(items: list[tuple[int, list[np.ndarray], str | None]]) -> ViewBatch:
    rows = torch.tensor([row for row, _, _ in items], dtype=torch.int64)
    cuts = [torch.from_numpy(np.stack(pixels)) for pixels in zip(*(cuts for _, cuts, _ in items), strict=True)]
    return ViewBatch(rows, cuts, {row: problem for row, _, problem in items if problem is not None})


def _decode(images: Images, row: int) -> tuple[np.ndarray, str | None]:
    """Pixels, or a black image and what is wrong: an error raised in a loader process would arrive as a traceback."""
    try:
        return images.decode(row), None
    except DataError as error:
        return np.zeros((8, 8, 3), np.uint8), str(error)


@functools.cache
def _share_ending() -> torch.Tensor:
    """Whether this process ends, for its loader processes to see; set before multiprocessing sends them its SIGTERM.

    Torch ends them where a loader is freed; one that something still holds at the end would else be waited for.
    """
    ending: torch.Tensor = torch.zeros(1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    Finalize(None, ending.fill_, args=(1,), exitpriority=0)  # atexit comes too late in a process of multiprocessing
    return ending


def _start_worker(ending: torch.Tensor, number: int) -> None:
    # Ctrl-C, and SIGTERM to a whole group, reach every process; the main one still needs its batches to finish the step
    # and save. It ends its loader processes itself, with a SIGTERM of its own where they do not hear.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen: list[int] = []

    def leave_at_second(signal_number: int, frame: FrameType | None) -> None:
        if seen or ending.numpy()[0]:
            os._exit(0)
        seen.append(signal_number)

    signal.signal(signal.SIGTERM, leave_at_second)
    # One core a worker: OpenCV's own threads would fight with the other workers.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
