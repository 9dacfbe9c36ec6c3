"""Report: what a run, or an ensemble of runs, sees and where it fails becomes one page that opens from disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from productrec.artifacts import write_text
from productrec.assembly.report_failure_sections import (
    build_category_section,
    build_class_section,
    build_confusion_section,
    build_mistake_section,
)
from productrec.assembly.report_label_sections import (
    build_answer_section,
    build_duplicate_section,
    build_map_section,
    build_provenance_section,
    build_suspect_section,
)
from productrec.assembly.report_material import Material, gather_material
from productrec.assembly.report_other_sections import (
    build_match_section,
    build_retrieval_section,
    build_title_section,
)
from productrec.assembly.report_score_sections import (
    build_calibration_section,
    build_curve_section,
    build_open_set_section,
    build_score_section,
)
from productrec.assembly.report_source import ReportSource
from productrec.console import say
from productrec.errors import ArtifactError, DataError
from productrec.plots.files import Kind, write_plots
from productrec.recipe import Recipe
from productrec.reporting.page import Section, render_page
from productrec.reporting.places import shorten_paths
from productrec.reporting.provenance import build_missing
from productrec.reporting.thumbnails import Thumbnails

NAME = "report.html"
PICTURES_BYTES = 24 << 20  # of all pictures; the whole page stays below 40 MB with 100,000 answers
_TOLD_FROM = 0.0005  # a difference of accuracies that shows
SIDE_PX, QUALITY = 112, 70
_SECTIONS: dict[str, Callable[[ReportSource], Section | None]] = {
    "Scores": build_score_section,
    "Matches": build_match_section,
    "Retrieval": build_retrieval_section,
    "Images and titles": build_title_section,
    "Training curves": build_curve_section,
    "Confidence against accuracy": build_calibration_section,
    "Unknown products": build_open_set_section,
    "Confused pairs": build_confusion_section,
    "Mistakes": build_mistake_section,
    "Hard and easy classes": build_class_section,
    "Results by category": build_category_section,
    "Suspected wrong labels": build_suspect_section,
    "Duplicates and leaks": build_duplicate_section,
    "Map of the classes": build_map_section,
    "All answers": build_answer_section,
    "Recipe, environment and artefacts": build_provenance_section,
}
_OF_CLASS_ANSWERS = (
    "Scores",
    "Confidence against accuracy",
    "Unknown products",
    "Confused pairs",
    "Mistakes",
    "Hard and easy classes",
    "Results by category",
    "All answers",
)
_KEYS = (("\N{RIGHTWARDS ARROW}", "to the next item"), ("\N{LEFTWARDS ARROW}", "to the item before"))


@dataclass(frozen=True)
class Reported:
    """The page that was written, its size in bytes, plots beside it, and what it does not show, in words."""

    path: Path
    bytes: int
    plots: tuple[Path, ...]
    missing: tuple[str, ...]


def run_report(
    folder: Path,
    recipe: Recipe,
    runs: Mapping[Path, Recipe],
    *,
    predictions: Mapping[str, Path],
    without: str,
    ensemble: Path | None,
    audit: Path,
    ingest_command: Sequence[str],
    out: Path | None = None,
    plots: Path | None = None,
    plots_as: Kind = "svg",
) -> Reported:
    """Write the page of a run or of an ensemble; what is not at hand shortens it and is named in it.

    Args:
        folder: of the run or the ensemble.
        recipe: that stands for it.
        runs: run folders of its models with their recipes; the run alone where it is no ensemble.
        predictions: folders of them by split, those of the images to judge by first.
        without: why class answers do not apply to it, in words; empty where they do.
        ensemble: artefact of how the answers of several models became one; None where they did not.
        audit: folder of the findings of its table, where it was audited.
        ingest_command: what makes the table, by words; the page names it.
        out: file to write; None for ``report.html`` in the folder.
        plots: folder to write the plots to as well.
        plots_as: kind of these files.

    Raises:
        StorageError: it cannot be written.
    """
    thumbnails = Thumbnails(side_px=SIDE_PX, quality=QUALITY, most_bytes=PICTURES_BYTES)
    material = gather_material(recipe, predictions, thumbnails, without=without)
    at_hand = {run: own for run, own in runs.items() if (run / "checkpoints").is_dir()}
    source, missing = ReportSource(folder, recipe, at_hand, material, ensemble, audit, ingest_command), material.missing
    if not at_hand:
        missing.append(f"Everything of its models: no trained run of {folder} is at hand.")
    titles = [title for title in _SECTIONS if predictions or not without or title not in _OF_CLASS_ANSWERS]
    sections = [section for title in titles if (section := _build(title, source)) is not None]
    if thumbnails.left_out:
        missing.append(f"{thumbnails.left_out:,} pictures, which would make the page too large.")
    if thumbnails.broken:
        missing.append(f"{thumbnails.broken:,} pictures, whose files cannot be read.")
    missing = [shorten_paths(line) for line in missing]
    if missing:
        sections.append(build_missing(missing))
    page = render_page(
        f"Report of {recipe.name}",
        sections,
        lead=_tell(recipe, material, without),
        thumbnails=thumbnails,
        styles=("report.css",),
        scripts=("report.js",),
        keys=_KEYS,
    )
    path = folder / NAME if out is None else out
    write_text(path, page)
    figures = {name.replace(" ", "_"): figure for name, figure in source.figures.items()}
    drawn = [] if plots is None else write_plots(figures, plots, kind=plots_as)
    return Reported(path, path.stat().st_size, tuple(drawn), tuple(missing))


def _build(title: str, source: ReportSource) -> Section | None:
    """A section, or None where what it needs is missing or damaged, which is then noted."""
    try:
        return _SECTIONS[title](source)
    except (ArtifactError, DataError) as error:
        source.leave_out(title, str(error))
        return None


def report(reported: Reported) -> None:
    """Say where the page is and what it does not show."""
    for line in reported.missing:
        say(f"not shown: {line}")
    if reported.plots:
        say(f"plots: {len(reported.plots)} in {reported.plots[0].parent}")
    say(f"report {reported.path}: {reported.bytes / 1e6:.1f} MB; open it in a browser, it needs nothing else")


def _tell(recipe: Recipe, material: Material, without: str) -> str:
    judged = material.judged
    if judged is None:
        if without and not material.answered:
            return f"Competition {recipe.competition}. Results by class: {without}"
        return f"Competition {recipe.competition}. No labelled image was predicted."
    labelled, right = int(judged.is_labelled.sum()), int(judged.is_right.sum())
    told = f"{right:,} of {labelled:,} {judged.title} are named right, {100 * right / labelled:.1f} %"
    fair = material.fair.get(judged.split)
    if fair is None or abs(fair.top_1_accuracy - right / labelled) < _TOLD_FROM:
        return f"Competition {recipe.competition}: {told}."
    return (
        f"Competition {recipe.competition}: top-1 accuracy {100 * fair.top_1_accuracy:.1f} % on {fair.images:,} "
        f"{judged.title}, each answered by what was fitted on others of them. Mistakes, confusions, classes and "
        f"categories below are of the answers as they stand, fitted on these very images: {told}."
    )
