"""What a prediction is worth, as a person reads it: a line a way to predict, the number of images, an interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from productrec.assembly.evaluation import Evaluation
from productrec.console import print_table, say
from productrec.ensembling.choosing import BEST, WAY_TITLES
from productrec.ensembling.ensemble_file import SavedEnsemble
from productrec.metrics.calibration import Reliability
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.recognition.classifier import PART_TITLES, list_ways, name_way
from productrec.recognition.scores import Scores
from productrec.stages.ensemble import Ensembled
from productrec.stages.evaluate import report as report_evaluation

OTHER_TITLES = {"tta": "with TTA"}
TITLES = PART_TITLES | OTHER_TITLES
_ACCURACY, _ERROR = VALIDATION_FIGURES["top_1_accuracy"], VALIDATION_FIGURES["top_3_error"]


@dataclass(frozen=True)
class Predicted:
    """Where predictions lie (``folder/val`` and ``folder/test``), and their scores by run and way.

    ``test`` scores are of test images whose labels the table holds; ``test_images``: how many test images there are;
    ``retrieval``: by run, of those whose head knows no class of the validation images; ``calibration``: by run, of the
    confidence of the plain view's answers on what its classifier was fitted on, each by what others told.
    """

    folder: Path
    validation: dict[str, dict[str, Scores]]
    test: dict[str, dict[str, Scores]]
    ensembled: Ensembled | None
    test_images: int
    retrieval: dict[str, Evaluation] = field(default_factory=dict)
    calibration: dict[str, Reliability] = field(default_factory=dict)


def print_scores(predicted: Predicted) -> None:
    """Print the scores on validation images, apart from them those on test images, and where the predictions lie."""
    ensembled = predicted.ensembled or Ensembled(None, None)
    _print_ways("validation", predicted.validation, ensembled.validation)
    for name, reliability in predicted.calibration.items():
        say(f"{name}, calibration of the fused answers: {reliability.tell()}")
    for name, evaluation in predicted.retrieval.items():
        report_evaluation(evaluation, name)
    _print_ways("test, labels of the source", predicted.test, ensembled.test)
    if ensembled.saved is not None and ensembled.saved.fitted:
        print_ensemble(ensembled.saved)
    if predicted.test_images:
        say(f"class probabilities: {predicted.folder}")
        return
    say(
        f"class probabilities of validation images: {predicted.folder}. The image table has no test images; a folder "
        "of new photos is classified with --images FOLDER --out new.csv"
    )


def print_score_rows(title: str, rows: Iterable[tuple[str, Scores]]) -> None:
    """Print a table with a line for each named score; nothing where there is none."""
    listed = list(rows)
    if listed:
        counts = sorted({scores.images for _, scores in listed})
        images = f"{' or '.join(f'{count:,}' for count in counts)} image{'s' if counts != [1] else ''}"
        columns = ("", f"{_ACCURACY.title} %", "95 % interval", f"{_name_other(listed[0][1])} %")
        print_table(f"{title}: {images}", columns, [(name, *_format(scores)) for name, scores in listed])


def print_ensemble(saved: SavedEnsemble) -> None:
    """Print what each way to blend was worth on images that it was not fitted on, and what each model brings."""
    fitted = saved.fitted
    on = "training images out of fold" if fitted["on"] == "out of fold" else "validation images"
    rows = []
    for way in sorted(fitted["scores"], key=fitted["log_loss"].__getitem__):
        chance = "" if way == BEST else f"{100 * fitted['chances'][way]:.0f}"
        title = f"{WAY_TITLES.get(way, way)}{' *' if way == fitted['way'] else ''}"
        rows.append((title, *_tell_short(fitted["scores"][way]), f"{fitted['log_loss'][way]:.3f}", chance))
    error = _name_other(Scores(**fitted["scores"][fitted["way"]]))
    columns = ("top-1 %", f"{error} %", "log-loss", "beats best %")
    print_table(f"ways to blend (* stands), each fitted on others of {fitted['images']:,} {on}", ("", *columns), rows)
    weights, diversity = saved.blend.describe(saved.names)["weights"], fitted["diversity"]
    numbers = [str(number) for number in range(1, len(saved.names) + 1)]
    members = [
        (
            f"{number} {title}",
            f"{weights[name]:.3g}",
            *_tell_short(fitted["members"][name]),
            f"{100 * diversity['alone_right'][name]:.1f}",
            *(f"{100 * other:.0f}" for other in diversity["disagreement"][name].values()),
        )
        for number, name, title in zip(numbers, saved.names, _shorten(saved.names), strict=True)
    ]
    named = ("", "weight", *columns[:2], "alone right %", *(f"\N{NOT EQUAL TO} {number} %" for number in numbers))
    print_table("its models, how often each alone is right, and how often it differs from each", named, members)


def _tell_short(values: Mapping[str, Any]) -> tuple[str, str]:
    top_1, _, other = _format(Scores(**values))
    return top_1, other


def _shorten(names: Sequence[str]) -> list[str]:
    """Paths without the folders that all of them have in common, before and behind."""
    parts = [Path(name).parts for name in names]
    while len(parts) > 1 and all(len(one) > 1 for one in parts) and len({one[0] for one in parts}) == 1:
        parts = [one[1:] for one in parts]
    while len(parts) > 1 and all(len(one) > 1 for one in parts) and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    return [str(Path(*one)) for one in parts]


def name_ways(scores: Mapping[str, Scores]) -> list[tuple[str, str]]:
    """The ways to predict of one run in a person's order, each with its title; with its images where not all had it."""
    most = max((one.images for one in scores.values()), default=0)
    named = {way: name_way(way) for way in list_ways(way for way in scores if way not in OTHER_TITLES)}
    named |= {way: title for way, title in OTHER_TITLES.items() if way in scores}
    return [
        (way, title if scores[way].images == most else f"{title} ({scores[way].images:,} images)")
        for way, title in named.items()
    ]


def name_run(predictions: Path) -> Path:
    """The run whose predictions of some views lie in a folder."""
    return predictions.parent.parent


def _print_ways(title: str, scores: Mapping[str, Mapping[str, Scores]], ensembled: Scores | None) -> None:
    rows = [
        (told if len(scores) == 1 else f"{name}: {told}", ways[way])
        for name, ways in scores.items()
        for way, told in name_ways(ways)
    ]
    print_score_rows(title, rows + ([("ensembled", ensembled)] if ensembled is not None else []))


def _name_other(scores: Scores) -> str:
    """What stands beside the top-1 accuracy: the competition's metric, or, where it is that, the top-3 error."""
    return _ERROR.title if scores.metric == "top_1_accuracy" else scores.metric_title


def _format(scores: Scores) -> tuple[str, str, str]:
    low, high = scores.top_1_interval
    other = scores.top_3_error if scores.metric == "top_1_accuracy" else scores.metric_value
    return f"{100 * scores.top_1_accuracy:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", f"{100 * other:.1f}"
