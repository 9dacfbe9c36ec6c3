"""What a prediction is worth, as a person reads it: a line a way to predict, the number of images, an interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from productrec.assembly.evaluation import Evaluation
from productrec.console import print_table, say
from productrec.metrics.calibration import Reliability
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.recognition.classifier import PART_TITLES, PARTS
from productrec.recognition.scores import Scores
from productrec.stages.ensemble import Ensembled
from productrec.stages.evaluate import report as report_evaluation

TITLES = PART_TITLES | {"tta": "with TTA"}
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
    if predicted.test_images:
        say(f"class probabilities: {predicted.folder}")
        return
    say(
        f"class probabilities of validation images: {predicted.folder}. The image table has no test images; to "
        "classify a folder of new photos: "
        f"productrec predict {name_run(predicted.folder)} --images FOLDER --out new.csv"
    )


def print_score_rows(title: str, rows: Iterable[tuple[str, Scores]]) -> None:
    """Print a table with a line for each named score; nothing where there is none."""
    listed = list(rows)
    if listed:
        counts = sorted({scores.images for _, scores in listed})
        images = f"{' or '.join(f'{count:,}' for count in counts)} image{'s' if counts != [1] else ''}"
        columns = ("", f"{_ACCURACY.title} %", "95 % interval", f"{_name_other(listed[0][1])} %")
        print_table(f"{title}: {images}", columns, [(name, *_format(scores)) for name, scores in listed])


def name_run(predictions: Path) -> Path:
    """The run whose predictions of some views lie in a folder."""
    return predictions.parent.parent


def _print_ways(title: str, scores: Mapping[str, Mapping[str, Scores]], ensembled: Scores | None) -> None:
    rows = [
        (TITLES[way] if len(scores) == 1 else f"{name}: {TITLES[way]}", ways[way])
        for name, ways in scores.items()
        for way in (*PARTS, "tta")
        if way in ways
    ]
    print_score_rows(title, rows + ([("ensembled", ensembled)] if ensembled is not None else []))


def _name_other(scores: Scores) -> str:
    """What stands beside the top-1 accuracy: the competition's metric, or, where it is that, the top-3 error."""
    return _ERROR.title if scores.metric == "top_1_accuracy" else scores.metric_title


def _format(scores: Scores) -> tuple[str, str, str]:
    low, high = scores.top_1_interval
    other = scores.top_3_error if scores.metric == "top_1_accuracy" else scores.metric_value
    return f"{100 * scores.top_1_accuracy:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", f"{100 * other:.1f}"
