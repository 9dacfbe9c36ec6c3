"""The report of a trained run in a real browser: every section that a command makes, plots and tables among them."""

import shutil
from pathlib import Path

import pytest

from tests.browser.conftest import Pages, check_accessibility, has_sideways_scroll
from tests.integration.conftest import drawn, run_in, trained

__all__ = ["drawn", "trained"]  # fixtures
SEEN = {
    "Scores",
    "Training curves",
    "Confidence against accuracy",
    "Confused pairs",
    "Mistakes",
    "Hard and easy classes",
    "Results by category",
    "Retrieval",
    "Suspected wrong labels",
    "Duplicates and leaks",
    "Map of the classes",
    "All answers",
    "Recipe, environment and artefacts",
    "Not shown",
}


@pytest.fixture(scope="module")
def path(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that was evaluated and audited, of a table with a tree, whose neighbours are gone."""
    folder = tmp_path_factory.mktemp("reported") / "work"
    shutil.copytree(trained, folder)
    run_in(folder, "evaluate", "runs/tiny")
    run_in(folder, "audit", "runs/tiny")
    shutil.rmtree(folder / "runs/tiny/neighbours")
    run_in(folder, "report", "runs/tiny")
    return folder / "runs/tiny/report.html"


def test_all_sections_are_there_and_accessible(path: Path, open_page: Pages) -> None:
    for scheme in ("light", "dark"):
        page = open_page(path, color_scheme=scheme)
        assert set(page.locator("main h2").all_text_contents()) >= SEEN
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.locator("#answers").scroll_into_view_if_needed()
        page.locator("#answers-table tbody tr").first.wait_for()
        check_accessibility(page)


def test_plots_are_drawn_and_nothing_but_tables_and_plots_scrolls_sideways(path: Path, open_page: Pages) -> None:
    page = open_page(path, viewport={"width": 360, "height": 640}, is_mobile=True)
    for section in ("scores", "curves", "calibration", "map"):
        box = page.locator(f"#{section} svg").first.bounding_box()
        assert box["width"] > 100 and box["height"] > 100
    assert not has_sideways_scroll(page)
