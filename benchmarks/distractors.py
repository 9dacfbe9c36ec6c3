"""What images of no product (distractors) are worth for telling photos of products that training never saw.

RUN is a finished run. STRANGERS holds one folder a product with photos of products that are none of the run's; OLD one
folder a class, by its key or name, with photos that the run was not trained on. In each of --draws turns the old photos
are halved; a threshold is fitted on one half, for 1 % false accepts, and judged on the other half and on strangers that
nothing was fitted on. It is fitted without distractors (classes hidden in turn), with photos of other strangers than
those that are asked about, and with other photos of the same ones, some or half of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sections.figures import describe_machine

from productrec.assembly.answering import ReadyRun
from productrec.data.images import FileImages
from productrec.pipeline.asked import prepare_asked
from productrec.recognition.classifier import Evidence, compute_parts
from productrec.recognition.distractors import compare_distractors
from productrec.recognition.open_set import answer_open, believe, choose_threshold
from productrec.recognition.prototypes import compare_prototypes
from productrec.retrieval.embedding_set import EmbeddingSet

_NEIGHBOURS = 50
_FEW = 3  # photos of each stranger


def main() -> None:
    """Embed, then fit and judge in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("strangers", type=Path, metavar="STRANGERS")
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    ready = prepare_asked(options.run, ["train.workers=0"], views="plain")
    assert ready.saved is not None
    strange, products, embeddings = _look(ready, options.strangers)
    known, names, old = _look(ready, options.old)
    keys = ready.known.keys
    labels = np.array([keys.index(name) if name in keys else ready.known.names.index(name) for name in names])
    classes = sorted(set(products))
    generator = np.random.default_rng(0)
    ways: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
        "none": lambda: (np.zeros(len(products), bool), np.ones(len(products), bool)),
        "photos of other strangers": lambda: _part(np.isin(products, generator.permutation(classes)[::2])),
        f"{_FEW} photos of each": lambda: _part(_draw_few(products, generator)),
        "half of the photos": lambda: _part(generator.random(len(products)) < 0.5),
    }
    print(f"command: python benchmarks/distractors.py {' '.join(sys.argv[1:])}")
    print(f"machine: {describe_machine()}")
    print(
        f"{len(known.logits)} photos of {len(set(names))} known classes, {len(products)} of {len(classes)} strangers\n"
    )
    print("| distractors | how many | known photos believed and right, % | strangers believed, % | score, most often |")
    print("|---|---|---|---|---|")
    for name, draw in ways.items():
        rows = []
        for _ in range(options.draws):
            is_shown, is_asked = draw()
            half = generator.permutation(len(labels))
            fitted, judged = half[: len(half) // 2], half[len(half) // 2 :]
            shown, own = np.flatnonzero(is_shown), np.arange(is_shown.sum())
            asked = np.flatnonzero(is_asked)
            far = embeddings[shown]
            seen = [
                _give(known.take(fitted), old[fitted], far, None),
                _give(strange.take(shown), embeddings[shown], far, own),
                _give(known.take(judged), old[judged], far, None),
                _give(strange.take(asked), embeddings[asked], far, None),
            ]
            apart = seen[1] if len(shown) else None
            answers = answer_open(seen[0], labels[fitted], ready.saved.classifier, apart)
            assert answers is not None
            threshold = choose_threshold(answers)
            told = [compute_parts(one, ready.saved.classifier).fused for one in seen[2:]]
            believed = [believe(one, fused, threshold) for one, fused in zip(seen[2:], told, strict=True)]
            right = told[0].argmax(axis=1) == labels[judged]
            rows.append((len(shown), (believed[0] & right).mean(), believed[1].mean(), threshold.score))
        count, true, false = (np.array([row[place] for row in rows], dtype=float) for place in range(3))
        scores = [row[3] for row in rows]
        print(
            f"| {name} | {count.mean():.0f} | {_tell(true)} | {_tell(false)} | {max(set(scores), key=scores.count)} |",
            flush=True,
        )


def _look(ready: ReadyRun, folder: Path) -> tuple[Evidence, np.ndarray, np.ndarray]:
    """What a run knows of the photos in class folders, the folder of each, and their embeddings."""
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    seen = list(ready.network.go_through(FileImages([str(path) for path in files]), batch_size=ready.batch_size))
    rows = np.concatenate([one.rows for one in seen]).astype(np.int64)
    embeddings = np.concatenate([one.embeddings for one in seen])
    logits = np.concatenate([one.logits for one in seen])
    assert ready.catalogue is not None and ready.saved is not None
    notes = ready.notes
    names = [files[row].parent.name for row in rows]
    queries = EmbeddingSet(names, embeddings, logits, [], [], notes.weights_digest, {}, "", notes.side_px)
    found, similarities = ready.catalogue.search(queries, _NEIGHBOURS)
    near = compare_prototypes(embeddings, ready.known.prototypes)
    classes = ready.known.positions[ready.catalogue.get_classes(found)]
    return Evidence(logits, classes, similarities, near), np.array(names), embeddings


def _give(evidence: Evidence, embeddings: np.ndarray, distractors: np.ndarray, own: np.ndarray | None) -> Evidence:
    """The evidence beside distractors; without them as it is."""
    if not len(distractors):
        return evidence
    far = compare_distractors(embeddings, distractors, own)
    return Evidence(evidence.logits, evidence.classes, evidence.similarities, evidence.prototypes, None, far)


def _part(is_shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return is_shown, ~is_shown


def _draw_few(products: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    is_shown = np.zeros(len(products), bool)
    for product in np.unique(products):
        is_shown[generator.permutation(np.flatnonzero(products == product))[:_FEW]] = True
    return is_shown


def _tell(shares: np.ndarray) -> str:
    return f"{100 * shares.mean():.1f} (sd {100 * shares.std(ddof=1):.1f})"


if __name__ == "__main__":
    main()
