"""An audit as a page: every finding with its pictures, to be marked by a person and downloaded as the findings' CSV."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from productrec.artifacts import compute_digest, write_text
from productrec.console import show_progress
from productrec.data.curation.findings import FINDING_COLUMNS, format_findings
from productrec.data.images import open_images
from productrec.data.table import ImageTable
from productrec.delimited import guard_cell
from productrec.reporting.page import Section, render_page
from productrec.reporting.thumbnails import Thumbnails

CSV_NAME = "findings.csv"  # as the browser is asked to call it
MOST_SHOWN = 1000  # findings of a kind; the CSV holds all of them
MOST_BYTES = 24 << 20  # of all pictures
_SIDE_PX = 160
_EXAMPLES = 3
_TITLES = {
    "wrong_label": "Labels that are doubted",
    "same_product": "One product under two names",
    "label_conflict": "Near-duplicates of different labels",
    "tiny_class": "Tiny classes",
    "dominating_class": "Dominating classes",
    "size_outlier": "Outlying sizes",
    "aspect_outlier": "Outlying shapes",
}
_KEYS = (
    ("k", "keep: the label is right; then to the next finding"),
    ("d", "drop: the image is left out of training; then to the next finding"),
    ("r", "relabel, to the class that is named; then to the next finding"),
    ("m", "merge the two classes; then to the next finding"),
    ("w", "weight: the image takes part in fewer epochs; then to the next finding"),
    ("c", "to the class that is named; Enter goes back"),
    ("u", "take the mark away"),
)


def write_audit_page(
    path: Path,
    findings: pd.DataFrame,
    table: ImageTable,
    *,
    name: str,
    ingest_command: Sequence[str],
    most_shown: int = MOST_SHOWN,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Write a page in which a person marks findings and downloads them as `write_findings` would have written them.

    A mark is about an image, or about a pair of classes: all findings of an image are marked at once, so that no image
    is told two things. Marks are kept by the browser, for the findings and not for the file.

    Args:
        path: the page.
        findings: of `build_findings`, with labels and names.
        table: the image table they were found in.
        name: of the table, for the title.
        ingest_command: what makes the table, by words; the page names it at the end, with the CSV to apply.
        most_shown: findings of a kind that the page shows; all of them stand in the CSV.
        most_bytes: of all pictures; findings that come later have none.

    Raises:
        DataError: the folder of the images is not there.
        ArtifactError: the packed store of the images is damaged.
    """
    findings = findings.reindex(columns=list(FINDING_COLUMNS)).reset_index(drop=True)
    pictures = _Pictures(table, findings, most_bytes)
    sections = []
    with show_progress("drawing the page", len(findings), "findings") as bar:
        for kind, title in _TITLES.items():
            rows = findings[findings["kind"] == kind]
            if len(rows):
                items = [_describe(row, pictures, findings) for row in rows.head(most_shown).itertuples()]
                data = {"kind": kind, "items": items, "all": len(rows)}
                sections.append(Section(kind.replace("_", "-"), f"{title} ({len(rows):,})", "audit.html.jinja", data))
            bar.advance(len(rows))
    lines = list(csv.reader(io.StringIO(format_findings(findings), newline="")))
    columns, cells = lines[0], lines[1:]
    command = shlex.join([*ingest_command, "--apply", CSV_NAME])
    classes = [
        (int(class_id), _name_choice(class_id, name), guard_cell("" if pd.isna(name) else str(name)))
        for class_id, name in zip(table.classes["id"], table.classes["name"], strict=True)
    ]
    state = {"columns": columns, "rows": cells, "classes": classes, "key": compute_digest(lines)[:24], "file": CSV_NAME}
    write_text(
        path,
        render_page(
            f"Audit of {name}",
            sections,
            lead="Mark what is wrong, download the CSV, and ingest the source again with it. Nothing changes before.",
            toolbar=Section("marks", "Marks", "audit_bar.html.jinja", {"state": state, "command": command}),
            thumbnails=pictures.thumbnails,
            styles=["audit.css"],
            scripts=["audit_csv.js", "audit.js"],
            keys=_KEYS,
        ),
    )


class _Pictures:
    """Thumbnails of a table's images by id, and examples of its classes that are not doubted themselves."""

    def __init__(self, table: ImageTable, findings: pd.DataFrame, most_bytes: int) -> None:
        self.thumbnails = Thumbnails(side_px=_SIDE_PX, most_bytes=most_bytes)
        usable = table.images[table.images["status"] == "ok"]
        self._images = open_images(table, usable)
        self._rows = {image_id: row for row, image_id in enumerate(usable["image_id"])}
        doubted = set(findings.loc[findings["kind"] == "wrong_label", "image_id"])
        labelled = usable[usable["label"].notna() & (usable["split"] == "train")]
        # Images that are not doubted come first; a class of which all are doubted is still shown.
        order = labelled["image_id"].isin(doubted).to_numpy().argsort(kind="stable")
        by_label = labelled.iloc[order].groupby("label")["image_id"]
        self._of_class: dict[Any, list[str]] = {label: ids.tolist() for label, ids in by_label}
        self._names = dict(zip(table.classes["id"], table.classes["name"], strict=True))
        images = table.images.set_index("image_id")
        self._labels, self._splits, self._titles = images["label"], images["split"], images["title"]

    def show(self, image_id: str, alt: str) -> dict[str, Any]:
        """An image as the page's macro takes it."""
        row = self._rows.get(image_id)
        number = None if row is None else self.thumbnails.add(image_id, partial(self._images.decode, row))
        return {"number": number, "alt": alt}

    def show_class(self, label: int, *, without: str | None = None, count: int = _EXAMPLES) -> list[dict[str, Any]]:
        """The first examples of a class."""
        ids = [image_id for image_id in self._of_class.get(label, ())[: count + 1] if image_id != without]
        return [self.show(image_id, f"example of {self.name(label)}: {image_id}") for image_id in ids[:count]]

    def name(self, label: Any) -> str:
        """How a class is called on the page."""
        return "no label" if pd.isna(label) else _name_choice(label, self._names.get(label))

    def name_of(self, image_id: str) -> str:
        """How an image's class is called."""
        return self.name(self._labels.get(image_id, pd.NA))

    def get_title(self, image_id: str) -> str:
        """A listing's title; empty where there is none."""
        title = self._titles.get(image_id)
        return "" if pd.isna(title) else str(title)

    def can_be_relabelled(self, image_id: str) -> bool:
        """Whether ingest takes another label for it; a test image without one has none to change."""
        return not (self._splits.get(image_id) == "test" and pd.isna(self._labels.get(image_id)))


def _name_choice(class_id: Any, name: Any) -> str:
    """A class's name with its id, which tells classes of one name apart."""
    return str(class_id) if pd.isna(name) or str(name) in ("", str(class_id)) else f"{name} ({class_id})"


def _describe(row: Any, pictures: _Pictures, findings: pd.DataFrame) -> dict[str, Any]:
    """What the page shows of a finding, and what may be done about it."""
    item: dict[str, Any] = {"row": int(row.Index), "detail": "" if pd.isna(row.detail) else str(row.detail)}
    describe: Callable[..., dict[str, Any]] = _describe_class if pd.isna(row.image_id) else _describe_image
    return item | describe(row, pictures, findings)


def _describe_image(row: Any, pictures: _Pictures, findings: pd.DataFrame) -> dict[str, Any]:
    own, name = str(row.image_id), pictures.name(row.label)
    shown = pictures.show(own, f"{own}, labelled {name}")
    groups = [{"caption": f"labelled {name}", "pictures": [shown], "large": True}]
    names = [name]
    if not pd.isna(row.cluster):
        twins = findings.loc[(findings["cluster"] == row.cluster) & (findings["image_id"] != own), "image_id"]
        for twin in twins:
            label = pictures.name_of(twin)
            picture = pictures.show(twin, f"near-duplicate {twin}, labelled {label}")
            groups.append({"caption": f"near-duplicate {twin}, labelled {label}", "pictures": [picture], "large": True})
            names.append(label)
    if not pd.isna(row.label):
        groups.append(_show_examples(f"others of {name}", pictures.show_class(int(row.label), without=own)))
    if not pd.isna(row.new_label):
        believed = pictures.name(row.new_label)
        names.append(believed)
        groups.append(_show_examples(f"believed instead: {believed}", pictures.show_class(int(row.new_label))))
    actions = ["keep", "drop"] + ["weight"] * (not pd.isna(row.weight))
    title = pictures.get_title(own)
    doubt = f"doubt {float(row.score):.0%}" if row.kind == "wrong_label" and not pd.isna(row.score) else ""
    return {
        "heading": own,
        "notes": [note for note in (title, doubt) if note],
        "id": own,
        "classes": " ".join(names),
        "groups": groups,
        "actions": actions + ["relabel"] * pictures.can_be_relabelled(own),
        "weight": None if pd.isna(row.weight) else float(row.weight),
        "choice": "" if pd.isna(row.new_label) else pictures.name(row.new_label),
        "chooses": pictures.can_be_relabelled(own),
        "pair": None,
    }


def _describe_class(row: Any, pictures: _Pictures, findings: pd.DataFrame) -> dict[str, Any]:
    name = pictures.name(row.label)
    item = {"id": "", "notes": [], "actions": ["keep", "merge"], "weight": None, "choice": "", "pair": None}
    one = _show_examples(name, pictures.show_class(int(row.label), count=2 * _EXAMPLES))
    if pd.isna(row.new_label):
        return item | {"heading": name, "classes": name, "groups": [one], "chooses": True}
    into = pictures.name(row.new_label)
    other = _show_examples(into, pictures.show_class(int(row.new_label), count=2 * _EXAMPLES))
    shown = {"heading": f"{name} and {into}", "classes": f"{name} {into}", "groups": [one, other]}
    return item | shown | {"chooses": False, "pair": [name, into]}


def _show_examples(caption: str, pictures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"caption": caption, "pictures": pictures, "large": False}
