"""Looking at image files: missing, broken, ok, and never stuck."""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from productrec.data import inspection
from productrec.data.inspection import ImageState, inspect_image, inspect_images


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=90)
    return path


def test_a_good_image_is_measured_and_digested(photograph: Path) -> None:
    digest = hashlib.sha256(photograph.read_bytes()).hexdigest()
    assert inspect_image(photograph) == ImageState("ok", 80, 60, digest)
    assert inspect_image(str(photograph)) == inspect_image(photograph)


def test_a_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("a.jpg", "a.png", "a.tif", "a.webp"):
        Image.new("RGB", (8, 5)).save(tmp_path / name, exif=turned)
        state = inspect_image(tmp_path / name)
        assert (state.status, state.width, state.height) == ("ok", 5, 8), name


def test_a_truncated_jpeg_is_broken_and_still_has_a_digest(photograph: Path) -> None:
    data = photograph.read_bytes()
    photograph.write_bytes(data[: len(data) * 2 // 3])
    state = inspect_image(photograph)
    assert (state.status, state.width, state.height) == ("broken", None, None)
    assert state.digest == hashlib.sha256(photograph.read_bytes()).hexdigest()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"<!DOCTYPE html>", bytes(4096)])
def test_bytes_that_are_no_image_are_broken(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    assert inspect_image(tmp_path / "a.jpg").status == "broken"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_broken_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    found = []
    thread = threading.Thread(target=lambda: found.append(inspect_image(tmp_path / "pipe.jpg")), daemon=True)
    thread.start()
    thread.join(10)
    assert found == [ImageState("broken", reason="must be a regular file.")]


def test_a_folder_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    assert inspect_image(tmp_path / "a.jpg") == ImageState("broken", reason="must be a regular file.")


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "absent.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for path in (None, tmp_path / "absent.jpg", "a\0b.jpg"):
        assert inspect_image(path) == ImageState("missing", reason="no such file")
    for name in ("dangling.jpg", "loop.jpg"):
        assert inspect_image(tmp_path / name) == ImageState("missing", reason="is a link that leads nowhere.")


def test_a_link_out_of_the_source_is_not_followed(photograph: Path, tmp_path: Path) -> None:
    inside = tmp_path / "source"
    inside.mkdir()
    (inside / "good.jpg").write_bytes(photograph.read_bytes())
    (inside / "near.jpg").symlink_to(inside / "good.jpg")
    (inside / "far.jpg").symlink_to(photograph)
    assert inspect_image(inside / "near.jpg", inside=inside).status == "ok"
    far = inspect_image(inside / "far.jpg", inside=inside)
    assert (far.status, far.reason) == ("broken", "is a link that leads out of the source's folder.")
    assert inspect_image(inside / "far.jpg").status == "ok"


def test_without_verification_a_file_that_exists_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert inspect_image(tmp_path / "a.jpg", verify=False) == ImageState("ok")
    assert inspect_image(tmp_path / "b.jpg", verify=False).status == "missing"


def test_without_verification_links_are_still_followed_with_care(photograph: Path, tmp_path: Path) -> None:
    inside = tmp_path / "source"
    inside.mkdir()
    (inside / "good.jpg").write_bytes(photograph.read_bytes())
    for name, goal in {
        "near": inside / "good.jpg",
        "far": photograph,
        "none": inside / "x",
        "loop": inside / "loop",
    }.items():
        (inside / name).symlink_to(goal)
    names = ("good.jpg", "near", "far", "none", "loop", "absent", "a\0b")
    states = inspect_images([str(inside / name) for name in names], workers=2, verify=False, inside=inside)
    assert [state.status for state in states] == ["ok", "ok", "broken", *["missing"] * 4]
    assert [state.reason for state in states[2:]] == [
        "is a link that leads out of the source's folder.",
        "is a link that leads nowhere.",
        "is a link that leads nowhere.",
        "no such file",
        "no such file",
    ]


def test_a_file_that_is_no_link_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    looks: list[object] = []
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: looks.append(path) or real(path))
    states = [inspect_image(tmp_path / name, verify=False, inside=tmp_path) for name in ("a.jpg", "link.jpg")]
    assert states == [ImageState("ok")] * 2
    assert looks == [tmp_path / "link.jpg"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_many_files_are_inspected_in_order(
    photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(inspection, "_CHUNK_IMAGES", 4)
    (tmp_path / "bad.jpg").write_bytes(b"x")
    paths = [str(photograph), None, str(tmp_path / "bad.jpg")] * 3 + [str(photograph)]
    counts: list[int] = []
    states = inspect_images(paths, workers=workers, on_progress=counts.append)
    assert [state.status for state in states] == ["ok", "missing", "broken"] * 3 + ["ok"]
    assert counts == [4, 4, 2]
    assert inspect_images([], workers=workers) == []
