"""A comparison as a person reads it: tables, a sentence of what it comes to, pictures; or as one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from productrec.console import print_table, say
from productrec.metrics.paired import Paired
from productrec.metrics.wilson import compute_wilson_interval
from productrec.pipeline.select import check_run
from productrec.stages.compare import Comparison, run_compare

if TYPE_CHECKING:
    from productrec.plots.files import Kind

_LONGEST = 40  # letters of a value of a setting


def compare_targets(first: Path, second: Path, *, split: str | None, views: str | None, draws: int) -> Comparison:
    """Compare what two names on the command line stand for; arguments and errors as for `run_compare`.

    Raises:
        RecipeError: there is no such folder; the nearest runs are named.
    """
    for target in (first, second):
        if not target.exists():
            check_run(target)
    return run_compare(first, second, split=split, views=views, draws=draws)


def print_comparison(comparison: Comparison, *, shown: int) -> None:
    """Print the figures of both, what the difference comes to, and the first ``shown`` of each list."""
    first, second = comparison.names
    paired = comparison.paired
    print_table(
        f"{comparison.split}, answered by both: {paired.count:,}",
        ("", f"{first} %", f"{second} %", "difference", "95 % interval"),
        [
            (
                f"{one.title} (less is better)" if one.lower_is_better else one.title,
                f"{100 * one.first:.1f}",
                f"{100 * one.second:.1f}",
                f"{100 * one.difference:+.1f}",
                f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
            )
            for one in paired.figures
        ],
    )
    for note in comparison.notes:
        say(note)
    say(tell_counts(paired, first, second))
    print_classes(comparison, shown)
    images = [
        (
            image.image_id,
            image.change,
            image.truth_name,
            f"{image.first_name} {100 * image.first_probability:.0f} %",
            f"{image.second_name} {100 * image.second_probability:.0f} %",
        )
        for image in comparison.images[:shown]
    ]
    if images:
        title = f"images with another answer: {len(comparison.images):,}{_tell_first(shown, len(comparison.images))}"
        print_table(title, ("image", "", "class", first, second), images)
    settings = [(one.key, _shorten(one.first), _shorten(one.second)) for one in comparison.settings]
    if settings:
        print_table("what differs", ("", first, second), settings)
    else:
        say("No setting and no version differs.")


def print_classes(comparison: Comparison, shown: int) -> None:
    """Print the classes that lost most and those that gained most."""
    first, second = comparison.names
    worse = [one for one in comparison.classes if one.gained < one.lost][:shown]
    better = [one for one in reversed(comparison.classes) if one.gained > one.lost][:shown]
    columns = ("class", "images", f"only {second} right", f"only {first} right")
    for how, classes in (("worse", worse), ("better", better)):
        if classes:
            rows = [(one.name, f"{one.images:,}", f"{one.gained:,}", f"{one.lost:,}") for one in classes]
            print_table(f"classes that {second} knows {how} than {first}", columns, rows)


def tell_counts(paired: Paired, first: str, second: str) -> str:
    """What became right and wrong, and whether that may be chance, in words."""
    moved = paired.only_first + paired.only_second
    told = (
        f"Both right {paired.both:,}, both wrong {paired.neither:,}, only {second} right {paired.only_second:,} "
        f"(wrong to right), only {first} right {paired.only_first:,} (right to wrong)."
    )
    if not moved:
        return f"{told} Neither is better."
    likely = "hardly by chance" if paired.chance < 0.05 else "it may well be chance"
    return f"{told} As uneven a split of {moved:,} comes by chance {100 * paired.chance:.3g} times in 100: {likely}."


def print_json(comparison: Comparison) -> None:
    """Print the comparison as one JSON object."""
    print(json.dumps(comparison.describe(), indent=2))


def draw_comparison(comparison: Comparison, folder: Path, *, kind: Kind) -> list[Path]:
    """Draw both models' accuracies, the gains and losses by class, and both calibrations into a folder."""
    from productrec.plots.calibration import draw_calibration
    from productrec.plots.files import write_plots
    from productrec.plots.gains import draw_gains
    from productrec.plots.staircase import draw_staircase

    first, second = comparison.names
    count, top_1 = comparison.paired.count, comparison.paired.figures[0]
    parts = []
    for name, share in ((first, top_1.first), (second, top_1.second)):
        low, high = compute_wilson_interval(share, count)
        parts.append((name, 100 * share, 100 * low, 100 * high))
    figures = {
        "accuracy": draw_staircase(parts, f"{top_1.title} %"),
        "calibration": draw_calibration(dict(zip(comparison.names, comparison.reliability, strict=True))),
    }
    if comparison.classes:
        classes = [(one.name, one.gained, one.lost) for one in comparison.classes]
        figures["gains"] = draw_gains(classes, first=first, second=second)
    return write_plots(figures, folder, kind=kind)


def _tell_first(shown: int, count: int) -> str:
    return f", the first {shown:,}" if shown < count else ""


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
