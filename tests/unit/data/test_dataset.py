"""Rows to batches of pixels: the same whatever the number of loader processes, and no image lost in silence."""

import shutil
import subprocess
import sys
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image

from productrec.data.dataset import (
    TrainingImages,
    ViewBatch,
    ViewedImages,
    build_training_loader,
    build_view_loader,
    check_shared_memory,
    choose_workers,
)
from productrec.data.decode import decode_image
from productrec.data.images import FileImages
from productrec.data.samplers import Draw, EpochSampler
from productrec.data.transforms import build_augmentation, grow_sides
from productrec.data.view_presets import get_views
from productrec.data.views import cut_views
from productrec.errors import StorageError

ROOT = Path(__file__).resolve().parents[3]
SIDE = 32
SEED = 11


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Twelve small photographs of noise."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    names = []
    for number in range(12):
        noise = generator.integers(0, 255, (40 + number, 50, 3), dtype=np.uint8)
        names.append(str(folder / f"{number}.jpg"))
        Image.fromarray(noise).save(names[-1], quality=90)
    return names


LABELS = np.repeat(np.arange(4), 3)


def build_training(paths: list[str], *, seed: int = SEED, preset: str = "heavy") -> TrainingImages:
    return TrainingImages(FileImages(paths), LABELS, build_augmentation(preset, SIDE), seed)


def load_epochs(paths: list[str], workers: int, epochs: tuple[int, ...], first_batch: int = 0):
    """Batches of some epochs, through one loader whose processes stay."""
    sampler = EpochSampler(LABELS, batch_size=4, images_per_class=2, seed=SEED)
    loader = build_training_loader(build_training(paths), sampler, workers=workers, pin_memory=False)
    batches = []
    for epoch in epochs:
        sampler.epoch, sampler.first_batch = epoch, first_batch
        batches += list(loader)
    return batches


def check_same(one, two) -> None:
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


# ---------------------------------------------------------------- training


def test_a_row_is_augmented_by_seed_epoch_row_and_occurrence_alone(paths: list[str]) -> None:
    images = build_training(paths)
    pixels, label, row, problem = images[Draw(2, 5, 0)]
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    assert (label, row, problem) == (1, 5, None)
    images[Draw(0, 0, 0)]
    assert np.array_equal(images[Draw(2, 5, 0)][0], pixels)
    assert np.array_equal(build_training(paths)[Draw(2, 5, 0)][0], pixels)
    assert not np.array_equal(images[Draw(3, 5, 0)][0], pixels)
    assert not np.array_equal(build_training(paths, seed=SEED + 1)[Draw(2, 5, 0)][0], pixels)
    assert not np.array_equal(images[Draw(2, 4, 0)][0], pixels)
    assert not np.array_equal(images[Draw(2, 5, 1)][0], pixels)


def test_the_same_image_twice_in_an_epoch_is_augmented_apart(paths: list[str]) -> None:
    images = TrainingImages(FileImages([paths[0]] * 2), LABELS[:2], build_augmentation("heavy", SIDE), SEED)
    assert not np.array_equal(images[Draw(0, 0, 0)][0], images[Draw(0, 1, 0)][0])


def test_no_image_of_a_pk_batch_is_a_copy_of_another(tmp_path: Path) -> None:
    """Single-image classes, as a recipe draws them: their positives are other views, not the same pixels."""
    noise = np.random.default_rng(0).integers(0, 255, (200, 40, 40, 3), dtype=np.uint8)
    names = [str(tmp_path / f"{number}.png") for number in range(200)]
    for name, pixels in zip(names, noise, strict=True):
        Image.fromarray(pixels).save(name)
    sampler = EpochSampler(np.arange(200), batch_size=64, images_per_class=4, seed=SEED)
    images = TrainingImages(FileImages(names), np.arange(200), build_augmentation("product", SIDE), SEED)
    batch = next(iter(build_training_loader(images, sampler, workers=0, pin_memory=False)))
    assert len({row.tobytes() for row in batch.images.numpy()}) == 64
    assert len(set(batch.labels.tolist())) == 16


def test_batches_are_bytes_and_class_positions(paths: list[str]) -> None:
    batches = load_epochs(paths, 0, (0,))
    assert len(batches) == 3
    for pixels, labels, broken, rows in batches:
        assert broken == []
        assert labels.tolist() == LABELS[rows.numpy()].tolist()
        assert pixels.shape == (4, SIDE, SIDE, 3)
        assert pixels.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert sorted(labels.unique(return_counts=True)[1].tolist()) == [2, 2]


def test_squares_grow_and_the_last_side_stays(paths: list[str]) -> None:
    sides = grow_sides(16, SIDE, 6)
    assert sides[0] == 16
    assert sides[3:] == [SIDE] * 3
    assert sides == sorted(sides)
    assert grow_sides(SIDE, SIDE, 3) == [SIDE] * 3
    assert grow_sides(16, SIDE, 1) == [SIDE]
    images = TrainingImages(FileImages(paths), LABELS, [build_augmentation("light", side) for side in sides], SEED)
    assert [images[Draw(epoch, 0, 0)].pixels.shape[0] for epoch in (0, 3, 9)] == [16, SIDE, SIDE]
    assert images.image_bytes == 3 * SIDE**2
    assert np.array_equal(images[Draw(9, 0, 0)].pixels, build_training(paths, preset="light")[Draw(9, 0, 0)].pixels)


def test_batches_do_not_depend_on_the_number_of_workers(paths: list[str]) -> None:
    check_same(load_epochs(paths, 0, (0, 1)), load_epochs(paths, 2, (0, 1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_made_in_pieces_by_several_processes_is_the_same(
    paths: list[str], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_epochs(paths, 0, (2, 3))
    monkeypatch.setattr("productrec.data.dataset._PIECE_IMAGES", 3)
    pieces = load_epochs(paths, workers, (2, 3))
    check_same(whole, pieces)
    assert [batch.rows.tolist() for batch in whole] == [batch.rows.tolist() for batch in pieces]
    assert pieces[0].images.data_ptr() != pieces[1].images.data_ptr()


HELD = """
import gc, sys
import numpy as np
from productrec.data.dataset import TrainingImages, ViewedImages, build_training_loader, build_view_loader
from productrec.data.images import FileImages
from productrec.data.samplers import Draw, EpochSampler
from productrec.data.transforms import build_augmentation
from productrec.data.view_presets import get_views

gc.disable()
images = FileImages(sys.argv[1:])
labels = np.arange(len(sys.argv) - 1) % 2
dataset = TrainingImages(images, labels, build_augmentation("light", 32), 0)
training = build_training_loader(
    dataset, EpochSampler(labels, batch_size=4, images_per_class=None, seed=0), workers=1, pin_memory=False
)
views = build_view_loader(
    ViewedImages(images, get_views("plain"), 32), batch_size=4, workers=1, pin_memory=False, persistent=True
)
assert list(training) and list(views)
held = [training, views]
held.append(held)  # as an exception's traceback may hold them
del training, views, held
print("done")
"""


def test_a_loader_that_something_holds_does_not_keep_the_process_from_ending(paths: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD, *paths], capture_output=True, text=True, timeout=100, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_large_batches_travel_in_little_shared_memory(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("productrec.data.dataset.check_shared_memory", lambda *given: asked.append(given))
    sampler = EpochSampler(np.repeat(np.arange(4), 1024), batch_size=4096, images_per_class=None, seed=SEED)
    build_training_loader(build_training(paths), sampler, workers=2, pin_memory=False, local_size=4)
    assert asked == [(8, 128 * 3 * SIDE**2)]


def test_a_resumed_epoch_has_the_same_tail(paths: list[str]) -> None:
    check_same(load_epochs(paths, 0, (3,))[1:], load_epochs(paths, 0, (3,), first_batch=1))


def test_loading_leaves_the_global_random_state_alone(paths: list[str]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_epochs(paths, 0, (0, 1))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_training_image_is_marked_and_the_others_go_on(paths: list[str], tmp_path: Path, workers: int) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"x")
    A.save(A.Compose([A.RandomCrop(30, 30)]), tmp_path / "crop.yaml", data_format="yaml")
    for preset in ("heavy", str(tmp_path / "crop.yaml")):  # no stand-in is large enough for every pipeline
        mixed = [paths[0], str(tmp_path / "broken.jpg"), paths[1], paths[2]]
        images = TrainingImages(FileImages(mixed), LABELS[:4], build_augmentation(preset, SIDE), SEED)
        sampler = EpochSampler(LABELS[:4], batch_size=4, images_per_class=None, seed=SEED)
        (batch,) = build_training_loader(images, sampler, workers=workers, pin_memory=False)
        assert len(batch.broken) == 1
        assert "broken.jpg: is not a picture" in batch.broken[0]
        assert "\n" not in batch.broken[0]
        assert sorted(picture.any().item() for picture in batch.images) == [False, True, True, True]


@pytest.mark.parametrize("name", ["plain.jpg", "späti ☕.jpg", "café.jpg", "a,b\nc.jpg"])
def test_paths_of_any_letters_are_opened(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / name, "PNG")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b.png")
    both = [str(tmp_path / name), str(tmp_path / "b.png")]
    images = TrainingImages(FileImages(both), LABELS[:2], build_augmentation("none", SIDE), 0)
    assert (images[Draw(0, 0, 0)][0] == (255, 0, 0)).all()
    assert (images[Draw(0, 1, 0)][0] == (0, 0, 255)).all()
    assert ViewedImages(FileImages(both), get_views("plain"), SIDE)[0][2] is None


# ---------------------------------------------------------------- views


def load_views(paths: list[str], workers: int = 0, batch_size: int = 5, preset: str = "full") -> list[ViewBatch]:
    dataset = ViewedImages(FileImages(paths), get_views(preset), SIDE)
    return list(build_view_loader(dataset, batch_size=batch_size, workers=workers, pin_memory=False))


def test_view_batches_come_in_order_with_one_tensor_a_cut(paths: list[str]) -> None:
    batches = load_views(paths)
    cuts = tuple(dict.fromkeys(view.cut for view in get_views("full")))
    assert torch.cat([batch.rows for batch in batches]).tolist() == list(range(12))
    assert [len(batch.rows) for batch in batches] == [5, 5, 2]
    for batch in batches:
        assert len(batch.cuts) == len(cuts) == 13
        assert all(tensor.dtype == torch.uint8 and len(tensor) == len(batch.rows) for tensor in batch.cuts)
        assert batch.broken == {}
    row = 6
    expected = cut_views(decode_image(Path(paths[row]).read_bytes(), "x"), cuts, SIDE)
    for tensor, square in zip(batches[1].cuts, expected, strict=True):
        assert np.array_equal(tensor[1].numpy(), square)


def test_view_batches_do_not_depend_on_the_number_of_workers(paths: list[str]) -> None:
    for one, two in zip(load_views(paths), load_views(paths, workers=2), strict=True):
        assert torch.equal(one.rows, two.rows)
        assert all(torch.equal(a, b) for a, b in zip(one.cuts, two.cuts, strict=True))


def test_a_broken_file_is_marked_and_the_others_go_on(paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(Path(paths[0]).read_bytes()[:300])
    mixed = [paths[0], str(tmp_path / "broken.jpg"), paths[1], str(tmp_path / "absent.jpg"), str(tmp_path), paths[2]]
    batches = load_views(mixed, batch_size=3, preset="flip")
    broken = {row: text for batch in batches for row, text in batch.broken.items()}
    assert set(broken) == {1, 3, 4}
    assert "broken.jpg" in broken[1]
    assert "absent.jpg: cannot be opened" in broken[3]
    assert "must be a regular file" in broken[4]
    pixels = torch.cat([batch.cuts[0] for batch in batches])
    alone = torch.cat([batch.cuts[0] for batch in load_views(paths[:3], preset="flip")])
    assert torch.equal(pixels[[0, 2, 5]], alone)
    assert not pixels[[1, 3, 4]].any()


@pytest.mark.parametrize(
    ("wanted", "cores", "on_gpu", "expected"),
    [
        (0, 8, True, 0),
        (5, 2, False, 5),
        (-1, 1, False, 1),
        (-1, 1, True, 1),
        (-1, 8, False, 2),
        (-1, 8, True, 7),
        (-1, 64, True, 16),
    ],
)
def test_workers_are_chosen_by_cores_and_device(wanted: int, cores: int, on_gpu: bool, expected: int) -> None:
    assert choose_workers(wanted, cores=cores, on_gpu=on_gpu) == expected


def test_too_little_shared_memory_is_refused_before_anything_waits(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_shared_memory(2, free // 100, folder=tmp_path)
    check_shared_memory(0, free * 10, folder=tmp_path)
    check_shared_memory(2, free * 10, folder=tmp_path / "nowhere")
    with pytest.raises(StorageError, match="--shm-size"):
        check_shared_memory(2, free, folder=tmp_path)


def test_slots_are_used_again_and_what_was_taken_stays(paths: list[str]) -> None:
    """One process, five slots, and far more batches, all kept."""

    def load(workers: int) -> list:
        sampler = EpochSampler(LABELS, batch_size=2, images_per_class=None, seed=SEED)
        loader = build_training_loader(build_training(paths), sampler, workers=workers, pin_memory=False)
        batches = []
        for epoch in range(4):
            sampler.epoch = epoch
            batches += list(loader)
        return batches

    kept = load(1)
    assert len(kept) == 24
    check_same(kept, load(0))
    assert len({batch.images.data_ptr() for batch in kept}) == 24
