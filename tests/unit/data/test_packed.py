"""The packed store: the same pixels by row, the same bytes whatever interrupts it, and no damage unnoticed."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from productrec import artifacts
from productrec.artifacts import MANIFEST_NAME, write_artifact
from productrec.data import packed
from productrec.data.decode import decode_image
from productrec.data.inspection import inspect_images
from productrec.data.packed import KIND, PackedImages, pack_images
from productrec.errors import ArtifactError, DataError, RecipeError, StorageError

COUNT = 44
IDS = [f"p{row}" for row in range(COUNT)]
INPUTS = {"table": "abc"}
PACKER = """
import sys, time
from pathlib import Path
from productrec.data import packed
packed.ROWS_PER_SHARD, packed.ROWS_PER_BATCH, packed._AHEAD_IMAGES = 8, 4, 6
paths = sys.argv[2:]
packed.pack_images(
    paths, Path(sys.argv[1]), ids=[f"p{row}" for row in range(len(paths))], max_side_px=64, workers=2,
    inputs={"table": "abc"}, on_progress=lambda count: (print(count, flush=True), time.sleep(0.1)),
)
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six shards, the last one with half a batch."""
    monkeypatch.setattr(packed, "ROWS_PER_SHARD", 8)
    monkeypatch.setattr(packed, "ROWS_PER_BATCH", 4)
    monkeypatch.setattr(packed, "_AHEAD_IMAGES", 6)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Smooth pictures of many sizes, each of its own colour."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    found = []
    for row in range(COUNT):
        coarse = generator.integers(40, 215, (4, 4, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (150 + 4 * row, 300 - 3 * row), interpolation=cv2.INTER_CUBIC)
        found.append(str(folder / f"{row}{('.jpg', '.png', '.webp')[row % 3]}"))
        Image.fromarray(pixels).save(found[-1], quality=95)
    return found


def pack(paths, out: Path, **changes) -> packed.Packed:
    settings = {"ids": IDS[: len(paths)], "max_side_px": 64, "workers": 2, "inputs": INPUTS}
    return pack_images(paths, out, **{**settings, **changes})


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "ROWS_PER_SHARD", 8)
        patch.setattr(packed, "ROWS_PER_BATCH", 4)
        out = tmp_path_factory.mktemp("whole") / "pack"
        pack(paths, out)
    return out


# ---------------------------------------------------------------- reading


def test_rows_come_back_in_order_at_their_size(paths: list[str], whole: Path) -> None:
    images = PackedImages(whole, digests=True)
    assert len(images) == COUNT
    for row in random.Random(0).sample(range(COUNT), COUNT):
        source = decode_image(Path(paths[row]).read_bytes(), row)
        height, width = source.shape[:2]
        scale = min(1, 64 / max(height, width))
        size = (round(width * scale), round(height * scale))
        expected = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
        pixels = images.decode(row)
        assert pixels.shape == expected.shape and pixels.dtype == np.uint8
        assert max(pixels.shape) <= 64
        assert np.abs(pixels.astype(int) - expected).mean() < 6, row
        assert bytes(images.read(row))[:2] == b"\xff\xd8"


def test_a_small_image_keeps_its_size(paths: list[str], tmp_path: Path) -> None:
    pack(paths[:1], tmp_path / "pack", max_side_px=5000)
    assert PackedImages(tmp_path / "pack").decode(0).shape == (300, 150, 3)


@pytest.mark.parametrize("row", [-1, COUNT])
def test_a_row_that_is_not_there_is_an_index_error(whole: Path, row: int) -> None:
    with pytest.raises(IndexError, match="row must be"):
        PackedImages(whole).read(row)


def test_states_are_those_of_an_inspection(paths: list[str], whole: Path) -> None:
    assert PackedImages(whole).get_states() == inspect_images(paths, workers=1)


def test_ids_of_another_table_are_refused(whole: Path) -> None:
    images = PackedImages(whole)
    images.check_ids(IDS)
    for other in (IDS[:-1], IDS[::-1]):
        with pytest.raises(ArtifactError, match="row by row"):
            images.check_ids(other)


def test_missing_and_broken_images_keep_their_rows(paths: list[str], tmp_path: Path) -> None:
    for name, keep in (("cut.jpg", 0.6), ("cut.png", 0.6)):
        whole_image = tmp_path / f"whole-{name}"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(whole_image)
        data = whole_image.read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * keep)])
    (tmp_path / "text.jpg").write_text("no picture")
    wrong = [None, *(str(tmp_path / name) for name in ("absent.jpg", "cut.jpg", "cut.png", "text.jpg"))]
    mixed = [paths[0], *wrong, str(tmp_path), paths[1]]
    done = pack(mixed, tmp_path / "pack")
    assert done.states == inspect_images(mixed, workers=1)
    assert [state.status for state in done.states] == ["ok", *["missing"] * 2, *["broken"] * 4, "ok"]
    images = PackedImages(tmp_path / "pack")
    for row, text in ((1, "p1: no such"), (2, "p2: no such"), (3, "p3: .*truncated"), (4, "p4: .*not a readable")):
        with pytest.raises(DataError, match=text):
            images.read(row)
    for row, text in ((5, "p5: is not a picture"), (6, "p6: must be a regular file")):
        with pytest.raises(DataError, match=text):
            images.decode(row)
    assert images.decode(0).shape[0] == images.decode(7).shape[0] == 64


def test_a_link_that_leads_out_is_not_followed(paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(paths[0])
    link = [str(tmp_path / "link.jpg")]
    assert pack(link, tmp_path / "pack").states[0].status == "ok"
    confined = pack(link, tmp_path / "other", inside=tmp_path.resolve())
    assert confined.states == inspect_images(link, workers=1, inside=tmp_path.resolve())
    assert confined.states[0].status == "broken"


def test_truncated_jpegs_are_found_as_by_an_inspection(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    cut = []
    for progressive in (False, True):
        Image.fromarray(noise).save(tmp_path / "whole.jpg", progressive=progressive)
        data = (tmp_path / "whole.jpg").read_bytes()
        ends = [data[:length] for length in (*range(2, len(data), len(data) // 18), len(data) - 2, len(data) - 1)]
        for one in [*ends, data, data + b"\0\0", data[: len(data) // 2] + b"\xff\xd9"]:
            cut.append(str(tmp_path / f"{len(cut)}.jpg"))
            Path(cut[-1]).write_bytes(one)
    done = pack(cut, tmp_path / "pack", ids=cut)
    # OpenCV gives no reason of its own.
    assert [replace(state, reason=None) for state in done.states] == [
        replace(state, reason=None) for state in inspect_images(cut, workers=1)
    ]
    assert {state.status for state in done.states} == {"ok", "broken"}


def test_a_store_of_unreadable_images_alone_and_one_without_rows(tmp_path: Path) -> None:
    pack([None] * 10, tmp_path / "pack")
    with pytest.raises(DataError, match="p9: no such file"):
        PackedImages(tmp_path / "pack").decode(9)
    assert pack([], tmp_path / "empty").states == []
    assert len(PackedImages(tmp_path / "empty")) == 0


class Pictures(Dataset[tuple[int, np.ndarray]]):
    def __init__(self, images: PackedImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[int, np.ndarray]:
        return row, self._images.decode(row)


def test_loader_workers_read_the_same_pixels(whole: Path) -> None:
    images = PackedImages(whole)
    images.decode(0)  # something is mapped already
    loader = DataLoader(Pictures(images), batch_size=None, num_workers=2)
    for count, (row, pixels) in enumerate(loader):
        assert row == count
        assert np.array_equal(pixels, images.decode(row))


def test_a_pickle_holds_no_pixels(whole: Path) -> None:
    images = PackedImages(whole)
    images.decode(3)
    data = pickle.dumps(images)
    assert len(data) < 2000
    assert np.array_equal(pickle.loads(data).decode(3), images.decode(3))


# ---------------------------------------------------------------- writing


def test_a_fresh_store_is_left_alone_and_a_changed_setting_makes_another(paths: list[str], tmp_path: Path) -> None:
    counts: list[int] = []
    assert not pack(paths[:10], tmp_path / "pack", on_progress=counts.append).skipped
    assert sum(counts) == 10
    before = read_folder(tmp_path / "pack")
    again = pack(paths[:10], tmp_path / "pack", on_progress=counts.append)
    assert again.skipped and len(again.states) == 10 and sum(counts) == 20
    assert read_folder(tmp_path / "pack") == before
    for change in ({"quality": 80}, {"max_side_px": 32}, {"inputs": {"table": "b"}}, {"ids": IDS[1:11]}):
        assert not pack(paths[:10], tmp_path / "pack", **change).skipped, change
    assert PackedImages(tmp_path / "pack").decode(0).shape[0] == 64
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


@pytest.mark.parametrize("workers", [1, 5])
def test_bytes_do_not_depend_on_the_number_of_workers(
    paths: list[str], whole: Path, tmp_path: Path, workers: int
) -> None:
    pack(paths, tmp_path / "pack", workers=workers)
    assert read_folder(tmp_path / "pack") == read_folder(whole)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_at_random_moments_it_ends_with_the_same_bytes(paths: list[str], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    working = tmp_path / ".pack.packing"
    draw = random.Random(os.getpid())
    finished: dict[str, int] = {}
    for lines in (draw.randint(2, 4), draw.randint(4, 5), draw.randint(2, 3)):  # a rerun has fewer left to tell of
        with subprocess.Popen([sys.executable, "-c", PACKER, str(out), *paths], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.kill()
        assert not out.exists()
        kept = {path.name: path.stat().st_ino for path in working.glob("*.arrow") if path.name[0] != "."}
        assert finished.items() <= kept.items(), "a finished shard was made again"
        finished = kept
    assert finished
    assert not pack(paths, out).skipped
    assert {name: (out / name).stat().st_ino for name in finished} == finished
    assert read_folder(out) == read_folder(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_stopped_before_the_manifest_nothing_is_encoded_again(
    paths: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "compute_file_digest", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(paths, tmp_path / "pack")
    monkeypatch.setattr(packed, "_encode_file", None)
    pack(paths, tmp_path / "pack")
    assert read_folder(tmp_path / "pack") == read_folder(whole)


def test_shards_left_by_other_settings_are_not_used(
    paths: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "compute_file_digest", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(paths, tmp_path / "pack", quality=50)
    (tmp_path / ".pack.packing" / "images-000002.arrow").write_bytes(b"ARROW1 and nothing more")
    pack(paths, tmp_path / "pack")
    assert read_folder(tmp_path / "pack") == read_folder(whole)


def test_where_there_are_no_links_files_are_moved(
    paths: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(source)

    monkeypatch.setattr(os, "link", refuse)
    pack(paths, tmp_path / "pack")
    assert read_folder(tmp_path / "pack") == read_folder(whole)


def test_a_full_disk_leaves_the_finished_shards(paths: list[str], whole: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    small = [None] * 8 + paths[8:]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4500, before[1]))
    try:
        with pytest.raises(StorageError, match="no space left"):
            pack(small, tmp_path / "pack")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / ".pack.packing").iterdir()] == ["images-000000.arrow"]
    assert pack(small, tmp_path / "pack").states[0].status == "missing"
    assert np.array_equal(PackedImages(tmp_path / "pack").decode(20), PackedImages(whole).decode(20))


# ---------------------------------------------------------------- refusals


def test_a_damaged_shard_is_noticed(whole: Path, tmp_path: Path) -> None:
    def damage(change) -> Path:
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        shard = folder / "images-000001.arrow"
        data = bytearray(shard.read_bytes())
        change(data)
        shard.write_bytes(data)
        return folder

    def flip(data: bytearray) -> None:
        data[len(data) // 2] ^= 255

    flipped = damage(flip)
    PackedImages(flipped)
    with pytest.raises(ArtifactError, match=r"images-000001.*damaged"):
        PackedImages(flipped, digests=True)
    with pytest.raises(ArtifactError, match=r"images-000001.*damaged"):
        PackedImages(damage(lambda data: data.pop()))
    headless = PackedImages(damage(lambda data: data.__setitem__(slice(-400, None), bytes(400))))
    with pytest.raises(ArtifactError, match=r"images-000001.*cannot be read"):
        headless.read(9)
    (flipped / "images-000001.arrow").unlink()
    with pytest.raises(ArtifactError, match="missing from this packed images"):
        PackedImages(flipped)


def test_shards_of_another_store_are_refused(paths: list[str], tmp_path: Path) -> None:
    pack(paths[:16], tmp_path / "pack")
    images = PackedImages(tmp_path / "pack")
    images.decode(0)
    pack(paths[:16], tmp_path / "pack", quality=50)  # while a reader is at work
    images.decode(1)
    with pytest.raises(ArtifactError, match="belongs to another store"):
        images.decode(9)


def test_a_folder_of_something_else_is_refused(paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with write_artifact(tmp_path / "table", kind="image table"):
        pass
    (tmp_path / "file").write_text("keep")
    for name in ("mine", "table", "file"):
        with pytest.raises(ArtifactError):
            pack(paths[:2], tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine", "table"]
    for name in ("mine", "table", "absent"):
        with pytest.raises(ArtifactError, match=KIND):
            PackedImages(tmp_path / name)
    assert [path.name for path in (tmp_path / "table").iterdir()] == [MANIFEST_NAME]


def test_settings_out_of_range_and_unequal_lengths_are_refused(paths: list[str], tmp_path: Path) -> None:
    for change in ({"max_side_px": 0}, {"quality": 0}, {"quality": 101}):
        with pytest.raises(RecipeError, match="packing: max_side_px must"):
            pack(paths[:2], tmp_path / "pack", **change)
    with pytest.raises(DataError, match="one id a path"):
        pack(paths[:2], tmp_path / "pack", ids=IDS[:3])


def test_boxes_are_packed_as_what_they_show(tmp_path: Path, paths: list[str]) -> None:
    boxes = ["10,20,40,30", None, "-5,-5,30,30"]
    stored = pack_images(
        [paths[1]] * 3, tmp_path / "boxed", ids=["a", "b", "c"], max_side_px=500, workers=2, inputs=INPUTS, boxes=boxes
    )
    images = PackedImages(stored.folder)
    whole = images.decode(1).astype(int)
    assert images.decode(0).shape == (30, 40, 3)
    assert np.abs(images.decode(0).astype(int) - whole[20:50, 10:50]).mean() < 3
    assert images.decode(2).shape == (25, 25, 3)
    # The table's size is the file's.
    assert {(state.width, state.height) for state in stored.states} == {(whole.shape[1], whole.shape[0])}
    again = pack_images(
        [paths[1]] * 3, tmp_path / "boxed", ids=["a", "b", "c"], max_side_px=500, workers=2, inputs=INPUTS, boxes=boxes
    )
    assert again.skipped
    moved = pack_images(
        [paths[1]] * 3,
        tmp_path / "boxed",
        ids=["a", "b", "c"],
        max_side_px=500,
        workers=2,
        inputs=INPUTS,
        boxes=[None, *boxes[1:]],
    )
    assert not moved.skipped
