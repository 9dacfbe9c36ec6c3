"""Metrics against scikit-learn and pytorch-metric-learning, on random sets without ties."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as library

from productrec.metrics.classification import compute_balanced_accuracy, compute_macro_f1, compute_top_k_error
from productrec.metrics.clustering import cluster_embeddings, compute_clustering
from productrec.metrics.retrieval import compute_retrieval


def draw_set(seed: int, rows: int = 120, classes: int = 12, columns: int = 16) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    labels[0] = 1000  # alone in its class
    centres = generator.standard_normal((classes + 1, columns))
    embeddings = 1.2 * generator.standard_normal((rows, columns)) + centres[np.minimum(labels, classes)]
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("has_gallery", [False, True])
def test_retrieval_equals_pytorch_metric_learning(seed: int, has_gallery: bool) -> None:
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    torch = pytest.importorskip("torch")
    rows, labels = draw_set(seed)

    def search(query, k, reference, same):
        similarities = query.double() @ reference.double().T
        if same:
            similarities.fill_diagonal_(-torch.inf)
        return similarities.topk(k)

    def cluster(query, count):
        return torch.from_numpy(cluster_embeddings(query.numpy(), count))

    theirs = calculator.AccuracyCalculator(device=torch.device("cpu"), knn_func=search, kmeans_func=cluster)
    queries, asked = (rows[:50], labels[:50]) if has_gallery else (rows, labels)
    gallery = (rows[50:], labels[50:]) if has_gallery else (None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.get_accuracy(queries, asked, *gallery)
    found = compute_retrieval(queries, asked, *gallery, precision_cutoffs=(200,))
    assert found.without_positives >= 1  # which both leave out of the means
    figures = found.measure() | compute_clustering(asked, cluster_embeddings(queries, len(np.unique(asked))))
    names = {
        "recall@1": "precision_at_1",
        "r_precision": "r_precision",
        "map@r": "mean_average_precision_at_r",
        "map@200": "mean_average_precision",  # a K above the gallery: the whole ranking
        "mrr": "mean_reciprocal_rank",
        "nmi": "NMI",
        "ami": "AMI",
    }
    assert {name: figures[name] for name in names} == pytest.approx(
        {name: expected[theirs] for name, theirs in names.items()}, abs=1e-6
    )


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_scikit_learn(seed: int) -> None:
    rows, labels = draw_set(seed)
    found = compute_retrieval(rows[:40], labels[:40], rows[40:], labels[40:], precision_cutoffs=(1000,))
    similarities = rows[:40].astype(np.float64) @ rows[40:].astype(np.float64).T
    for query in np.flatnonzero(found.positives):
        expected = library.average_precision_score(labels[40:] == labels[query], similarities[query])
        assert found.average_precisions_at_k[1000][query] == pytest.approx(expected, abs=1e-6)
    right = labels[40:][similarities.argmax(axis=1)] == labels[:40]
    pooled = library.average_precision_score(right, similarities.max(axis=1))  # over hits, where GAP is over queries
    assert found.measure()["gap"] == pytest.approx(pooled * right.sum() / (found.positives > 0).sum(), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_classification_equals_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.random((200, 7))
    labels = generator.integers(0, 6, 200)  # class 6 is predicted alone
    predicted = scores.argmax(axis=1)
    times = generator.integers(0, 4, 200).astype(np.float64)
    many = np.repeat(np.arange(200), times.astype(int))
    for weights, rows in ((None, np.arange(200)), (times, many)):
        assert compute_macro_f1(labels, predicted, weights) == pytest.approx(
            library.f1_score(labels[rows], predicted[rows], average="macro", zero_division=0), abs=1e-12
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of class 6
            expected = library.balanced_accuracy_score(labels[rows], predicted[rows])
        assert compute_balanced_accuracy(labels, predicted, weights) == pytest.approx(expected, abs=1e-12)
    for k in (1, 3, 5):
        expected = library.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(7))
        assert compute_top_k_error(scores, np.arange(7), labels, k) == pytest.approx(1 - expected, abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "classes", "clusters"), [(60, 5, 9), (300, 100, 80), (40, 40, 3), (40, 1, 4), (9, 9, 9)]
)
def test_clustering_equals_scikit_learn(rows: int, classes: int, clusters: int) -> None:
    generator = np.random.default_rng(rows)
    labels, found = (generator.permutation(np.arange(rows) % count) for count in (classes, clusters))
    for predicted in (found, labels):
        seen = compute_clustering(labels, predicted)
        assert seen["nmi"] == pytest.approx(library.normalized_mutual_info_score(labels, predicted), abs=1e-9)
        assert seen["ami"] == pytest.approx(library.adjusted_mutual_info_score(labels, predicted), abs=1e-9)
