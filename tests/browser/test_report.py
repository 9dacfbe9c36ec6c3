"""The report in a real browser: names are shown as they are, the filter and the keyboard work, findings are copied."""

from pathlib import Path

import numpy as np
import pytest

from productrec.data.curation.findings import build_findings, read_findings
from productrec.data.images import ArrayImages
from productrec.reporting.answered import Answered, summarise_answers
from productrec.reporting.class_names import ClassNames
from productrec.reporting.class_results import list_class_results
from productrec.reporting.confusions import find_confusions
from productrec.reporting.failure_sections import build_answers, build_classes, build_confusions, build_mistakes
from productrec.reporting.label_sections import build_suspects
from productrec.reporting.mistakes import SplitNeighbours, choose_mistakes, describe_mistakes
from productrec.reporting.page import render_page
from productrec.reporting.pictures import Pictures
from productrec.reporting.thumbnails import Thumbnails
from tests.browser.conftest import Pages, check_accessibility, has_sideways_scroll

CLASSES = 5
COMMAND = ["productrec", "ingest", "shop", "--out", "data/shop"]
HOSTILE = "<script>alert(1)</script>"
NAMES = ClassNames({0: HOSTILE, 1: '"><img src=x onerror=alert(2)>', 2: "=HYPERLINK(1)", 3: "tea", 4: "jam & more"})


def answer(count: int) -> Answered:
    """Answers of which every third is wrong."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    given = np.where(np.arange(count) % 3 == 0, (labels + 1) % CLASSES, labels)
    probabilities = generator.uniform(0.0, 0.1, (count, CLASSES))
    probabilities[np.arange(count), given] += 0.5
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = ["=1+1.jpg", "</script><b>", *(f"id-{number:03d}" for number in range(2, count))]
    known = np.ones(count, dtype=bool)
    return summarise_answers("val", ids, labels, known, range(CLASSES), probabilities.astype(np.float32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A report of 300 answers, without a run."""
    answered = answer(300)
    generator = np.random.default_rng(1)
    gallery = [f"gallery {number}" for number in range(20)]
    thumbnails = Thumbnails()
    images = ArrayImages(list(generator.integers(0, 256, (320, 16, 16, 3), dtype=np.uint8)))
    row_of = {image_id: row for row, image_id in enumerate([*answered.ids, *gallery])}
    pictures = Pictures(thumbnails, images, row_of)
    rows = np.tile(np.arange(12), (300, 1))
    similarities = np.tile(np.linspace(0.9, 0.1, 12), (300, 1))
    neighbours = SplitNeighbours(answered.ids, gallery, rows, rows % CLASSES, similarities)
    mistakes = describe_mistakes(answered, choose_mistakes(answered, most=12), neighbours)

    def list_examples(class_id: int) -> list[str]:
        return gallery[class_id::CLASSES]

    suspects = build_findings(
        [
            {"image_id": image_id, "kind": "wrong_label", "label": 0, "new_label": 2, "score": 0.9, "detail": "@odd"}
            | {"label_name": HOSTILE, "new_label_name": NAMES.names[2], "weight": 0.1}
            for image_id in answered.ids[:3]
        ]
    )
    sections = [
        build_confusions(find_confusions(answered, most=4), answered, NAMES, list_examples, pictures),
        build_mistakes(mistakes, answered, NAMES, pictures, maps={}, notes=["A note."]),
        build_classes(list_class_results(answered), answered.title, NAMES, list_examples, pictures),
        build_suspects(
            suspects, names=NAMES, examples=list_examples, pictures=pictures, shown=2, ingest_command=COMMAND
        ),
        build_answers([answered], NAMES),
    ]
    page = tmp_path / "report.html"
    text = render_page(
        f"Report of {HOSTILE}", sections, thumbnails=thumbnails, styles=("report.css",), scripts=("report.js",)
    )
    page.write_text(text, encoding="utf-8")
    return page


def test_names_and_ids_from_data_are_shown_and_not_run(path: Path, open_page: Pages) -> None:
    page = open_page(path)
    page.on("dialog", lambda dialog: pytest.fail(f"a script of the data ran: {dialog.message}"))
    assert page.locator("h1").inner_text() == f"Report of {HOSTILE}"
    page.locator("#answers").scroll_into_view_if_needed()
    page.locator("#answers-table tbody tr").first.wait_for()
    assert HOSTILE in page.locator("#answers-table tbody").inner_text()
    assert HOSTILE in page.locator("#mistakes").text_content()
    assert "</script><b>" in page.locator("#answers-table tbody").inner_text()
    assert page.locator("img[src='x'], main b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(path: Path, open_page: Pages, scheme: str) -> None:
    page = open_page(path, color_scheme=scheme)
    page.locator("details").first.evaluate("it => { it.open = true; }")
    page.locator("#answers").scroll_into_view_if_needed()
    page.locator("#answers-table tbody tr").first.wait_for()
    check_accessibility(page)


def test_on_a_phone_nothing_but_tables_scrolls_sideways(path: Path, open_page: Pages) -> None:
    assert not has_sideways_scroll(open_page(path, viewport={"width": 360, "height": 640}, is_mobile=True))


def test_the_keyboard_goes_through_mistakes(path: Path, open_page: Pages) -> None:
    page = open_page(path)
    at = "document.activeElement.getAttribute('aria-label')"
    page.locator("#mistakes .item").first.focus()
    first = page.evaluate(at)
    page.keyboard.press("j")
    second = page.evaluate(at)
    page.keyboard.press("ArrowRight")
    third = page.evaluate(at)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("k")
    assert len({first, second, third}) == 3 and page.evaluate(at) == first
    page.locator("#answers-wrong").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "answers-wrong"


def test_the_filter_finds_by_class_and_by_id_in_every_section(path: Path, open_page: Pages) -> None:
    page = open_page(path)
    page.locator("#filter").fill("id-003")
    page.get_by_text("1 fit, 1 shown", exact=True).wait_for()
    row = page.locator("#answers-table tbody tr").inner_text()
    assert row.startswith("id-003\tval\ttea (3)\tjam & more (4)")
    page.locator("#filter").fill("03")  # a number stands at the start of a word: none of class (3), nor within id-003
    page.get_by_text("10 fit, 10 shown", exact=True).wait_for()
    page.locator("#filter").fill("TEA")
    page.get_by_text("80 fit, 80 shown", exact=True).wait_for()
    shown = page.locator("#mistakes .item:visible").all_text_contents()
    assert shown and all("tea" in text for text in shown)
    page.locator("#answers-wrong").check()
    page.get_by_text("40 fit, 40 shown", exact=True).wait_for()
    page.locator("#filter").fill("")
    page.get_by_text("100 fit, 100 shown", exact=True).wait_for()
    page.locator("#answers-wrong").uncheck()
    page.locator("#answers-more").click()
    assert page.locator("#answers-table tbody tr").count() == 200


def test_findings_are_saved_as_ingest_takes_them_and_no_cell_is_a_formula(
    path: Path, open_page: Pages, tmp_path: Path
) -> None:
    page = open_page(path)
    page.locator("#findings-action").select_option("relabel")
    text = page.locator("#findings-text").input_value()
    cells = [cell.strip('"') for line in text.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "'=1+1.jpg" in text and "'@odd" in text
    with page.expect_download() as saved:
        page.locator("#findings-save").click()
    kept = tmp_path / saved.value.suggested_filename
    saved.value.save_as(kept)
    assert kept.read_text(encoding="utf-8") == text
    findings = read_findings(kept)
    assert findings["image_id"].tolist() == ["=1+1.jpg", "</script><b>", "id-002"]
    assert set(findings["new_label"]) == {2} and set(findings["action"]) == {"relabel"}
    page.locator("#findings-copy").click()
    page.get_by_text("copied", exact=True).wait_for()
