"""Pages: escaped, self-contained, and refused where a template and its data disagree."""

import base64
import json
import re

import jinja2
import numpy as np
import pytest

from productrec.errors import DataError
from productrec.reporting.page import Section, render_page
from productrec.reporting.thumbnails import Thumbnails

SCRIPT = "<script>alert(1)</script>"


def table(cell: str) -> Section:
    data = {"caption": cell, "columns": ["a", cell], "rows": [[cell, 1.5]]}
    return Section("numbers", cell, "table.html.jinja", data)


def test_texts_are_shown_and_never_run():
    page = render_page(SCRIPT, [table(SCRIPT), table('" onload="x')], lead=SCRIPT, keys=[("q", SCRIPT)])
    assert SCRIPT not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'onload="x' not in page


def test_a_page_asks_for_nothing_and_lets_only_its_own_scripts_run():
    page = render_page("a page", [table("a")])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1] or "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1].partition("script-src")[2]
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_a_template_that_names_what_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        render_page("a page", [Section("numbers", "a", "table.html.jinja", {"caption": "a"})])


def test_a_picture_is_in_the_page_once_and_one_that_cannot_be_read_is_none():
    thumbnails, decoded = Thumbnails(side_px=16), []

    def decode() -> np.ndarray:
        decoded.append(1)
        return np.full((64, 32, 3), 200, np.uint8)

    def fail() -> np.ndarray:
        raise DataError("broken")

    assert [thumbnails.add("one", decode), thumbnails.add("one", decode), thumbnails.add("two", decode)] == [0, 0, 1]
    assert thumbnails.add("three", fail) is None
    assert len(decoded) == 2 and thumbnails.broken == 1
    page = render_page("a page", [], thumbnails=thumbnails)
    stored = re.search(r'id="thumbnails">(.*?)</script>', page)
    assert stored is not None
    pictures = json.loads(stored[1])
    assert len(pictures) == 2 and base64.b64decode(pictures[0]).startswith(b"\xff\xd8")


def test_pictures_over_the_budget_are_left_out_and_counted():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    thumbnails = Thumbnails(side_px=64, most_bytes=12_000)
    numbers = [thumbnails.add(str(number), lambda: pixels) for number in range(9)]
    shown = [number for number in numbers if number is not None]
    assert 0 < len(shown) < 9 and thumbnails.left_out == 9 - len(shown)
    assert sum(map(len, thumbnails.dump())) == thumbnails.bytes <= 12_000
