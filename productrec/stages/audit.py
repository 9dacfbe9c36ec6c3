"""Audit: an image table, and runs that learned from it, become findings that a person edits and ingest takes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from productrec.artifacts import check_replaceable, compute_file_digest, is_fresh, load_manifest, write_artifact
from productrec.assembly.audit_sheets import draw_suspects, draw_twins
from productrec.class_order import ClassOrder
from productrec.console import say, show_progress, warn
from productrec.data.curation.anomalies import find_class_anomalies, find_label_conflicts, find_shape_outliers
from productrec.data.curation.duplicates import DuplicateReport, compute_fingerprints, find_duplicates
from productrec.data.curation.findings import IMAGE_ACTIONS, build_findings, write_findings
from productrec.data.images import open_images
from productrec.data.table import ImageTable, load_table
from productrec.errors import ArtifactError, DataError, RecipeError
from productrec.recognition.classifier import Evidence
from productrec.recognition.suspects import JUDGE, judge_labels
from productrec.recognition.twins import LEAST_MIXING, find_twins
from productrec.reporting.audit_page import write_audit_page
from productrec.retrieval.choice import describe_built
from productrec.retrieval.embedding_set import EmbeddingSet, join_embedding_sets, load_embedding_set
from productrec.retrieval.large_search import RECALL, find_close_pairs, search_large
from productrec.runtime import count_cores

KIND = "findings"
CSV_NAME = "findings.csv"
SHEET_NAME = "suspects.jpg"
TWINS_NAME = "twins.jpg"
PAGE_NAME = "audit.html"
_NEIGHBOURS = 20
_CLOSE = 0.97  # similarity of embeddings from which pixels are compared
_MOST_CLOSE_PAIRS = 5  # compared, times the images


@dataclass(frozen=True)
class Judge:
    """A run that judges labels: the splits it was trained on, and the fold it left out."""

    folder: Path
    splits: tuple[str, ...]
    fold: int | None


@dataclass(frozen=True)
class Audited:
    """What an audit wrote.

    ``table``: the audited one; ``folder``: of the findings; ``counts``: of each kind; ``skipped``: they were there
    already; ``page``: the page to mark them in, where one was asked for.
    """

    table: Path
    folder: Path
    counts: dict[str, int]
    skipped: bool
    page: Path | None = None


def run_audit(
    table_folder: Path,
    out: Path,
    *,
    judges: Sequence[Judge] = (),
    root: Path | None = None,
    duplicates: bool = True,
    mark: str | None = None,
    first: int = 0,
    shown: int = 24,
    html: bool = False,
    ingest_command: Sequence[str] = (),
    replace: bool = False,
) -> Audited:
    """Write ``findings.parquet``, ``findings.csv``, a sheet of the first suspects, and a page to mark findings in.

    Before any training: classes that are tiny or dominate, outlying sizes and aspects, near-duplicates of different
    labels. With runs: every image whose label its neighbours and the head do not believe, the least believed first. A
    run that left a fold out (``train.fold``) judges that fold, among images it was trained on; any other judges all
    of them, each by the others, which is milder, since it has learned the labels it judges.

    Args:
        table_folder: the image table.
        out: folder of the findings.
        judges: runs, whose training images are embedded with logits.
        root: image folder, where it has moved.
        duplicates: compare all pictures for near-duplicates; reads every image.
        mark: an action that the first suspects get beforehand; None leaves all actions to a person.
        first: how many suspects get it.
        shown: suspects on the sheet.
        html: write the page, also of findings that were there already.
        ingest_command: what makes the table as it was made, by words; the page names it.
        replace: also write over findings that were edited.

    Raises:
        ArtifactError: ``out`` holds something else, or findings that a person has edited.
        RecipeError: ``mark`` is no action.
    """
    if mark is not None and mark not in IMAGE_ACTIONS:
        raise RecipeError(f"audit: mark must be one of {', '.join(IMAGE_ACTIONS)}; got {mark!r}.")
    check_replaceable(out, kind=KIND)
    table = load_table(table_folder, root=root)
    sets = {judge: _load_sets(judge) for judge in judges}
    inputs = {"table": table.fingerprint}
    inputs |= {f"run {judge.folder}": embedded.fingerprint for judge, embedded in sets.items()}
    settings = {"duplicates": duplicates, "mark": mark, "first": first if mark else 0, "shown": shown}
    if not replace:
        _check_unedited(out)
        if is_fresh(out, kind=KIND, inputs=inputs, settings=settings):
            counts = load_manifest(out, kind=KIND).notes["counts"]
            page = _write_page(out, table, table_folder, ingest_command) if html else None
            found = {str(kind): int(count) for kind, count in counts.items()}
            return Audited(table_folder, out, found, skipped=True, page=page)
    rows, doubles = _find_suspects(table, sets)
    if mark is not None:
        for finding in rows[:first]:
            finding["action"] = mark
    suspects = build_findings(rows)
    if duplicates:
        rows = rows + find_label_conflicts(_compare(table, list(sets.values())))
    rows = rows + doubles + find_class_anomalies(table.images, table.classes["id"].tolist())
    rows = rows + find_shape_outliers(table.images)
    findings = _complete(build_findings(rows), table)
    counts = {str(kind): int(count) for kind, count in findings["kind"].value_counts(sort=False).items()}
    with write_artifact(out, kind=KIND, inputs=inputs, settings=settings, notes={"counts": counts}) as temporary:
        findings.to_parquet(temporary / "findings.parquet", index=False)
        write_findings(temporary / CSV_NAME, findings)
        if len(suspects) and shown:
            draw_suspects(temporary / SHEET_NAME, suspects, shown, table)
        if doubles and shown:
            draw_twins(temporary / TWINS_NAME, doubles[:shown], table)
    page = _write_page(out, table, table_folder, ingest_command) if html else None
    return Audited(table_folder, out, counts, skipped=False, page=page)


def _write_page(out: Path, table: ImageTable, table_folder: Path, ingest_command: Sequence[str]) -> Path:
    """The page of an audit's findings; no part of the artefact, since it is made anew out of it."""
    command = ingest_command or ("productrec", "ingest", "SOURCE", "--out", str(table_folder))
    findings = pd.read_parquet(out / "findings.parquet")
    write_audit_page(out / PAGE_NAME, findings, table, name=table_folder.name, ingest_command=command)
    return out / PAGE_NAME


def report(audited: Audited) -> None:
    """Tell a person what was found."""
    counts = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in audited.counts.items())
    say(f"findings {audited.folder} {'unchanged' if audited.skipped else 'written'}: {counts or 'none'}")
    if audited.page is not None:
        say(f"page {audited.page} written")


def _check_unedited(out: Path) -> None:
    """Refuse to write over a person's work."""
    if not (out / CSV_NAME).exists():
        return
    known = load_manifest(out, kind=KIND).files.get(CSV_NAME, {})
    if compute_file_digest(out / CSV_NAME) != known.get("sha256"):
        raise ArtifactError(
            f"{out / CSV_NAME}: was edited since it was written. Keep it and name another folder with --out, or pass "
            "--replace to write over it."
        )


def _load_sets(judge: Judge) -> EmbeddingSet:
    sets = [load_embedding_set(judge.folder / "embeddings" / "plain" / split) for split in judge.splits]
    if any(embedded.logits is None for embedded in sets):
        raise ArtifactError(f"{judge.folder}: training images must be embedded with logits. Audit the run again.")
    return join_embedding_sets(sets, keep_logits=True)


def _find_suspects(
    table: ImageTable, sets: Mapping[Judge, EmbeddingSet]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images whose label some judge does not believe, by the mean of the judges' doubts, descending; twin classes."""
    images = table.images.set_index("image_id")
    doubts: dict[str, list[tuple[float, int, str]]] = {}
    unjudged = 0
    mixed: dict[tuple[int, int], list[float]] = {}
    for judge, embedded in sets.items():
        rows = images.loc[embedded.ids]
        given = rows["label"].fillna(-1).to_numpy(dtype=np.int64)
        positions = ClassOrder(embedded.class_ids).positions_of(given)
        is_gallery = positions >= 0
        is_query = is_gallery.copy()
        if judge.fold is not None:
            is_left_out = (rows["fold"] == judge.fold).fillna(False).to_numpy(dtype=bool)
            is_query &= is_left_out
            is_gallery &= ~is_left_out
            unjudged += int((is_left_out & (positions < 0)).sum())
        queries, gallery = np.flatnonzero(is_query), np.flatnonzero(is_gallery)
        if not len(queries) or len(gallery) < 2:
            raise DataError(f"{judge.folder}: has no images to judge. Was the table's fold left out in training?")
        own = None if judge.fold is not None else np.arange(len(queries))
        neighbours, similarities, tuned = search_large(
            embedded.embeddings[queries], embedded.embeddings[gallery], _NEIGHBOURS, own_rows=own
        )
        if tuned is not None:
            say(f"{judge.folder}: neighbours by {describe_built(tuned, RECALL)}")
        assert embedded.logits is not None
        least = 1.0 - len(sets) * (1.0 - LEAST_MIXING)  # below it the mean of the judges cannot come to `LEAST_MIXING`
        for pair in find_twins(
            positions[queries], positions[gallery][neighbours], len(embedded.class_ids), least=least
        ):
            ids = (int(embedded.class_ids[pair.one]), int(embedded.class_ids[pair.other]))
            mixed.setdefault(ids, []).append(pair.mixing)
        evidence = Evidence(embedded.logits[queries], positions[gallery][neighbours], similarities)
        judged = judge_labels(evidence, positions[queries], JUDGE)
        for number, row in enumerate(queries.tolist()):
            words = (
                f"{judged.agreement[number]:.0%} of the vote, head's margin {judged.margin[number]:+.2f}"
                f"{'' if judge.fold is None else ', out of fold'}"
            )
            suggested = int(embedded.class_ids[judged.suggested[number]])
            doubts.setdefault(embedded.ids[row], []).append((float(judged.doubt[number]), suggested, words))
    if unjudged:
        warn(f"{unjudged} images are of a class that only stands in the fold they were left out with; not judged.")
    found_rows = []
    for image_id, judgements in doubts.items():
        doubt = sum(judgement[0] for judgement in judgements) / len(judgements)
        _, suggested, words = max(judgements)
        if doubt > 0.5:
            finding = {"image_id": image_id, "kind": "wrong_label", "new_label": suggested, "detail": words}
            found_rows.append(finding | {"weight": round(1.0 - doubt, 3), "score": round(doubt, 4)})
    return sorted(found_rows, key=lambda finding: -float(finding["score"])), _list_twins(mixed, len(sets))


def _list_twins(mixed: Mapping[tuple[int, int], Sequence[float]], judges: int) -> list[dict[str, Any]]:
    """Findings of pairs of classes that are mixed in the mean of the judges, the most mixed first."""
    found = []
    for (one, other), values in mixed.items():
        mixing = sum(values) / judges
        if mixing >= LEAST_MIXING:
            detail = f"their images lie among each other, {mixing:.0%} of what one product under two names would show"
            finding = {"kind": "same_product", "label": other, "new_label": one, "score": round(mixing, 4)}
            found.append(finding | {"detail": detail})
    return sorted(found, key=lambda finding: -float(finding["score"]))


def _compare(table: ImageTable, sets: Sequence[EmbeddingSet]) -> DuplicateReport:
    """Near-duplicates among all readable images: by hash, and among those that a run has embedded also by embedding."""
    readable = table.images[table.images["status"] == "ok"]
    pictures, usable = open_images(table, readable), readable.reset_index(drop=True)
    row_of = {image_id: row for row, image_id in enumerate(usable["image_id"])}
    close = [np.empty((0, 2), np.int64)]
    for embedded in sets:
        rows = np.array([row_of[image_id] for image_id in embedded.ids], dtype=np.int64)
        close.append(rows[find_close_pairs(embedded.embeddings, _CLOSE, most=_MOST_CLOSE_PAIRS * len(rows))])
    with show_progress("comparing images", len(usable)) as bar:
        fingerprints = compute_fingerprints(pictures, workers=count_cores(), on_progress=bar.advance)
    return find_duplicates(usable, fingerprints, candidates=np.concatenate(close), workers=count_cores())


def _complete(findings: pd.DataFrame, table: ImageTable) -> pd.DataFrame:
    """Labels, names and paths, so that a person need not look them up."""
    images = table.images.set_index("image_id")
    has_image = findings["image_id"].notna()
    rows = images.reindex(findings.loc[has_image, "image_id"])
    findings.loc[has_image, "label"] = rows["label"].to_numpy()
    findings.loc[has_image, "path"] = rows["path"].to_numpy()
    names = dict(zip(table.classes["id"].tolist(), table.classes["name"].tolist(), strict=True))
    for column in ("label", "new_label"):
        findings[f"{column}_name"] = findings[column].map(names).astype("str").where(findings[column].notna())
    return findings
