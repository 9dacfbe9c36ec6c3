"""Make a report of 90,834 answers over 2,019 classes, open it in headless Chromium, and print its size and load time.

    python benchmarks/report_page.py --answers 90834 --classes 2019

The page holds what a real report of so many answers does: every answer to be searched, a row a class, and as many
pictures as fit its budget. Each opening is a fresh browser context; told are the median and the range of the time to
the load event, and of that from a text in the filter to the first answer that fits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from productrec.data.curation.findings import build_findings
from productrec.reporting.answered import Answered, summarise_answers
from productrec.reporting.class_names import ClassNames
from productrec.reporting.class_results import list_class_results
from productrec.reporting.confusions import find_confusions
from productrec.reporting.failure_sections import build_answers, build_classes, build_confusions, build_mistakes
from productrec.reporting.label_sections import build_suspects
from productrec.reporting.map_section import build_class_map, draw_map
from productrec.reporting.mistakes import SplitNeighbours, choose_mistakes, describe_mistakes
from productrec.reporting.page import render_page
from productrec.reporting.pictures import Pictures
from productrec.reporting.thumbnails import Thumbnails
from productrec.stages.report import PICTURES_BYTES, QUALITY, SIDE_PX

_K = 50
_MOST_BYTES, _MOST_SECONDS = 40e6, 3.0


class NoisyImages:
    """Pictures of noise, which compresses worse than any photo."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def decode(self, row: int) -> np.ndarray:
        """Pixels (320, 320, 3) of a row, the same each time."""
        return np.random.default_rng(row).integers(0, 256, (320, 320, 3), dtype=np.uint8)


def answer(place: Path, count: int, classes: int) -> Answered:
    """Answers of which a tenth is wrong, from probabilities in a file, as a run's are."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count)
    named = np.where(generator.uniform(size=count) < 0.1, (labels + 1) % classes, labels)
    probabilities = np.memmap(place, np.float32, "w+", shape=(count, classes))
    for start in range(0, count, 4096):
        block = named[start : start + 4096]
        values = generator.uniform(0, 1 / classes, (len(block), classes)).astype(np.float32)
        values[np.arange(len(block)), block] += 0.5
        probabilities[start : start + 4096] = values / values.sum(axis=1, keepdims=True)
    ids = [f"{generator.integers(0, 2**63):016x}{number:016x}.jpg" for number in range(count)]
    return summarise_answers("val", ids, labels, np.ones(count, dtype=bool), range(classes), probabilities)


def write_page(path: Path, place: Path, count: int, classes: int) -> None:
    """Write the page; ``place``: of a file for the class probabilities."""
    answered = answer(place, count, classes)
    names = ClassNames({number: f"product of category {number % 97}, variant {number}" for number in range(classes)})
    gallery = [f"gallery-{number}" for number in range(8 * classes)]
    row_of = {image_id: row for row, image_id in enumerate([*answered.ids, *gallery])}
    thumbnails = Thumbnails(side_px=SIDE_PX, quality=QUALITY, most_bytes=PICTURES_BYTES)
    pictures = Pictures(thumbnails, NoisyImages(len(row_of)), row_of)

    def list_examples(class_id: int) -> list[str]:
        return gallery[8 * class_id : 8 * class_id + 8]

    rows = np.random.default_rng(1).integers(0, len(gallery), (count, _K))
    near = SplitNeighbours(answered.ids, gallery, rows, rows // 8, np.tile(np.linspace(0.9, 0.1, _K), (count, 1)))
    mistakes = describe_mistakes(answered, choose_mistakes(answered, most=36), near)
    wrong = np.flatnonzero(answered.is_wrong)[:1000]
    suspects = build_findings(
        [
            {"image_id": answered.ids[row], "kind": "wrong_label", "label": int(answered.labels[row]), "score": 0.9}
            | {"new_label": int(answered.best[row]), "weight": 0.1, "detail": "0% of the vote"}
            for row in wrong.tolist()
        ]
    )
    means = np.random.default_rng(2).normal(size=(classes, 32))
    figure = draw_map(means, [names.tell(number) for number in range(classes)], None)
    sections = [
        build_confusions(find_confusions(answered, most=16), answered, names, list_examples, pictures),
        build_mistakes(mistakes, answered, names, pictures, maps={}),
        build_classes(list_class_results(answered), answered.title, names, list_examples, pictures),
        build_suspects(
            suspects, names=names, examples=list_examples, pictures=pictures, shown=24, ingest_command=["productrec"]
        ),
        build_class_map(figure, shown=classes, classes=classes),
        build_answers([answered], names),
    ]
    for row in range(count):  # as if galleries used up the budget
        if pictures.show(answered.ids[row]) is None:
            break
    page = render_page("Report", sections, thumbnails=thumbnails, styles=("report.css",), scripts=("report.js",))
    path.write_text(page, encoding="utf-8")


def open_page(browser: Any, path: Path) -> tuple[float, float, list[str]]:
    """Seconds to the load event, seconds from a filter's text to its answers, and what the page complained of."""
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    started = time.perf_counter()
    page.goto(path.resolve().as_uri(), wait_until="load")
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    page.locator("#filter").fill("variant 17")
    page.locator("#answers-table tbody tr").first.wait_for(state="attached")
    searched = time.perf_counter() - started
    context.close()
    return loaded, searched, complaints


def main() -> None:
    """Make, open, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=90_834)
    parser.add_argument("--classes", type=int, default=2_019)
    parser.add_argument("--repeats", type=int, default=5, help="how often the page is opened")
    parser.add_argument("--keep", type=Path, help="folder to leave the page in")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("report_page: chromium must be installed, as Debian's package; it is not on the PATH.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = (options.keep or Path(folder)) / "report.html"
        started = time.perf_counter()
        write_page(path, Path(folder) / "probabilities", options.answers, options.classes)
        size = path.stat().st_size
        seconds = time.perf_counter() - started
        print(f"{options.answers:,} answers, {options.classes:,} classes: written in {seconds:.1f} s")
        arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        seen = [open_page(browser, path) for _ in range(options.repeats)]
        browser.close()
    print(f"size {size / 1e6:.1f} MB (at most {_MOST_BYTES / 1e6:.0f}): {'kept' if size < _MOST_BYTES else 'MISSED'}")
    for name, values in (("load", [one[0] for one in seen]), ("first search", [one[1] for one in seen])):
        low, middle, high = min(values), statistics.median(values), max(values)
        kept = (
            f" (at most {_MOST_SECONDS:.0f} s): {'kept' if middle < _MOST_SECONDS else 'MISSED'}"
            if name == "load"
            else ""
        )
        print(f"{name} {middle:.2f} s ({low:.2f} to {high:.2f}){kept}")
    if complaints := [text for *_, texts in seen for text in texts]:
        print(f"complaints: {complaints[:3]}")


if __name__ == "__main__":
    main()
