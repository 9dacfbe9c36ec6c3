"""The steps of the staircase: fitted on some images, and how many of others each answers rightly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.metrics.answers import summarise
from productrec.recognition.choosing_reranking import choose_reranking
from productrec.recognition.classifier import Evidence, compute_parts, join_evidence
from productrec.recognition.fitting import Fitted, fit_classifier
from productrec.recognition.objective import Objective
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.recognition.vote import compute_nearest
from productrec.retrieval.engine import search_rows
from productrec.retrieval.reranking.catalogue import list_rerankings
from productrec.retrieval.reranking.declared import Reranking
from productrec.retrieval.reranking.first_search import NeighbourLists
from productrec.retrieval.reranking.ready import prepare_reranking
from sections.kept_evidence import NEIGHBOURS, KeptEvidence

METRIC_K = 3
_OBJECTIVE = Objective("top_k_error", METRIC_K)
_K_GRID = (1, 3, 5, 10, 20, 50)
_POWER_GRID = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True)
class Steps:
    """Ranks (Q,) of the true class by step's name, in the staircase's order, and what the fit came to, in words."""

    ranks: dict[str, np.ndarray]
    told: dict[str, str]


@dataclass(frozen=True)
class Reranked:
    """Ranks (Q,) of the true class with each re-ranking, ``none`` among them, and the one that the fit would keep."""

    ranks: dict[str, np.ndarray]
    kept: str


def climb(whole: KeptEvidence, folds: Sequence[KeptEvidence]) -> Steps:
    """Fit on training images out of fold, answer for images that nothing was fitted on.

    Args:
        whole: what the run of all training images knows of those that are asked about.
        folds: what each fold's run knows of its fold.
    """
    ranks: dict[str, np.ndarray] = {}
    told: dict[str, str] = {}
    labels = np.concatenate([fold.labels for fold in folds])
    for views in whole.views:
        fitted = _fit(join_evidence([fold.build(views) for fold in folds]), labels)
        told[views] = fitted.classifier.tell()
        answered = _answer(fitted, whole.build(views), whole.labels)
        for part, seen in answered.items():
            ranks[part if views == "plain" else f"{views}: {part}"] = seen
    return Steps(ranks, told)


def climb_reranked(whole: KeptEvidence, folds: Sequence[KeptEvidence], views: str) -> Reranked:
    """Fit with each re-ranking in turn; arguments as for `climb`, and the preset of views."""
    labels = np.concatenate([fold.labels for fold in folds])
    before = join_evidence([fold.build(views) for fold in folds])
    stands = _fit(before, labels)
    ranks = {"none": _answer(stands, whole.build(views), whole.labels)["fused"]}
    tried: list[tuple[Reranking, Evidence]] = []
    for name, kind in list_rerankings().items():
        method = kind()
        seen = join_evidence([fold.build(views, method) for fold in folds])
        ranks[name] = _answer(_fit(seen, labels), whole.build(views, method), whole.labels)["fused"]
        if not method.depends_on_queries:  # else not offered: an answer would depend on what else is asked
            tried.append((method, seen))
    grids = {"k_grid": _K_GRID, "power_grid": _POWER_GRID}
    chosen = choose_reranking(stands, tried, labels, _OBJECTIVE, **grids)  # type: ignore[arg-type]
    kept = "none" if chosen.kept is None else chosen.kept.method.get_name()
    return Reranked(ranks, kept)


def climb_unseen(embeddings: np.ndarray, labels: np.ndarray, *, shown: int, seed: int) -> Steps:
    """Classes that training never saw: some pictures of each are the gallery, the others ask.

    Vote, prototypes and their blend are fitted on the gallery, each of whose pictures asks the others.

    Args:
        embeddings: (N, D) unit rows.
        labels: (N,) class positions.
        shown: pictures of each class in the gallery.
        seed: which ones.
    """
    order = np.random.default_rng([seed, shown]).permutation(len(labels))
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = np.arange(len(own))
    gallery, asked = np.flatnonzero(place < shown), np.flatnonzero(place >= shown)
    known = np.unique(labels, return_inverse=True)[1]
    count = int(known.max()) + 1
    around = _leave_one_out(embeddings[gallery], known[gallery], count)
    fitted = _fit(around, known[gallery], parts=("vote", "prototypes"))
    rows, similarities = search_rows(embeddings[asked], embeddings[gallery], NEIGHBOURS)
    near = compare_prototypes(embeddings[asked], build_prototypes(embeddings[gallery], known[gallery], count))
    evidence = Evidence(np.zeros((len(asked), count), np.float32), known[gallery][rows], similarities, near)
    ranks = _answer(fitted, evidence, known[asked])
    del ranks["head"]  # none knows these classes
    ranks |= _rerank_nearest(embeddings[gallery], known[gallery], embeddings[asked], known[asked], count)
    return Steps(ranks, {"plain": fitted.classifier.tell()})


def _rerank_nearest(
    gallery: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """Ranks of the true class by the nearest neighbour after each re-ranking, at its defaults, with nothing fitted."""
    first = NeighbourLists(*search_rows(queries, gallery, NEIGHBOURS))
    ranks = {}
    for name, kind in list_rerankings().items():
        lists, _ = prepare_reranking(kind(), gallery, labels).rerank(queries, first)
        found = compute_nearest(labels[lists.rows], lists.similarities, count)
        ranks[f"nearest, {name.replace('_', ' ')}"] = summarise(found, truth).ranks
    return ranks


def _leave_one_out(gallery: np.ndarray, labels: np.ndarray, count: int) -> Evidence:
    """What the rest of a gallery says of each of its pictures."""
    rows, similarities = search_rows(gallery, gallery, NEIGHBOURS + 1)
    own = rows == np.arange(len(gallery))[:, None]
    own[~own.any(axis=1), -1] = True  # one of several equal pictures
    rows, similarities = rows[~own].reshape(len(rows), -1), similarities[~own].reshape(len(rows), -1)
    near = compare_prototypes(gallery, build_prototypes(gallery, labels, count))
    sums = np.zeros((count, gallery.shape[1]), np.float32)
    np.add.at(sums, labels, gallery)
    rest = sums[labels] - gallery  # of a picture's own class, without it
    length = np.linalg.norm(rest, axis=1)
    near[np.arange(len(labels)), labels] = np.where(
        length > 0, (gallery * rest).sum(axis=1) / np.maximum(length, 1e-12), 0
    )
    return Evidence(np.zeros((len(labels), count), np.float32), labels[rows], similarities, near)


def _fit(evidence: Evidence, labels: np.ndarray, parts: tuple[str, ...] = ("head", "vote", "prototypes")) -> Fitted:
    return fit_classifier(evidence, labels, _OBJECTIVE, k_grid=_K_GRID, power_grid=_POWER_GRID, parts=parts)


def _answer(fitted: Fitted, evidence: Evidence, labels: np.ndarray) -> dict[str, np.ndarray]:
    parts = compute_parts(evidence, fitted.classifier)._asdict()
    return {name: summarise(part, labels).ranks for name, part in parts.items()}
