"""The audit's page in a real browser: marked by mouse and keyboard, downloaded, applied, and the table obeys."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from productrec.data.curation.findings import build_findings, format_findings, read_findings
from productrec.data.table import load_table
from productrec.reporting.audit_page import write_audit_page
from tests.browser.conftest import Pages, check_accessibility, has_sideways_scroll
from tests.integration.conftest import run_in

SCRIPT = "<script>alert(1)</script>"
NAMES = ["tea, green", 'jam "fine"', SCRIPT, "=HYPERLINK(1)", "кофе ☕"]
IDS = ["a,b", 'say "x"', "=1+1", "'=kept", "čaj ☕", "<b>bold</b>", "  spaced", *"pqrstuvwxyz"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen pictures with hostile ids, of five classes with hostile names; the last class has one picture alone."""
    folder = tmp_path_factory.mktemp("audited") / "source"
    (folder / "files").mkdir(parents=True)
    random, rows = np.random.default_rng(0), []
    for number, image_id in enumerate(IDS):
        name = NAMES[4] if number == 17 else NAMES[number % 4]
        cv2.imwrite(str(folder / f"files/{number}.png"), random.integers(0, 255, (40, 56, 3), dtype=np.uint8))
        rows.append({"image_id": image_id, "label": name, "path": f"files/{number}.png", "split": "train"})
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image_id", "label", "path", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def table(source: Path, tmp_path: Path) -> Path:
    """Its table."""
    ingest(source, tmp_path)
    return tmp_path / "table"


def ingest(source: Path, place: Path, *more: object) -> pd.DataFrame:
    """The images of the table that the command makes."""
    run_in(place, "ingest", source, "--out", "table", "--validation-fraction", "0", *more)
    return pd.read_parquet(place / "table/images.parquet").set_index("image_id")


def find_class(table: Path, name: str) -> int:
    classes = load_table(table).classes
    return int(classes.loc[classes["name"] == name, "id"].iloc[0])


@pytest.fixture
def findings(table: Path) -> pd.DataFrame:
    """Twelve suspects, one of them with a near-duplicate, a pair of classes and a tiny class."""
    loaded = load_table(table)
    names = dict(zip(loaded.classes["id"], loaded.classes["name"], strict=True))
    labels = loaded.images["label"].tolist()
    others = [find_class(table, NAMES[(NAMES.index(names[label]) + 1) % 4]) for label in labels]
    rows: list[dict[str, Any]] = [
        {"image_id": IDS[n], "kind": "wrong_label", "new_label": others[n], "weight": 0.1, "score": 0.9, "detail": "d"}
        for n in range(12)
    ]
    tea, jam, coffee = (find_class(table, NAMES[number]) for number in (0, 1, 4))
    rows.append({"kind": "same_product", "label": jam, "new_label": tea, "score": 0.8, "detail": "two\nlines"})
    for image_id in (IDS[0], "z"):
        rows.append({"image_id": image_id, "kind": "label_conflict", "cluster": IDS[0], "detail": "near"})
    rows.append({"kind": "tiny_class", "label": coffee, "score": 1, "detail": "1 images"})
    known = dict(zip(loaded.images["image_id"], labels, strict=True))
    for row in rows:
        row["label"] = row.get("label", known.get(row.get("image_id", "")))
        row |= {f"{column}_name": names.get(row.get(column)) for column in ("label", "new_label")}
    return build_findings(rows)


@pytest.fixture
def path(table: Path, findings: pd.DataFrame, tmp_path: Path) -> Path:
    """The page."""
    write_page(tmp_path / "table.audit/audit.html", findings, table)
    return tmp_path / "table.audit/audit.html"


def write_page(path: Path, findings: pd.DataFrame, table: Path, **limits: int) -> None:
    command = ["productrec", "ingest", "a source"]
    write_audit_page(path, findings, load_table(table), name="shop", ingest_command=command, **limits)


def download(page: Any, place: Path) -> Path:
    """What the button gives."""
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "findings.csv"
    waiting.value.save_as(place / "downloaded.csv")
    return place / "downloaded.csv"


def test_ten_suspects_are_marked_and_the_table_obeys(
    source: Path, table: Path, path: Path, open_page: Pages, tmp_path: Path
) -> None:
    page = open_page(path)
    loaded = load_table(table)
    names = dict(zip(loaded.classes["id"], loaded.classes["name"], strict=True))
    before = loaded.images.set_index("image_id")["label"].map(names).to_dict()
    for key in ("j", "d", "r", "k", "w", "r"):  # to the first; then five marks, each of which moves on
        page.keyboard.press(key)
    items = page.locator("#wrong-label .finding")
    items.nth(5).get_by_label("Drop").check()
    items.nth(6).get_by_label("Relabel").check()
    items.nth(7).get_by_label("to class").fill("КОФЕ ☕")  # by its name, in whatever case
    items.nth(7).get_by_label("to class").press("Enter")
    page.keyboard.press("n")
    page.keyboard.press("c")
    page.keyboard.type(str(find_class(table, SCRIPT)))  # by its id
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    page.keyboard.press("d")
    page.keyboard.press("d")  # the eleventh, taken back
    page.keyboard.press("p")
    page.keyboard.press("u")
    assert page.locator("#counts").inner_text() == "10 of 15 marked: 3 drop, 5 relabel, 1 keep, 1 weight"
    page.reload()
    assert page.locator("#counts").inner_text().startswith("10 of 15 marked")
    assert items.nth(7).get_by_label("to class").input_value().startswith("кофе ☕")
    written = download(page, tmp_path)
    assert "productrec ingest 'a source' --apply findings.csv" in page.locator("#told").inner_text()

    after = ingest(source, tmp_path, "--apply", written)
    assert set(after.index[after["status"] == "dropped"]) == {IDS[0], IDS[5], IDS[9]}
    assert after["weight"].dropna().to_dict() == {IDS[3]: 0.1}
    changed = {image_id: name for image_id, name in after["label"].map(names).items() if name != before[image_id]}
    suggested = {n: NAMES[(NAMES.index(before[IDS[n]]) + 1) % 4] for n in (1, 4, 6)}
    assert changed == {IDS[n]: name for n, name in suggested.items()} | {IDS[7]: NAMES[4], IDS[8]: SCRIPT}


def test_without_a_mark_the_csv_is_that_of_the_audit(
    path: Path, findings: pd.DataFrame, open_page: Pages, tmp_path: Path
) -> None:
    page = open_page(path)
    written = download(page, tmp_path)
    assert written.read_bytes().decode() == format_findings(findings)
    assert not len(read_findings(written))
    # A name that a spreadsheet would take for a formula is guarded, where a mark brings it in too.
    page.locator(".finding").first.get_by_label("to class").fill(NAMES[3])
    page.locator(".finding").first.get_by_label("to class").press("Enter")
    with download(page, tmp_path).open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert (row["image_id"], row["action"], row["new_label_name"]) == (IDS[0], "relabel", "'=HYPERLINK(1)")


def test_classes_are_merged_either_way(source: Path, table: Path, path: Path, open_page: Pages, tmp_path: Path) -> None:
    page = open_page(path)
    pair = page.locator("#same-product .finding")
    pair.get_by_label("Merge").check()
    assert [tuple(row) for row in read_findings(download(page, tmp_path))[["label", "new_label"]].to_numpy()] == [
        (find_class(table, NAMES[1]), find_class(table, NAMES[0]))
    ]
    pair.get_by_label("which becomes which").select_option("swap")
    after = ingest(source, tmp_path, "--apply", download(page, tmp_path))
    assert find_class(table, NAMES[0]) not in set(after["label"])


def test_a_mark_that_ingest_would_refuse_is_told_and_not_downloaded(
    table: Path, path: Path, open_page: Pages, tmp_path: Path
) -> None:
    page = open_page(path)
    tiny = page.locator("#tiny-class .finding")
    tiny.get_by_label("Merge").check()
    page.locator("#same-product .finding").get_by_label("Merge").check()
    page.click("#download")
    assert "1 marks cannot be applied yet" in page.locator("#told").inner_text()
    assert page.evaluate("document.activeElement.id") == tiny.get_attribute("id")
    assert "Name the class" in tiny.locator(".problem").inner_text()
    tiny.get_by_label("into class").fill(f"{NAMES[1]} ({find_class(table, NAMES[1])})")  # which is merged itself
    tiny.get_by_label("into class").press("Enter")
    assert "must stay itself" in page.locator("#same-product .problem").inner_text()
    tiny.get_by_label("into class").fill(NAMES[0])
    tiny.get_by_label("into class").press("Enter")
    assert len(read_findings(download(page, tmp_path))) == 2


def test_an_image_is_marked_in_all_its_findings_at_once(path: Path, open_page: Pages, tmp_path: Path) -> None:
    page = open_page(path)
    page.locator("#wrong-label .finding").first.get_by_label("Drop").check()
    twins = page.locator("#label-conflict .finding")
    assert twins.first.get_by_label("Drop").is_checked()
    assert not twins.last.get_by_label("Drop").is_checked()
    assert twins.first.locator("img").count() >= 2  # itself beside its near-duplicate
    twins.first.get_by_label("Keep").check()
    assert not len(read_findings(download(page, tmp_path)))


def test_what_was_marked_beforehand_is_marked_and_may_be_taken_back(
    table: Path, findings: pd.DataFrame, open_page: Pages, tmp_path: Path
) -> None:
    findings.loc[:2, "action"] = "weight"
    write_page(tmp_path / "page.html", findings, table)
    page = open_page(tmp_path / "page.html")
    assert page.locator("#counts").inner_text() == "3 of 15 marked: 3 weight"
    page.locator(".finding").first.get_by_label("Take the mark").click()
    assert read_findings(download(page, tmp_path))["image_id"].tolist() == IDS[1:3]


def test_names_are_shown_and_not_run_and_the_filter_finds_them(path: Path, open_page: Pages) -> None:
    page = open_page(path)
    assert SCRIPT in page.locator("#wrong-label").inner_text()
    page.fill("#filter", "<script> say")
    page.get_by_text("1 of 16 shown").wait_for()
    shown = page.locator(".finding:visible h3").all_inner_texts()
    assert shown == ['say "x"']
    assert page.locator("#tiny-class .none-fits").is_visible()


def test_only_so_many_are_shown_and_the_csv_holds_all(
    table: Path, findings: pd.DataFrame, open_page: Pages, tmp_path: Path
) -> None:
    write_page(tmp_path / "page.html", findings, table, most_shown=5, most_bytes=20_000)
    page = open_page(tmp_path / "page.html")
    assert page.locator("#wrong-label .finding").count() == 5
    assert "first 5 of 12" in page.locator("#wrong-label").inner_text()
    assert page.get_by_text("not shown").count() > 0
    assert download(page, tmp_path).read_bytes().decode() == format_findings(findings)


def test_inside_a_frame_without_storage_marks_are_kept_in_the_page_and_that_is_told(
    path: Path, open_page: Pages, tmp_path: Path
) -> None:
    frame = path.with_name("notebook.html")
    frame.write_text(f'<iframe sandbox="allow-scripts" width="900" height="700" src="{path.name}"></iframe>')
    inside = open_page(frame).frame_locator("iframe")
    inside.locator(".finding").first.get_by_label("Drop").check()
    told = inside.locator("#counts").inner_text()
    assert told.startswith("1 of 15 marked: 1 drop") and "forgets" in told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_marked_or_not(path: Path, open_page: Pages, scheme: str) -> None:
    page = open_page(path, color_scheme=scheme)
    check_accessibility(page)
    for key in ("j", "d", "r", "k"):
        page.keyboard.press(key)
    page.locator("#tiny-class .finding").get_by_label("Merge").check()
    page.click("#download")
    check_accessibility(page)


def test_it_fits_a_phone(path: Path, open_page: Pages) -> None:
    page = open_page(path, viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True)
    assert not has_sideways_scroll(page)
    page.locator(".finding").first.get_by_text("Drop").tap()
    assert "1 drop" in page.locator("#counts").inner_text()
