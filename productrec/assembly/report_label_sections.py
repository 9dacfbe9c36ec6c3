"""Sections of labels and of all there is, built for a report: suspects, duplicates, map, answers, provenance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from productrec.artifacts import MANIFEST_NAME, compute_versions, load_manifest
from productrec.assembly.evidence import get_labels, load_gallery
from productrec.assembly.report_evidence import find_suspects
from productrec.assembly.report_material import Material, read_clusters
from productrec.assembly.report_source import OUT_OF_FOLD, ReportSource
from productrec.class_order import ClassOrder
from productrec.data.curation.findings import build_findings
from productrec.data.table import ImageTable
from productrec.recipe import save_recipe
from productrec.recognition.prototypes import average_classes
from productrec.reporting.answered import Answered
from productrec.reporting.class_map import LEAST
from productrec.reporting.failure_sections import (
    build_answers,
)
from productrec.reporting.label_sections import build_duplicates, build_suspects
from productrec.reporting.map_section import MOST, build_class_map, draw_map
from productrec.reporting.page import Section
from productrec.reporting.places import shorten_paths
from productrec.reporting.provenance import build_provenance, list_artifacts

_SUSPECTS = 24
_IN_CSV = 1000


def build_suspect_section(source: ReportSource) -> Section | None:
    """Images whose label is doubted."""
    material, table, best, judged = source.material, source.material.table, source.find_best(), source.material.judged
    rows, notes = list[dict[str, object]](), list[str]()
    findings = source.findings
    if table is None:
        return None
    parts = []
    if findings is not None:
        parts.append(
            findings[(findings["kind"] == "wrong_label") & findings["new_label"].notna() & findings["label"].notna()]
        )
        notes.append(f"Training images: by the audit in {shorten_paths(str(source.audit))}.")
    else:
        notes.append("Training images were not judged: productrec audit RUN does, and this page shows it then.")
    views = None
    if best is not None and judged is not None and judged.split != OUT_OF_FOLD:
        views = source.find_views(best[0], "neighbours", judged.split)
    trains_on = () if best is None else best[1].train.splits
    if best is not None and judged is not None and views is not None and judged.split not in trains_on:
        rows = find_suspects(*best, table, views, judged.split)
        notes.append(f"{judged.title.capitalize()}: by the neighbours and the head of {source.name(best[0])}.")
    if not parts and not rows and views is None:
        source.leave_out("Suspected wrong labels", "there are neither findings nor neighbours. Run productrec audit.")
        return None
    parts.append(_name_labels(build_findings(rows), material))
    suspects = _sort_suspects(parts)
    return build_suspects(
        suspects.head(_IN_CSV),
        names=material.names,
        examples=material.get_examples,
        pictures=material.pictures,
        shown=_SUSPECTS,
        ingest_command=source.ingest_command,
        notes=notes,
    )


def build_duplicate_section(source: ReportSource) -> Section | None:
    """Near-duplicates, leaks, and products under two names."""
    material = source.material
    if material.table is None:
        return None
    findings, clusters = source.findings, read_clusters(source.recipe.table)
    if clusters is None:
        why = "nobody looked for them. productrec ingest --dedup report does."
        source.leave_out("Near-duplicates and leaks between splits", why)
    if findings is None:
        why = "nobody looked for them. productrec audit RUN does, and writes its findings where this page finds them."
        source.leave_out("Products under two names, and copies under different labels", why)
    if clusters is None and findings is None:
        return None
    kinds = {"twins": "same_product", "conflicts": "label_conflict"}
    found = {name: None if findings is None else findings[findings["kind"] == kind] for name, kind in kinds.items()}
    return build_duplicates(
        clusters=clusters,
        twins=found["twins"],
        conflicts=found["conflicts"],
        names=material.names,
        examples=material.get_examples,
        pictures=material.pictures,
    )


def build_map_section(source: ReportSource) -> Section | None:
    """The classes in the plane."""
    material, table, best = source.material, source.material.table, source.find_best()
    if table is None or best is None:
        return None
    gallery = load_gallery(*best, "plain")
    class_ids, means, count = _average(table, gallery.ids, np.asarray(gallery.embeddings))
    if len(class_ids) < LEAST:
        source.leave_out("Map of the classes", f"it needs at least {LEAST} classes with images.")
        return None
    groups = [material.paths.get(class_id, "").rpartition("/")[2] for class_id in class_ids]
    names = [material.names.tell(class_id) for class_id in class_ids]
    source.figures["classes"] = figure = draw_map(means, names, groups if any(groups) else None)
    return build_class_map(figure, shown=len(class_ids), classes=count)


def build_answer_section(source: ReportSource) -> Section | None:
    """Every answer, to be searched."""
    answered: list[Answered] = list(source.material.answered.values())
    return build_answers(answered, source.material.names) if any(part.ids for part in answered) else None


def build_provenance_section(source: ReportSource) -> Section | None:
    """Recipe, environment and artefacts."""
    recipes = {source.recipe.name: save_recipe(source.recipe)}
    recipes |= {source.name(run): save_recipe(own) for run, own in source.runs.items()} if len(source.runs) > 1 else {}
    environments: dict[str, Mapping[str, str]] = {}
    artifacts = list_artifacts(source.folder)
    for run in source.runs:
        if (run / MANIFEST_NAME).is_file():
            environments[f"training of {source.name(run)}"] = load_manifest(run).versions
        else:
            source.leave_out(f"Environment of the training of {source.name(run)}", "the training is not finished.")
        if run != source.folder and source.folder not in run.parents:
            artifacts += [(f"{source.name(run)}/{place}", kind, digest) for place, kind, digest in list_artifacts(run)]
    environments["this report"] = compute_versions()
    return build_provenance(recipes, environments, artifacts)


def _name_labels(findings: pd.DataFrame, material: Material) -> pd.DataFrame:
    named = {
        f"{column}_name": findings[column].map(material.names.names).astype("str") for column in ("label", "new_label")
    }
    return findings.assign(**{name: values.where(findings[name[:-5]].notna()) for name, values in named.items()})


def _sort_suspects(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    together = pd.concat(filled, ignore_index=True) if filled else parts[0]
    return together.sort_values("score", ascending=False, kind="stable").drop_duplicates("image_id")


def _average(table: ImageTable, ids: list[str], embeddings: np.ndarray) -> tuple[list[int], np.ndarray, int]:
    """Ids (C,) and mean embeddings (C, D) of the `MOST` classes with the most images, and the number of all classes."""
    labels = get_labels(table, ids)
    listed, counts = np.unique(labels[labels >= 0], return_counts=True)
    chosen = np.sort(listed[np.argsort(-counts, kind="stable")[:MOST]])
    means = average_classes(embeddings, ClassOrder(chosen).positions_of(labels), len(chosen), shrinkage=0)
    return [int(class_id) for class_id in chosen], means, len(listed)
