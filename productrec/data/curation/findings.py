"""Findings of an audit: what was found of which image, in a table that a person edits and ingest takes back."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from productrec.data.sources.rows import parse_whole_number
from productrec.data.table import build_frame
from productrec.delimited import unguard_cell, write_for_people
from productrec.errors import DataError, describe_offenders

FINDING_COLUMNS = {
    "image_id": "str",
    "kind": "str",
    "action": "str",
    "label": "Int64",
    "label_name": "str",
    "new_label": "Int64",
    "new_label_name": "str",
    "weight": "Float64",
    "score": "Float64",
    "detail": "str",
    "path": "str",
    "cluster": "str",  # of near-duplicates, by the id of its first image
}
ACTIONS = ("drop", "relabel", "weight", "merge")
IMAGE_ACTIONS = ACTIONS[:3]  # the last is of two classes
_NEEDED = ("image_id", "action")


def build_findings(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Findings with the columns of `FINDING_COLUMNS`; what a row does not say is empty."""
    return build_frame(FINDING_COLUMNS, {name: [row.get(name) for row in rows] for name in FINDING_COLUMNS})


def write_findings(path: Path, findings: pd.DataFrame) -> None:
    """Write findings as the CSV that a person edits: no text in it is a formula to a spreadsheet."""
    with path.open("w", encoding="utf-8", newline="") as file:
        _write(file, findings)


def format_findings(findings: pd.DataFrame, columns: Sequence[str] = tuple(FINDING_COLUMNS)) -> str:
    """Some columns of what `write_findings` writes, as text with a line a finding, the names before them."""
    file = io.StringIO(newline="")
    _write(file, findings[list(columns)])
    return file.getvalue()


def _write(file: TextIO, findings: pd.DataFrame) -> None:
    rows = findings.astype(object).where(findings.notna(), None).to_numpy().tolist()
    write_for_people(file, list(findings.columns), rows)


def read_findings(path: Path) -> pd.DataFrame:
    """The findings of a CSV whose ``action`` is not empty, as a person left them.

    An action is ``drop``, ``relabel`` (to the class id in ``new_label``), ``weight`` (from 0 to 1, in ``weight``), or,
    of a row without an image, ``merge`` (all images of the class in ``label`` become the one in ``new_label``). Other
    columns are not read. Rows without an action say nothing.

    Raises:
        DataError: it is no such CSV, or a row says what cannot be done, by its line.
    """
    try:
        texts = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as the CSV of an audit's findings ({str(error)[:200]}).") from None
    absent = [name for name in _NEEDED if name not in texts.columns]
    if absent:
        raise DataError(
            f"{path}: findings must have the columns {', '.join(_NEEDED)}; {', '.join(absent)} "
            "is missing. `productrec audit` writes such a file."
        )
    texts["image_id"] = texts["image_id"].map(unguard_cell)
    texts["line"] = [str(number + 2) for number in range(len(texts))]
    texts["action"] = texts["action"].str.strip().str.lower()
    texts = texts[texts["action"] != ""]
    _refuse(path, texts[~texts["action"].isin(ACTIONS)], f"an action must be {', '.join(ACTIONS)} or empty")
    is_merge = texts["action"] == "merge"
    _refuse(
        path, texts[(texts["image_id"] == "") & ~is_merge], "an action needs an image_id; a class can only be merged"
    )
    _refuse(path, texts[(texts["image_id"] != "") & is_merge], "merge is of a class, of a row without an image_id")
    labels = [parse_whole_number(text.strip().removesuffix(".0")) for text in _get_texts(texts, "label")]
    new_labels = [parse_whole_number(text.strip().removesuffix(".0")) for text in _get_texts(texts, "new_label")]
    weights = [_parse_weight(text) for text in _get_texts(texts, "weight")]
    wrong = (texts["action"] == "relabel").to_numpy() & np.array([label is None for label in new_labels], dtype=bool)
    _refuse(path, texts[wrong], "relabel needs a class id in new_label")
    wrong = is_merge.to_numpy() & np.array(
        [None in pair or pair[0] == pair[1] for pair in zip(labels, new_labels, strict=True)], dtype=bool
    )
    _refuse(path, texts[wrong], "merge needs the ids of two classes, in label and new_label")
    wrong = (texts["action"] == "weight").to_numpy() & np.array([weight is None for weight in weights], dtype=bool)
    _refuse(path, texts[wrong], "weight needs a number from 0 to 1 in weight")
    frame = pd.DataFrame({"image_id": texts["image_id"], "action": texts["action"], "line": texts["line"]})
    frame["label"] = pd.Series(labels, index=texts.index, dtype="Int64").where(is_merge)
    has_new = is_merge | (frame["action"] == "relabel")
    frame["new_label"] = pd.Series(new_labels, index=texts.index, dtype="Int64").where(has_new)
    frame["weight"] = pd.Series(weights, index=texts.index, dtype="Float64").where(frame["action"] == "weight")
    # One image may stand in several findings; saying the same thing twice is no contradiction.
    frame = frame.drop_duplicates(["image_id", "action", "label", "new_label", "weight"])
    merged = frame[frame["action"] == "merge"]
    chained = merged["label"].duplicated(keep=False) | merged["label"].isin(merged["new_label"])
    _refuse(path, merged[chained], "a class must be merged once, into one that is not merged itself")
    twice = frame.duplicated(["image_id", "action"], keep=False) & (frame["action"] != "merge")
    both = frame["image_id"].isin(frame.loc[frame["action"] == "drop", "image_id"]) & (frame["action"] != "drop")
    _refuse(path, frame[twice | both], "an image must not be told two things")
    return frame.reset_index(drop=True)


def check_findings(images: pd.DataFrame, findings: pd.DataFrame, class_ids: Sequence[int]) -> dict[str, int]:
    """Refuse findings of another source; needs ids, splits and classes alone, so it can be asked before long work.

    Args:
        images: rows of an image table.
        findings: of `read_findings`.
        class_ids: that labels may be.

    Returns:
        The row number of every image id.

    Raises:
        DataError: an id or a class is not in the table, or an image without a label would get one.
    """
    row_of = {image_id: row for row, image_id in enumerate(images["image_id"])}
    merged = findings[findings["action"] == "merge"]
    of_images = findings.loc[findings["action"] != "merge", "image_id"]
    unknown = [image_id for image_id in of_images if image_id not in row_of]
    if unknown:
        raise DataError(
            f"findings: ids must be in the image table; {describe_offenders(unknown)} are not. "
            "Apply findings to the source they were found in."
        )
    known = set(class_ids)
    relabelled = findings[findings["action"] == "relabel"]
    named = [*relabelled["new_label"], *merged["label"], *merged["new_label"]]
    strange = [label for label in named if label not in known]
    if strange:
        raise DataError(f"findings: new labels must be among the classes; {describe_offenders(strange)} are not.")
    rows = images.iloc[[row_of[image_id] for image_id in relabelled["image_id"]]]
    tests = rows.loc[(rows["split"] == "test") & rows["label"].isna(), "image_id"]
    if len(tests):
        raise DataError(
            f"findings: test images without a label have none to change; got {describe_offenders(tests)}. "
            "Empty the action of their rows."
        )
    return row_of


def apply_findings(images: pd.DataFrame, findings: pd.DataFrame, class_ids: Sequence[int]) -> pd.DataFrame:
    """The image table after a person's findings: dropped images stay as rows, with the status ``dropped``.

    Arguments and errors as for `check_findings`.
    """
    row_of = check_findings(images, findings, class_ids)
    changed = images.copy()
    merged = findings[findings["action"] == "merge"]
    into = dict(zip(merged["label"], merged["new_label"], strict=True))
    changed["label"] = changed["label"].map(lambda label: into.get(label, label), na_action="ignore").astype("Int64")
    for action, column, values in (("relabel", "label", "new_label"), ("weight", "weight", "weight")):
        selected = findings[findings["action"] == action]
        changed.loc[_find_rows(changed, selected, row_of), column] = selected[values].to_numpy()
    rows = _find_rows(changed, findings[findings["action"] == "drop"], row_of)
    dropped = rows[(changed.loc[rows, "status"] == "ok").to_numpy()]
    changed.loc[dropped, "status"] = "dropped"
    changed.loc[dropped, "reason"] = "dropped by a finding of an audit"
    return changed


def _find_rows(images: pd.DataFrame, findings: pd.DataFrame, row_of: dict[str, int]) -> pd.Index:
    return images.index[[row_of[image_id] for image_id in findings["image_id"]]]


def describe_applied(findings: pd.DataFrame) -> str:
    """How many images were dropped, relabelled and weighed, and classes merged, where any were."""
    counts = findings["action"].value_counts()
    done = {"drop": "dropped", "relabel": "relabelled", "weight": "weighed"}
    told = [f"{int(counts.get(name, 0)):,} {words}" for name, words in done.items()]
    if merged := int(counts.get("merge", 0)):
        told.append(f"{merged:,} classes merged into others")
    return "findings applied: " + ", ".join(told)


def _get_texts(frame: pd.DataFrame, name: str) -> list[str]:
    return frame[name].tolist() if name in frame.columns else [""] * len(frame)


def _parse_weight(text: str) -> float | None:
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if math.isfinite(weight) and 0 <= weight <= 1 else None


def _refuse(path: Path, rows: pd.DataFrame, what: str) -> None:
    if len(rows):
        lines = describe_offenders(f"line {line}" for line in rows["line"])
        raise DataError(f"{path}: {what}; {lines} must be mended.")
