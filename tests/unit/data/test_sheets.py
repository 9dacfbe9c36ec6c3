"""Contact sheets: rows of squares, and captions that stand above the square they belong to."""

from pathlib import Path

import cv2
import numpy as np

from productrec.data.sheets import write_sheet

GREY = np.full((60, 60, 3), 128, np.uint8)


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def test_a_sheet_without_captions_holds_the_squares_alone(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", [[GREY, GREY], [GREY, GREY]])
    sheet = read(tmp_path / "sheet.png")
    assert sheet.shape == (2 * 64, 2 * 64, 3)
    assert (sheet[:60, :60] == 128).all()
    assert (sheet[60:64] == 255).all()


def test_a_caption_stands_above_its_square_and_ends_before_the_next(tmp_path: Path) -> None:
    captions = [["a name far too long for one square", "", "b"], ["", "", ""]]
    write_sheet(tmp_path / "sheet.png", [[GREY] * 3, [GREY] * 3], captions)
    sheet = read(tmp_path / "sheet.png")
    strip = sheet.shape[0] // 2 - 64
    first, second = sheet[:strip] < 100, sheet[strip + 64 : 2 * strip + 64]
    assert strip > 10
    assert (sheet[strip : strip + 60, :60] == 128).all()
    assert first[:, :120].any()  # over its own square and the one without a caption
    assert not first[:, 124:128].any()
    assert first[:, 128:].any()
    assert (second == 255).all()


def test_a_short_caption_is_whole(tmp_path: Path) -> None:
    for name, text in (("short", "ab"), ("cut", "ab" * 40)):
        write_sheet(tmp_path / f"{name}.png", [[GREY, GREY]], [[text, "x"]])
    short, cut = read(tmp_path / "short.png"), read(tmp_path / "cut.png")
    assert (short[:18, 20:60] == 255).all()
    assert (cut[:18, 20:58] < 100).any()
