"""Benchmark of thresholds for matches: fitted among few images, used among many.

Products are directions, images of them lie around with noise, and of a product there are 2 to 50 images, mostly few. A
threshold is fitted on a few labelled products in four ways: among their own images alone; among these and training
images, as many as the test pool has in all; among a part of these, a mistake counting as often as such an image is in
the test pool; and, for comparison, on the test pool's own labels, which nobody has. Printed: the threshold, the mean F1
that the fit tells of, and the mean F1 on the test pool, over several draws with their standard error.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from sections.figures import describe_machine

from productrec.metrics.matches import count_group_sizes, score_matches
from productrec.recognition.matching import MatchRule, Neighbourhood, fit_threshold, list_matches
from productrec.retrieval.engine import search_rows

_MOST = 50
_STEEPNESS = 0.5


def main() -> None:
    """Draw, fit in four ways, judge on the test pool, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validation", type=int, default=300, help="labelled products that a fit is judged by")
    parser.add_argument("--test", type=int, default=6000, help="products of the test pool")
    parser.add_argument("--dim", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0.6)
    parser.add_argument(
        "--tighter", type=float, default=1.0, help="noise of training images, as a share of the others'"
    )
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    print(f"command: python benchmarks/matches.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}", flush=True)
    told: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(options.draws):
        for name, figures in _play(options, np.random.default_rng(seed)).items():
            told.setdefault(name, []).append(figures)
    print("\n| fitted among | threshold | F1 told | F1 of the test pool |\n|---|---|---|---|")
    for name, each in told.items():
        means = np.mean(each, axis=0)
        error = np.std(each, axis=0, ddof=1)[2] / np.sqrt(len(each)) if len(each) > 1 else np.nan
        print(f"| {name} | {means[0]:.3f} | {100 * means[1]:.1f} % | {100 * means[2]:.1f} % (± {100 * error:.1f}) |")


def _play(options: argparse.Namespace, generator: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    test, test_labels = _draw(generator, options.test, options.dim, options.noise)
    near_test = _search(test)
    validation, labels = _draw(generator, options.validation, options.dim, options.noise)
    train, train_labels = _draw(generator, options.test, options.dim, options.tighter * options.noise)
    figures = {}
    for name, extra in (
        ("the validation images alone", 0),
        ("the same, mistakes weighed", 0),
        ("a third of the test pool's number, mistakes weighed", len(test) // 3 - len(validation)),
        ("as many as the test pool", len(test) - len(validation)),
    ):
        drawn = generator.permutation(len(train))[:extra]
        pool = np.concatenate([validation, train[drawn]])
        pool_labels = np.concatenate([labels, len(labels) + train_labels[drawn]])
        weight = (len(test) - 1) / (len(pool) - 1) if "weighed" in name else 1.0
        figures[name] = _fit(_search(pool), pool_labels, len(validation), weight, near_test, test_labels)
    figures["the test pool itself"] = _fit(near_test, test_labels, len(test), 1.0, near_test, test_labels)
    return figures


def _draw(generator: np.random.Generator, products: int, dim: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, D) float32, unit rows, and their products (N,)."""
    sizes = np.minimum(_MOST, 1 + generator.geometric(_STEEPNESS, products))
    labels = np.repeat(np.arange(products), sizes)
    centres = generator.normal(size=(products, dim))
    rows = centres[labels] + noise * generator.normal(size=(len(labels), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def _search(rows: np.ndarray) -> Neighbourhood:
    return Neighbourhood(*search_rows(rows, rows, _MOST - 1, own_rows=np.arange(len(rows))))


def _fit(
    near: Neighbourhood,
    labels: np.ndarray,
    judged: int,
    weight: float,
    near_test: Neighbourhood,
    test_labels: np.ndarray,
) -> tuple[float, float, float]:
    """Threshold, the F1 that its fit tells of, and that of the test pool."""
    is_match = labels[near.rows[:judged]] == labels[:judged, None]
    fitted = fit_threshold(near.similarities[:judged], is_match, count_group_sizes(labels)[:judged], weight=weight)
    f1 = score_matches(list_matches(near_test, MatchRule(fitted.threshold)), test_labels)
    return fitted.threshold, fitted.f1, float(f1.mean())


if __name__ == "__main__":
    main()
