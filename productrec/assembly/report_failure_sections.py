"""Sections of failures, built from what the runs of a report hold: confused pairs, mistakes, classes, categories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from productrec.assembly.report_evidence import compute_share_maps, load_split_neighbours, tell_shares
from productrec.assembly.report_source import OUT_OF_FOLD, ReportSource
from productrec.errors import ArtifactError, ProductrecError
from productrec.recipe import Recipe
from productrec.reporting.category_results import build_category_results
from productrec.reporting.class_results import list_class_results
from productrec.reporting.confusions import find_confusions
from productrec.reporting.failure_sections import (
    build_categories,
    build_classes,
    build_confusions,
    build_mistakes,
)
from productrec.reporting.mistakes import Mistake, choose_mistakes, describe_mistakes
from productrec.reporting.page import Section
from productrec.reporting.share_maps import draw_shares

_PAIRS = 16
_MISTAKES = 36


def build_confusion_section(source: ReportSource) -> Section | None:
    """Pairs of classes that are taken for each other."""
    material, judged = source.material, source.material.judged
    if judged is None:
        source.leave_out("Confused pairs, mistakes and results by class", "no labelled image was predicted.")
        return None
    confusions = find_confusions(judged, most=_PAIRS)
    return build_confusions(confusions, judged, material.names, material.get_examples, material.pictures)


def build_mistake_section(source: ReportSource) -> Section | None:
    """Mistakes with their nearest products and maps of similarity."""
    material, judged, best = source.material, source.material.judged, source.find_best()
    if judged is None:
        return None
    neighbours, views, notes = None, None, list[str]()
    if best is not None and judged.split != OUT_OF_FOLD:
        views = source.find_views(best[0], "neighbours", judged.split)
    if best is not None and views is not None:
        try:
            neighbours = load_split_neighbours(*best, views, judged.split)
            if len(source.runs) > 1:
                notes.append(
                    f"Nearest products and similarities are those of {source.name(best[0])}, the best model alone."
                )
        except ArtifactError as error:
            source.leave_out("Nearest products of mistakes", str(error))
    elif judged.split == OUT_OF_FOLD:
        source.leave_out("Nearest products of mistakes", "each image was answered by the run that left its fold out.")
    else:
        source.leave_out("Nearest products of mistakes", "there are no neighbours. Run productrec predict.")
    mistakes = describe_mistakes(judged, choose_mistakes(judged, most=_MISTAKES), neighbours)
    maps = dict[tuple[str, str], tuple[int | None, float]]()
    if best is not None and views is not None and neighbours is not None and material.pictures.are_at_hand:
        maps = _draw_maps(source, *best, mistakes)
        notes += tell_shares(best[1], views) if maps else []
    return build_mistakes(mistakes, judged, material.names, material.pictures, maps=maps, notes=notes)


def _draw_maps(
    source: ReportSource, run: Path, recipe: Recipe, mistakes: list[Mistake]
) -> dict[tuple[str, str], tuple[int | None, float]]:
    pictures = source.material.pictures
    pairs = list[tuple[str, str]]()
    for mistake in mistakes:
        for near in mistake.nearest[:1]:
            pairs += [(mistake.image_id, near.image_id), (near.image_id, mistake.image_id)]
        if mistake.right is not None:
            pairs.append((mistake.image_id, mistake.right.image_id))
    try:
        shares = compute_share_maps(run, recipe, pairs, pictures)
    except ProductrecError as error:
        source.leave_out("Maps of where a similarity comes from", str(error))
        return {}
    return {
        (one, other): (
            pictures.show_drawn(f"{one} {other}", draw_shares(pictures.decode(one), cells)),
            float(cells.sum()),
        )
        for (one, other), cells in shares.items()
        if cells.size > 1  # a backbone that keeps no map has one cell alone
    }


def build_class_section(source: ReportSource) -> Section | None:
    """The hardest and the easiest classes."""
    material, judged = source.material, source.material.judged
    if judged is None:
        return None
    results = list_class_results(judged)
    return build_classes(results, judged.title, material.names, material.get_examples, material.pictures)


def build_category_section(source: ReportSource) -> Section | None:
    """Results by category, where there is a tree."""
    material, judged = source.material, source.material.judged
    if judged is None:
        return None
    wrong = np.flatnonzero(judged.is_wrong)
    confused = Counter(zip(judged.labels[wrong].tolist(), judged.best[wrong].tolist(), strict=True))
    root = build_category_results(list_class_results(judged), material.paths, confused)
    if root is None:
        source.leave_out("Results by category", "the image table has no tree of categories.")
        return None
    return build_categories(root, judged.title)
