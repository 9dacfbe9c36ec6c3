"""The skeleton of a page in a real browser, and what the tests of pages stand on."""

import re
from pathlib import Path

import pytest

from productrec.reporting.page import Section, render_page
from tests.browser.conftest import Pages, check_accessibility, has_sideways_scroll

WIDE = {"caption": "A wide table", "columns": [f"column {n}" for n in range(40)], "rows": [["row", *range(39)]] * 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A page of two sections."""
    sections = [Section("wide", "Wide", "table.html.jinja", WIDE), Section("more", "More", "table.html.jinja", WIDE)]
    page = tmp_path / "page.html"
    page.write_text(render_page("A page", sections, lead="Of two tables."), encoding="utf-8")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_its_keys_are_listed(path: Path, open_page: Pages, scheme: str) -> None:
    page = open_page(path, color_scheme=scheme)
    check_accessibility(page)
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    check_accessibility(page)
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("?")
    assert page.locator("#filter").input_value() == "?" and not page.locator("#keys").is_visible()


def test_on_a_phone_only_the_table_scrolls_sideways(path: Path, open_page: Pages) -> None:
    page = open_page(path, viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True)
    assert not has_sideways_scroll(page)
    table = page.locator(".scroll").first
    assert table.evaluate("it => it.scrollWidth > it.clientWidth")


def test_a_complaint_and_a_request_are_noticed(path: Path, open_page: Pages) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</main>", "<img src='https://example.org/x.png' alt='x'></main>"), encoding="utf-8")
    open_page(path)
    assert any("Content Security Policy" in told for told in open_page.complaints), open_page.complaints
    open_page.complaints.clear()
    path.write_text(text.replace("</main>", "<script>throw Error('foreign')</script></main>"), encoding="utf-8")
    open_page(path)
    assert "foreign" not in str(open_page.complaints) and "inline script" in str(open_page.complaints)
    open_page.complaints.clear()
    free = re.sub("<meta http-equiv[^>]*>", "", text)
    foreign = "<img src='https://127.0.0.1:1/x.png' alt='x'><script>throw Error('foreign')</script></main>"
    path.write_text(free.replace("</main>", foreign), encoding="utf-8")
    open_page(path).wait_for_timeout(100)
    assert {"foreign", "asked https://127.0.0.1:1/x.png"} <= {
        word for word in ("foreign", "asked https://127.0.0.1:1/x.png") if word in str(open_page.complaints)
    }
    open_page.complaints.clear()


def test_what_cannot_be_read_is_noticed(path: Path, open_page: Pages) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</main>", "<p style='color: #999'>pale</p></main>"), encoding="utf-8")
    with pytest.raises(AssertionError, match="color-contrast"):
        check_accessibility(open_page(path))
