"""Sections of what a run answers beside classes: matches, retrieval, and titles, as its artefacts hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from productrec.artifacts import MANIFEST_NAME, check_files, load_manifest
from productrec.assembly.report_source import ReportSource
from productrec.recognition.saved_matches import load_matches
from productrec.reporting.page import Section
from productrec.reporting.score_sections import build_tables

_SPLITS = ("val", "test")
_COLUMNS = ("figure", "%", "95 % interval")


def build_match_section(source: ReportSource) -> Section | None:
    """The threshold of matches and what it is worth; None where there are none."""
    views = source.find_views(source.folder, "matches", "test")
    if views is None:
        return None
    fitted = load_matches(source.folder / "matches" / views / "test").fitted
    rows = [("similarity from which on two images match", f"{fitted['rule']['threshold']:.4f}", "")]
    notes = [f"Views: {views}."]
    if fitted.get("f1") is not None:
        low, high = fitted["interval"]
        rows.append(("F1 of validation images, %", f"{100 * fitted['f1']:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"))
        notes.append(
            f"F1 is of {fitted['images']:,} validation images of {fitted['classes']:,} classes, each by what was "
            f"fitted on other classes, as among {fitted['pool_images']:,} images."
        )
    table = ("Threshold and score of the matches", ("figure", "value", "95 % interval"), rows)
    return build_tables("matches", "Matches", [table], notes)


def build_retrieval_section(source: ReportSource) -> Section | None:
    """The figures that `productrec evaluate` kept; None where it kept none."""
    tables, notes = [], []
    for run in source.runs:
        for split in _SPLITS:
            views = source.find_views(run, "evaluations", split)
            if views is None or (told := _read(source, run / "evaluations" / views / split)) is None:
                continue
            caption = f"{source.name(run)}, {split} images, views {views}: {told['protocol']}"
            tables.append((caption, _COLUMNS, [_list_row(name, told, told["figures"]) for name in told["figures"]]))
            notes.append(
                f"{caption.partition(':')[0]}: {told['queries']:,} queries, {told['queries_without_positives']:,} of "
                f"them without a positive, {told['gallery_rows']:,} gallery rows."
            )
    return build_tables("retrieval", "Retrieval", tables, notes) if tables else None


def build_title_section(source: ReportSource) -> Section | None:
    """How well images and titles find each other; None where nobody evaluated it."""
    tables = []
    for run in source.runs:
        told = _read(source, run / "evaluations" / "titles" / "val")
        if told is not None:
            caption = f"{source.name(run)}: {told['images']:,} validation images, {told['titles']:,} titles"
            tables.append((caption, _COLUMNS, [_list_row(name, told, told["full"]) for name in told["full"]]))
    return build_tables("titles", "Images and titles", tables) if tables else None


def _read(source: ReportSource, folder: Path) -> dict[str, Any] | None:
    """An evaluation; None where there is none, or where it is of an earlier state of the table, which is noted."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    manifest, table = load_manifest(folder), source.material.table
    check_files(folder, manifest)
    if table is not None and manifest.inputs.get("table") != table.fingerprint:
        source.leave_out(f"Figures of {folder}", "they are of an earlier state of the table. Run productrec evaluate.")
        return None
    told: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return told


def _list_row(name: str, told: Mapping[str, Any], figures: Mapping[str, float]) -> tuple[str, str, str]:
    """A figure in %; mistake severity in levels of the tree, and ranks, as they are."""
    scale, digits = (1, 3) if name.endswith(("severity", "rank")) else (100, 2)
    ends = told["intervals"].get(name)
    shown = "" if ends is None else f"{scale * ends[0]:.{digits}f} to {scale * ends[1]:.{digits}f}"
    title = name.replace("_", " ") + (" (not in %)" if scale == 1 else "")
    return title, f"{scale * figures[name]:.{digits}f}", shown
