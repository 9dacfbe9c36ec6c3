"""Figures: saved as files that come out the same, and put into pages that they leave as they are."""

import itertools
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from productrec.errors import RecipeError, StorageError
from productrec.plots.figure import clean, drawing, save, to_svg
from productrec.plots.files import check_kind, write_plots
from productrec.plots.inline_svg import build_inline_svg
from productrec.plots.staircase import draw_staircase

HOSTILE = "<b>&\"'</svg><script>alert(1)</script>"
PARTS = [("head", 71.0, 65.0, 77.0), (HOSTILE, 80.0, 74.0, 85.0), ("$a$ and $b$", 81.0, float("nan"), float("nan"))]


@pytest.fixture
def figure():
    return draw_staircase(PARTS, "top-1 accuracy %")


@pytest.mark.parametrize(
    ("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89P")]
)
def test_a_figure_is_written_as_its_name_ends_and_the_same_every_time(ending, begins, tmp_path) -> None:
    paths = [tmp_path / "new" / f"{number}.{ending}" for number in (1, 2)]
    for path in paths:
        save(draw_staircase(PARTS, "accuracy %"), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second and first.startswith(begins)


@pytest.mark.parametrize("name", ["a.jpg", "a"])
def test_another_kind_of_file_is_refused(figure, name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"must end in \.png, \.svg, \.pdf"):
        save(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_a_storage_error(figure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        save(figure, tmp_path / "file" / "a.png")


def test_inline_svg_is_well_formed_and_asks_for_nothing(figure) -> None:
    text = to_svg(figure)
    root = ElementTree.fromstring(text)
    assert root.tag == "svg" and root.get("role") == "img" and root.get("aria-label", "").startswith("Staircase")
    assert not re.search(r"https?:|//|<\?xml|<!DOCTYPE|xmlns|@import|data:", text)
    assert {element.tag for element in root.iter()} <= {"svg", "g", "defs", "path", "use", "clipPath", "rect", "text"}
    for element in root.iter():
        assert not {"style", "class"} & set(element.keys()) and not any(key.startswith("on") for key in element.attrib)


def test_names_in_a_picture_are_shown_and_not_run(figure) -> None:
    text = to_svg(figure)
    assert "<script" not in text and "<b>" not in text
    shown = ["".join(element.itertext()).strip() for element in ElementTree.fromstring(text).iter("text")]
    assert clean(HOSTILE) in shown and "$a$ and $b$" in shown


def test_the_background_is_the_pages_and_so_is_the_ink(figure) -> None:
    root = ElementTree.fromstring(to_svg(figure))
    colours = {element.get(key) for element in root.iter() for key in ("fill", "stroke")} - {None}
    assert {"currentColor", "none"} < colours
    assert not colours & {"#ffffff", "#000000", "#010101", "white", "black"}
    assert root.get("font-family") == "sans-serif"
    assert not any(element.get("font-family") for element in root.iter() if element is not root)
    assert all(element.get("font-size") for element in root.iter("text"))


def test_a_font_that_is_told_in_one_becomes_attributes_too() -> None:
    style = "font: italic 700 8.5px 'DejaVu Sans', sans-serif; text-anchor: end; fill: #010101"
    file = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3"><text style="{style}">a</text></svg>'
    (text,) = ElementTree.fromstring(build_inline_svg(file, title="x", name="", ink="#010101"))
    assert text.attrib == {
        "font-style": "italic",
        "font-weight": "700",
        "font-size": "8.5px",
        "text-anchor": "end",
        "fill": "currentColor",
    }


def test_several_pictures_fit_into_one_page(figure) -> None:
    others = [draw_staircase(PARTS[:2], "top-1 accuracy %")]
    texts = [to_svg(figure), to_svg(others[0]), to_svg(figure, name="again")]
    assert to_svg(figure) == texts[0] == to_svg(draw_staircase(PARTS, "top-1 accuracy %"))
    ids = [re.findall(r' id="([^"]+)"', text) for text in texts]
    assert all(ids) and max(Counter(itertools.chain(*ids)).values()) == 1
    for text, own in zip(texts, ids, strict=True):
        pointed = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)
        assert pointed and {one or other for one, other in pointed} <= set(own)


def test_what_cannot_be_printed_does_not_break_a_picture() -> None:
    text = to_svg(draw_staircase([("a\x00b\x1b\ud800\ufffe\n可乐", 1.0, 0.5, 1.5)], "x"))
    assert "可乐" in text and ElementTree.fromstring(text) is not None
    assert clean("a" * 50) == "a" * 35 + "…" and clean("a" * 36) == "a" * 36


def test_a_drawing_leaves_the_settings_of_matplotlib_as_they_were() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with drawing("x") as (figure, axes):
        axes[0][0].plot([0, 1], [0, 1])
    to_svg(figure)
    assert dict(matplotlib.rcParams) == before


def test_plots_are_written_by_name(figure, tmp_path: Path) -> None:
    written = write_plots({"one": figure, "two": figure}, tmp_path / "plots", kind=check_kind("png"))
    assert written == [tmp_path / "plots" / "one.png", tmp_path / "plots" / "two.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    with pytest.raises(RecipeError, match=r"svg, png, pdf; got 'jpg'"):
        check_kind("jpg")
