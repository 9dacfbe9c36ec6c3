"""A real browser without a screen, and pages opened in it that fail the test where they complain or ask for more."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LOCAL = ("file:", "data:", "blob:", "about:")


class Pages:
    """Pages that a test opened, called with a file, and what they complained of or asked for."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self.complaints: list[str] = []

    def __call__(self, path: Path, **options: Any) -> Any:
        """Open a file in a window of its own, for instance with ``color_scheme="dark"``."""
        context = self._browser.new_context(**options)
        context.set_default_timeout(20_000)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: self._complain(said.type == "error", f"console: {said.text}"))
        page.on("pageerror", lambda error: self._complain(True, f"page error: {error}"))
        page.on("request", lambda asked: self._complain(not asked.url.startswith(LOCAL), f"asked {asked.url}"))
        page.goto(path.resolve().as_uri())
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _complain(self, is_wrong: bool, what: str) -> None:
        if is_wrong:
            self.complaints.append(what)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium; tests are skipped where it is absent.

    It lives as long as the tests of this folder, not longer: while it does, this thread has a running event loop, in
    which tests of other folders could not run their own.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the group dev)")
    options = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Pages]:
    """``open_page(path)`` opens a file; see `Pages`.

    The test fails at its end where a page wrote an error to the console, raised one, or asked for anything that is
    not in itself.
    """
    pages = Pages(browser)
    yield pages
    pages.close()
    assert not pages.complaints, "\n".join(pages.complaints)


def check_accessibility(page: Any) -> None:
    """Fail where axe finds a violation (contrast, names, headings, landmarks) in the page as it is now."""
    from axe_playwright_python.sync_playwright import Axe

    results = Axe().run(page)
    assert not results.violations_count, results.generate_report()


def has_sideways_scroll(page: Any) -> bool:
    """Whether the page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
