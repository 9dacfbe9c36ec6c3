"""What each way to blend the models of drawn competitions is worth on hidden labels, beside the best model.

Each FOLDER is one of `productrec demo`. Its members' predictions are blended as `productrec ensemble` does: every way
fitted on the validation images, and the one that stands by nested validation. Figures are of the hidden test labels:
top-1 accuracy less that of the member that is best there, which nobody can know before.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from productrec.assembly.evidence import get_labels
from productrec.class_order import ClassOrder
from productrec.data.table import load_table
from productrec.ensembling.blend import blend_block
from productrec.ensembling.choosing import WAY_TITLES, choose_blend
from productrec.metrics.answers import Answers, summarise
from productrec.recognition.objective import Objective
from productrec.recognition.probabilities import load_probabilities

_STANDS = "what stands"
_ERRORS = "fewest errors in nested validation"


def main() -> None:
    """Blend and judge, a line a folder, then the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--views", help="preset of the predictions; default the one beside plain")
    options = parser.parse_args()
    objective = Objective("top_k_error", 3)
    gains: dict[str, list[tuple[float, float, float]]] = {}
    print(f"command: python benchmarks/ensembles.py {' '.join(sys.argv[1:])}\n")
    for folder in options.folders:
        members = _find_members(folder, options.views)
        fitted, labels, asked, truth = _load(folder, members)
        chosen = choose_blend(fitted, labels, objective)
        alone = [summarise(part, truth) for part in asked]
        best, least = max(_accuracy(one) for one in alone), min(_error(one) for one in alone)
        judged = {name: summarise(blend_block(asked, trial.blend), truth) for name, trial in chosen.trials.items()}
        fewest = min(chosen.trials, key=lambda name: objective.judge(chosen.trials[name].answers))
        ways = {WAY_TITLES[name]: one for name, one in judged.items()}
        ways |= {_STANDS: judged[chosen.way], _ERRORS: judged[fewest]}
        for name, one in ways.items():
            told = (_accuracy(one) - best, least - _error(one), float(one.log_loss.mean()))
            gains.setdefault(name, []).append(told)
        shown = ", ".join(
            f"{path.parents[1].name} {_accuracy(one):.1f}" for path, one in zip(members, alone, strict=True)
        )
        stands = f"{WAY_TITLES[chosen.way]} {_accuracy(judged[chosen.way]):.1f}"
        mean = float(np.mean([_accuracy(one) for one in alone]))
        print(
            f"{folder.name}: {shown}; {stands} ({_accuracy(judged[chosen.way]) - mean:+.1f} over their mean)",
            flush=True,
        )
    print(f"\n| way, {len(options.folders)} competitions | top-1 over the best model | below it | top-3 error | loss |")
    print("|---|---|---|---|---|")
    for name, rows in gains.items():
        top, error, loss = (np.array([row[place] for row in rows]) for place in range(3))
        spread = top.std(ddof=1) / len(top) ** 0.5 if len(top) > 1 else 0.0
        below = int((top < -1e-9).sum())
        print(
            f"| {name} | {top.mean():+.2f} (se {spread:.2f}) | {below} of {len(top)} | {error.mean():+.2f} "
            f"| {loss.mean():.3f} |"
        )


def _find_members(folder: Path, views: str | None) -> list[Path]:
    found = []
    for member in sorted(path for path in (folder / "runs" / "demo").iterdir() if (path / "checkpoints").is_dir()):
        presets = sorted(path.name for path in (member / "predictions").iterdir() if path.name != "plain")
        found.append(member / "predictions" / (views or presets[0]))
    return found


def _load(folder: Path, members: Sequence[Path]) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray], np.ndarray]:
    """Probabilities and class positions of validation images, and of test images by their hidden labels."""
    table = load_table(folder / "table")
    with (folder / "competition" / "hidden" / "test_labels.csv").open(newline="", encoding="utf-8") as file:
        hidden = {image_id: int(label) for image_id, label in list(csv.reader(file))[1:]}
    known = [load_probabilities(member / "val") for member in members]
    asked = [load_probabilities(member / "test") for member in members]
    order = ClassOrder(known[0].class_ids)
    return (
        [np.array(one.values) for one in known],
        order.positions_of(get_labels(table, known[0].ids)),
        [np.array(one.values) for one in asked],
        order.positions_of(np.array([hidden[image_id] for image_id in asked[0].ids])),
    )


def _accuracy(answers: Answers) -> float:
    return 100 * float((answers.ranks == 0).mean())


def _error(answers: Answers) -> float:
    return 100 * float((answers.ranks >= 3).mean())


if __name__ == "__main__":
    main()
