"""Whether a proxy loss's learned centres add anything to head, vote and class prototypes, on hidden labels.

Each RUN is a member of a drawn competition's run, trained with a proxy loss and predicted: its classifier's parts
and the similarity to its centres (relaxed over those of a class, as in SoftTriple) are fitted on the validation images
and judged on the test images, whose hidden labels lie in COMPETITION/hidden/test_labels.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch

from productrec.assembly.evidence import SplitEvidence, get_labels, load_evidence
from productrec.class_order import ClassOrder
from productrec.data.table import load_table
from productrec.losses.centres.merging import Prototypes, compute_prototype_similarities, merge_centres
from productrec.recognition.classifier import compute_parts
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.objective import Objective
from productrec.recognition.vote import compute_softmax
from productrec.recognition.weights import combine, fit_product
from productrec.training.run.checkpoint import load_checkpoint

_SCALES = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
_GAMMA = 0.1  # SoftTriple's
_WAYS = {
    "head, vote, prototypes": ("head", "vote", "prototypes"),
    "and centres": ("head", "vote", "prototypes", "centres"),
    "centres in place of prototypes": ("head", "vote", "centres"),
}


def main() -> None:
    """Fit, judge, print a line a run and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="FOLDER/runs/NAME/MEMBER of a demo's FOLDER")
    options = parser.parse_args()
    print(f"command: python benchmarks/centre_prototypes.py {' '.join(sys.argv[1:])}\n")
    print(f"| run | centres alone | {' | '.join(_WAYS)} |")
    print("|---" * (len(_WAYS) + 2) + "|")
    seen = []
    for run in options.runs:
        seen.append(_measure(run.absolute()))
        print(f"| {run} | {' | '.join(_tell(*one) for one in seen[-1])} |", flush=True)
    means = np.array(seen).mean(axis=0)
    print(f"| mean | {' | '.join(_tell(*one) for one in means)} |")


def _measure(run: Path) -> list[tuple[float, float]]:
    """Accuracy and log-loss on hidden labels, of centres alone and by each way."""
    home = run.parents[2]
    table, trained = load_table(home / "table"), load_checkpoint(run / "checkpoints" / "best")
    with (home / "competition" / "hidden" / "test_labels.csv").open(newline="", encoding="utf-8") as file:
        hidden = {image_id: int(label) for image_id, label in list(csv.reader(file))[1:]}
    own = trained.match_classes(table)
    class_ids = sorted(own)
    whole = merge_centres(*_split(trained.load_centres()))
    order = torch.tensor([own.index(class_id) for class_id in class_ids])
    centres = Prototypes(whole.centres[order], whole.sizes[order])
    saved = load_classifier(run / "classifier" / "plain")
    told = []
    for split in ("val", "test"):
        images = load_evidence(run, table, "plain", split, class_ids, saved.prototypes, saved.categories)
        assert images is not None
        labels = get_labels(table, images.ids) if split == "val" else np.array([hidden[name] for name in images.ids])
        parts = compute_parts(images.take(slice(None)), saved.classifier)._asdict()
        told.append((parts, _compare(images, centres), ClassOrder(class_ids).positions_of(labels)))
    (fitted, near, labels), (asked, near_asked, truth) = told
    scale = min(_SCALES, key=lambda one: _judge(compute_softmax(near, one), labels)[1])
    fitted["centres"], asked["centres"] = compute_softmax(near, scale), compute_softmax(near_asked, scale)
    found = [_judge(asked["centres"], truth)]
    for names in _WAYS.values():
        weights, rule = fit_product([fitted[name] for name in names], labels, Objective("top_k_error", 3))
        found.append(_judge(combine([asked[name] for name in names], weights, rule), truth))
    return found


def _split(held: tuple[torch.Tensor, torch.Tensor | None]) -> tuple[torch.Tensor, float, torch.Tensor | None]:
    return held[0], 0.0, held[1]


def _compare(images: SplitEvidence, centres: Prototypes) -> np.ndarray:
    embeddings = torch.from_numpy(np.array(images.queries.embeddings))
    similarities: np.ndarray = compute_prototype_similarities(embeddings, centres, _GAMMA).numpy()
    return similarities


def _judge(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    given = probabilities[np.arange(len(labels)), labels]
    right = probabilities.argmax(axis=1) == labels
    return float(right.mean()), float(-np.log(np.maximum(given, 1e-30)).mean())


def _tell(accuracy: float, log_loss: float) -> str:
    return f"{100 * accuracy:.1f} ({log_loss:.3f})"


if __name__ == "__main__":
    main()
