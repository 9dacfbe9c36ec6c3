"""Sections of labels: images whose label is doubted, with findings to copy; pictures and products that are double."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd

from productrec.data.curation.findings import FINDING_COLUMNS, format_findings
from productrec.reporting.audit_page import CSV_NAME
from productrec.reporting.class_names import ClassNames
from productrec.reporting.failure_sections import Examples
from productrec.reporting.page import Section
from productrec.reporting.pictures import Pictures

_SHOWN = 3  # pictures of a class
_MOST_CLUSTERS = 24
_MOST_MEMBERS = 12
_ACTIONS = ("", "relabel", "drop", "weight")
_BEFORE, _AFTER = (
    ("image_id", "kind"),
    ("label", "label_name", "new_label", "new_label_name", "weight", "score", "detail"),
)


def build_suspects(
    suspects: pd.DataFrame,
    *,
    names: ClassNames,
    examples: Examples,
    pictures: Pictures,
    shown: int,
    ingest_command: Sequence[str],
    notes: Sequence[str] = (),
) -> Section:
    """Images whose label is doubted, the least believed first, each beside examples of both classes; and their CSV.

    Args:
        suspects: findings of the kind ``wrong_label``, see `build_findings`, with labels, new labels and scores.
        names: of the classes.
        examples: image ids of a class.
        pictures: of the images.
        shown: of the suspects; all are in the CSV.
        ingest_command: what makes the table, by words; the page names it, with the CSV to apply.
        notes: who doubts them.
    """
    doubted = set(suspects["image_id"])
    first = suspects.head(shown)
    rows = [
        {
            "image_id": image_id,
            "picture": pictures.show(image_id),
            "label": names.tell(int(label)),
            "suggested": names.tell(int(new_label)),
            "score": float(score),
            "detail": detail,
            "found_by": names.find_by(int(label), int(new_label)),
            "sides": [
                pictures.show_some([other for other in examples(int(own)) if other not in doubted][:_SHOWN])
                for own in (label, new_label)
            ],
        }
        for image_id, label, new_label, score, detail in zip(
            *(first[name] for name in ("image_id", "label", "new_label", "score", "detail")), strict=True
        )
    ]
    data = {
        "rows": rows,
        "count": len(suspects),
        "csv": _split_csv(suspects),
        "actions": _ACTIONS,
        "notes": list(notes),
        "command": shlex.join([*ingest_command, "--apply", CSV_NAME]),
    }
    return Section("suspects", "Suspected wrong labels", "report_suspects.html.jinja", data)


def _split_csv(findings: pd.DataFrame) -> dict[str, Any]:
    """The lines of a findings CSV before and after the cell of the action, which a person chooses in the page."""
    assert set(_BEFORE) | set(_AFTER) < set(FINDING_COLUMNS)
    before, after = (format_findings(findings, columns).rstrip("\n").split("\n") for columns in (_BEFORE, _AFTER))
    return {"before": before, "after": after}


def build_duplicates(
    *,
    clusters: pd.DataFrame | None,
    twins: pd.DataFrame | None,
    conflicts: pd.DataFrame | None,
    names: ClassNames,
    examples: Examples,
    pictures: Pictures,
) -> Section:
    """Near-duplicates, those that cross splits first, and classes that look like one product under two names.

    Args:
        clusters: rows ``cluster``, ``image_id``, ``split``, ``label``, as an ingested table has them; None where nobody
            looked.
        twins: findings of the kind ``same_product``; None where nobody looked.
        conflicts: findings of the kind ``label_conflict``; None where nobody looked.
        names: of the classes.
        examples: image ids of a class.
        pictures: of the images.
    """
    groups = [] if clusters is None else [_describe_cluster(rows, names) for _, rows in clusters.groupby("cluster")]
    groups.sort(key=lambda group: (not group["leaks"], not group["conflicts"]))
    for group in groups[:_MOST_CLUSTERS]:
        group["pictures"] = pictures.show_some(group["ids"][:_MOST_MEMBERS])
    pairs = [] if twins is None else list(zip(twins["label"], twins["new_label"], twins["detail"], strict=True))
    data = {
        "groups": groups[:_MOST_CLUSTERS],
        "clusters": len(groups),
        "leaks": sum(group["leaks"] for group in groups),
        "looked": clusters is not None,
        "twins": [
            {
                "sides": [(names.tell(int(own)), pictures.show_some(examples(int(own))[:_SHOWN])) for own in pair],
                "detail": detail,
                "found_by": names.find_by(*map(int, pair)),
            }
            for *pair, detail in pairs[:_MOST_CLUSTERS]
        ],
        "twin_count": len(pairs),
        "conflicts": [] if conflicts is None else _show_conflicts(conflicts, pictures),
        "conflict_count": 0 if conflicts is None else len(conflicts),
    }
    return Section("duplicates", "Duplicates and leaks", "report_duplicates.html.jinja", data)


def _describe_cluster(rows: pd.DataFrame, names: ClassNames) -> dict[str, Any]:
    splits = list(dict.fromkeys(rows["split"].tolist()))
    labels = [int(label) for label in dict.fromkeys(rows["label"].dropna().tolist())]
    return {
        "ids": rows["image_id"].astype(str).tolist(),
        "splits": splits,
        "labels": [names.tell(label) for label in labels],
        "found_by": names.find_by(*labels),
        "leaks": len(splits) > 1,
        "conflicts": len(labels) > 1,
    }


def _show_conflicts(conflicts: pd.DataFrame, pictures: Pictures) -> list[dict[str, Any]]:
    first = conflicts.head(_MOST_CLUSTERS)
    return [
        {"image_id": image_id, "detail": detail, "picture": pictures.show(image_id)}
        for image_id, detail in zip(first["image_id"], first["detail"], strict=True)
    ]
