"""The one decoder: two libraries behind it, one answer, and one clear error for what is no picture."""

import contextlib
import io
import json
import os
import struct
import threading
import time
import zlib
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from productrec.data import decode
from productrec.data.decode import FORMATS, check_image, check_size, decode_image, read_image_bytes
from productrec.data.inspection import inspect_image
from productrec.errors import DataError

CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def draw_card(height: int = 32, width: int = 48) -> np.ndarray:
    """Red, green, blue and white quarters: a turned, mirrored or recoloured copy is told from it."""
    card = np.empty((height, width, 3), np.uint8)
    card[: height // 2, : width // 2], card[: height // 2, width // 2 :] = CORNERS[0], CORNERS[1]
    card[height // 2 :, : width // 2], card[height // 2 :, width // 2 :] = CORNERS[2], CORNERS[3]
    return card


def draw_photograph(height: int = 96, width: int = 128) -> np.ndarray:
    """Soft shading, edges and a little noise, as a photograph has them."""
    y, x = np.mgrid[0:height, 0:width]
    shade = np.stack([x * 1.5, y * 2.0, 120 + 60 * np.sin(x / 9) * np.cos(y / 7)], -1)
    shade[20:60, 30:80] = (200, 40, 60)
    noise = np.random.default_rng(0).normal(0, 4, shade.shape)
    return np.clip(shade + noise, 0, 255).astype(np.uint8)


def encode(picture: np.ndarray | Image.Image, format: str, **options) -> bytes:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def check_card(pixels: np.ndarray, tolerance: int = 0) -> None:
    card = draw_card()
    assert pixels.shape == card.shape
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - card).max() <= tolerance


def png_header(width: int, height: int) -> bytes:
    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- formats and colours


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 3),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 3),
    ],
)
def test_formats(format: str, options: dict, tolerance: int) -> None:
    data = encode(draw_card(), format, **options)
    check_card(decode_image(data, "x"), tolerance)
    assert check_image(data, "x") == (48, 32)


def test_a_phones_multi_picture_jpeg_gives_its_first_picture() -> None:
    data = encode(
        draw_card(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))], quality=95, subsampling=0
    )
    assert Image.open(io.BytesIO(data)).format == "MPO"
    check_card(decode_image(data, "x"), 3)
    assert check_image(data, "x") == (48, 32)


def test_opencv_equals_pillow_on_a_photograph() -> None:
    for options in ({"quality": 92}, {"quality": 75, "subsampling": 2}, {"quality": 85, "progressive": True}):
        data = encode(draw_photograph(), "JPEG", **options)
        ours = decode_image(data, "x").astype(int)
        pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(ours - pillow).max() <= 3


def test_plain_jpegs_go_to_opencv_and_others_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    imdecode = cv2.imdecode
    monkeypatch.setattr(decode.cv2, "imdecode", lambda *given: used.append(1) or imdecode(*given))
    decode_image(encode(draw_card(), "JPEG"), "x")
    assert used == [1]
    decode_image(encode(draw_card(), "PNG"), "x")
    decode_image(encode(Image.fromarray(draw_card()).convert("CMYK"), "JPEG"), "x")
    assert used == [1]


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_grey_gives_three_equal_channels(format: str) -> None:
    grey = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))
    pixels = decode_image(encode(grey, format), "x")
    assert pixels.shape == (32, 48, 3)
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - grey).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format: str) -> None:
    grey = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    data = encode(Image.fromarray(grey), format)
    assert Image.open(io.BytesIO(data)).mode.startswith("I")
    pixels = decode_image(data, "x")
    assert np.abs(pixels[..., 0].astype(float) - grey / 257).max() <= 1
    assert (pixels == pixels[..., :1]).all()


def test_transparency_is_put_on_white() -> None:
    card = np.dstack([draw_card(), np.full((32, 48), 255, np.uint8)])
    card[16:, 24:] = (0, 0, 0, 0)  # black hidden below full transparency, where the card is white
    card[:16, :24] = (255, 0, 0, 128)
    for format, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels = decode_image(encode(card, format, **options), "x")
        assert (pixels[16:, 24:] == 255).all()
        assert np.abs(pixels[0, 0].astype(int) - (255, 127, 127)).max() <= 1
        assert (pixels[0, 47] == CORNERS[1]).all()


def test_grey_with_transparency_is_put_on_white() -> None:
    la = Image.merge("LA", [Image.new("L", (48, 32), 0), Image.new("L", (48, 32), 0)])
    assert (decode_image(encode(la, "PNG"), "x") == 255).all()


def test_palettes_with_and_without_transparency() -> None:
    palette = Image.fromarray(draw_card()).quantize(4, dither=Image.Dither.NONE)
    check_card(decode_image(encode(palette, "PNG"), "x"))
    white = palette.getpixel((47, 31))
    colours = palette.getpalette()
    colours[3 * white : 3 * white + 3] = (0, 0, 0)
    palette.putpalette(colours)
    check_card(decode_image(encode(palette, "PNG", transparency=white), "x"))


def test_cmyk_is_not_inverted() -> None:
    data = encode(Image.fromarray(draw_card()).convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    check_card(decode_image(data, "x"), 12)


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_an_animation_gives_its_first_frame(format: str, options: dict) -> None:
    data = encode(
        Image.fromarray(draw_card()),
        format,
        save_all=True,
        append_images=[Image.new("RGB", (48, 32), "black"), Image.new("RGB", (48, 32), "gray")],
        duration=100,
        **options,
    )
    assert Image.open(io.BytesIO(data)).n_frames == 3
    check_card(decode_image(data, "x"))


# ---------------------------------------------------------------- orientation


def store(orientation: int) -> Image.Image:
    """The card as a camera would store it, so that ``orientation`` turns it upright; found by trying."""
    card = Image.fromarray(draw_card())
    for turn in (None, *Image.Transpose):
        stored = card if turn is None else card.transpose(turn)
        stored.getexif()[0x0112] = orientation
        if np.array_equal(np.asarray(ImageOps.exif_transpose(stored)), draw_card()):
            return stored
    raise AssertionError(orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_orientation_is_applied_whichever_library_decodes(orientation: int, format: str, options: dict) -> None:
    data = encode(store(orientation), format, exif=exif(orientation), **options)
    pixels = decode_image(data, "x")
    check_card(pixels, 3)
    assert pixels.flags["C_CONTIGUOUS"]
    assert check_image(data, "x") == (48, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_grey_jpegs_and_of_sixteen_bits(orientation: int) -> None:
    upright = np.asarray(Image.fromarray(draw_card()).convert("L")).astype(int)
    stored = store(orientation).convert("L")
    pixels = decode_image(encode(stored, "JPEG", quality=98, exif=exif(orientation)), "x")
    assert np.abs(pixels[..., 0] - upright).max() <= 8
    deep = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    assert np.array_equal(decode_image(encode(deep, "PNG", exif=exif(orientation)), "x")[..., 0], upright)


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    data = encode(draw_card(), "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    check_card(decode_image(data, "x"), 3)
    assert check_image(data, "x") == (48, 32)


def test_an_orientation_in_xmp_alone_means_the_same_in_both_functions() -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    data = encode(draw_card(), "JPEG", xmp=xmp)
    height, width = decode_image(data, "x").shape[:2]
    assert check_image(data, "x") == (width, height)


# ---------------------------------------------------------------- what is refused


def refuse(data: bytes) -> str:
    messages = []
    for function in (decode_image, check_image):
        with pytest.raises(DataError, match=r"^folder/a.jpg: ") as caught:
            function(data, "folder/a.jpg")
        messages.append(str(caught.value))
    return messages[1]


@pytest.mark.parametrize(
    "data", [b"", b"\xff", bytes(4096), b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"]
)
def test_bytes_that_are_no_picture(data: bytes) -> None:
    message = refuse(data)
    assert "0x" not in message  # no address of a buffer
    assert "KeyError" not in message


def test_the_formats_are_named_for_what_is_none_of_them() -> None:
    assert f"is not a picture in one of the formats {', '.join(FORMATS)}." in refuse(b"<html>")


def test_formats_that_run_other_programs_are_not_opened() -> None:
    assert not {"EPS", "WMF", "FITS"} & set(FORMATS)
    for format in ("PPM", "ICO", "PCX"):
        refuse(encode(draw_card(), format))


@pytest.mark.parametrize(
    ("format", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {})]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files(format: str, options: dict, share: float) -> None:
    data = encode(Image.fromarray(draw_photograph()), format, **options)
    with pytest.raises(DataError):
        check_image(data[: int(len(data) * share)], "a.jpg")


def test_flipped_bits_give_pixels_or_one_kind_of_error() -> None:
    generator = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = np.frombuffer(encode(Image.fromarray(draw_photograph(24, 32)), format), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[generator.integers(0, len(whole), 4)] ^= generator.integers(1, 255, 4, dtype=np.uint8)
            for function in (decode_image, check_image):
                with contextlib.suppress(DataError):  # and no other kind
                    function(damaged.tobytes(), "a.jpg")


@pytest.mark.parametrize("size", [(60_000, 60_000), (13_000, 13_000), (100_000, 1), (1, 100_000)])
def test_a_header_that_promises_too_much_is_refused_before_decoding(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    start = time.monotonic()
    refuse(png_header(*size))
    assert time.monotonic() - start < 5


def test_the_limits_are_on_pixels_and_on_the_longer_side() -> None:
    check_size((10_000, 10_000), "x")
    check_size((30_000, 1), "x")
    for size in ((10_001, 10_000), (30_001, 1), (0, 5), (5, 0)):
        with pytest.raises(DataError, match=f"got {size[0]} x {size[1]}"):
            check_size(size, "x")


def test_who_asks_may_take_fewer_pixels() -> None:
    data = encode(draw_card(), "PNG")
    assert decode_image(data, "x", most_pixels=32 * 48).shape == (32, 48, 3)
    with pytest.raises(DataError, match="must have 1 to 1,535 pixels .* got 48 x 32"):
        decode_image(data, "x", most_pixels=32 * 48 - 1)


def test_a_small_header_over_the_limit_passes_once_the_limit_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(draw_card(), "PNG")
    monkeypatch.setattr(decode, "MOST_PIXELS", 48 * 32 - 1)
    assert "got 48 x 32" in refuse(data)
    monkeypatch.setattr(decode, "MOST_PIXELS", 48 * 32)
    check_card(decode_image(data, "x"))


# ---------------------------------------------------------------- reading bytes


def test_bytes_are_read_from_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_image_bytes(tmp_path / "a.jpg") == read_image_bytes(str(tmp_path / "a.jpg")) == b"abc"


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, text in (("folder.jpg", "must be a regular file"), ("loop.jpg", "cannot be opened"), ("no", "cannot be")):
        with pytest.raises(DataError, match=text):
            read_image_bytes(tmp_path / name)
    with pytest.raises(DataError, match="cannot be opened"):
        read_image_bytes("a\0b")
    if Path("/dev/zero").exists():
        with pytest.raises(DataError, match="must be a regular file"):
            read_image_bytes("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    found: list[str] = []

    def read() -> None:
        try:
            read_image_bytes(tmp_path / "pipe.jpg")
        except DataError as error:
            found.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert len(found) == 1
    assert "must be a regular file" in found[0]


def test_an_oversized_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "big.jpg").open("wb") as file:
        file.truncate(decode.MOST_BYTES + (1 << 20))
    with pytest.raises(DataError, match="must be at most 256 MiB; got 257 MiB"):
        read_image_bytes(tmp_path / "big.jpg")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files cannot be counted here")
def test_refused_files_are_closed(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(DataError):
            read_image_bytes(tmp_path / "folder.jpg")
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------- a collection of awkward files

LOSSY_EDGES = {"ok_lossy.webp"}  # halved colour resolution blurs the card's inner edges; away from them it is right


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory, bad_images: ModuleType) -> tuple[Path, dict[str, dict], object]:
    """The collection's folder, its manifest and the module that made it."""
    out = tmp_path_factory.mktemp("awkward")
    arguments = [str(out), *(["--fs"] if hasattr(os, "mkfifo") else [])]
    assert bad_images.main(arguments) == 0
    return out, json.loads((out / "manifest.json").read_text())["files"], bad_images


def expected_card(module: object, kind: str) -> np.ndarray:
    grey = module.luma()
    cards = {"gray": grey, "gray_half": grey // 2, "bilevel": np.where(grey > 128, 255, 0)}
    return module.card() if kind == "colour" else np.repeat(cards[kind][..., None], 3, axis=2)


def test_awkward_files_that_are_pictures_decode_to_the_card(awkward) -> None:
    out, files, module = awkward
    wanted = {name: entry for name, entry in files.items() if entry["expect"] == "ok"}
    assert len(wanted) > 30
    wrong = {}
    for name, entry in wanted.items():
        data = read_image_bytes(out / name)
        card = expected_card(module, entry.get("card", "colour")).astype(int)
        pixels = decode_image(data, name)
        if pixels.shape != card.shape or check_image(data, name) != (module.W, module.H):
            wrong[name] = f"size {pixels.shape}"
            continue
        difference = np.abs(pixels - card).max(axis=2)
        if name in LOSSY_EDGES:
            difference[module.H // 2 - 4 : module.H // 2 + 4] = 0
            difference[:, module.W // 2 - 4 : module.W // 2 + 4] = 0
        if difference.max() > entry.get("tol", 12):
            wrong[name] = f"off by {difference.max()}"
        if inspect_image(out / name).status != "ok":
            wrong[name] = "inspected as not ok"
    assert wrong == {}


def test_awkward_files_that_are_no_pictures_are_refused(awkward) -> None:
    out, files, _ = awkward
    wanted = [name for name, entry in files.items() if entry["expect"] == "reject"]
    assert len(wanted) > 20
    accepted = []
    for name in wanted:
        status = inspect_image(out / name).status
        assert status == ("missing" if name in ("fs/link_broken.jpg", "fs/link_loop.jpg") else "broken"), name
        with contextlib.suppress(DataError):
            check_image(read_image_bytes(out / name), name)
            accepted.append(name)
    assert accepted == []


def test_awkward_files_of_either_kind_give_pixels_or_one_clear_error(awkward) -> None:
    out, files, _ = awkward
    for name in (name for name, entry in files.items() if entry["expect"] == "either"):
        try:
            pixels = decode_image(read_image_bytes(out / name), name)
        except DataError:
            continue
        assert pixels.ndim == 3
        assert pixels.dtype == np.uint8


def repeat_last_scan(data: bytes, times: int) -> bytes:
    """A JPEG with its last scan so many times more, each of a few bytes however many pixels it goes over."""
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * times + data[-2:]


def test_a_jpeg_of_endless_scans_is_not_decoded():
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    assert decode_image(repeat_last_scan(data, 5), "few").shape == (64, 64, 3)
    for read in (decode_image, check_image):
        with pytest.raises(DataError, match="bomb: must be a JPEG of at most 100 scans"):
            read(repeat_last_scan(data, 100), "bomb")


def test_what_a_jpeg_carries_beside_its_picture_is_no_scan():
    data = encode(draw_card(), "JPEG", progressive=True, quality=95)
    noise = b"\xff\xda\x00\x08" * 8000
    comment = b"\xff\xfe" + (len(noise) + 2).to_bytes(2, "big") + noise
    for carrying in (data[:2] + comment + data[2:], data + noise):
        np.testing.assert_array_equal(decode_image(carrying, "photo"), decode_image(data, "photo"))
        assert check_image(carrying, "photo") == (48, 32)
