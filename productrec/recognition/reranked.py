"""Re-ranked evidence: what is known of queries once a re-ranking has searched or ordered their neighbours anew."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from productrec.errors import ArtifactError
from productrec.recognition.classifier import Classifier, Evidence, build_classifier, compute_parts
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.retrieval.reranking.catalogue import list_rerankings
from productrec.retrieval.reranking.declared import Expansion, Reranking
from productrec.retrieval.reranking.first_search import NeighbourLists
from productrec.retrieval.reranking.ready import ReadyReranking, prepare_reranking
from productrec.settings.choices import read_choice


@dataclass(frozen=True)
class KeptReranking:
    """A re-ranking that gained: the method, the classifier that was fitted on its lists, and how deep these are."""

    method: Reranking
    classifier: Classifier
    depth: int

    def ask(self, names: Container[str]) -> KeptReranking:
        """The same with those of its classifier's further voters that are named; see `Classifier.ask`."""
        return replace(self, classifier=self.classifier.ask(names))

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "method": self.method.model_dump(mode="json"),
            "classifier": self.classifier.describe(),
            "depth": self.depth,
        }

    def tell(self) -> str:
        """In words."""
        return f"{self.classifier.tell()}, re-ranked by {self.method.tell()}"


def build_kept(values: Mapping[str, Any]) -> KeptReranking:
    """What `KeptReranking.describe` gave, as it was.

    Raises:
        ArtifactError: there is no such method, or it has no such settings.
    """
    methods = list_rerankings()
    try:
        method = read_choice(values["method"], methods.get, methods, default="")
    except ValueError as error:
        raise ArtifactError(f"classifier: its re-ranking {error} Predict with the run again.") from None
    return KeptReranking(method, build_classifier(values["classifier"]), int(values["depth"]))


@dataclass(frozen=True)
class Reranker:
    """A re-ranking ready for a gallery whose rows are of known classes.

    ``labels`` (M,): class position of each gallery row, -1 where it is none; ``prototypes`` (C, D): of the gallery as
    the method leaves it; ``depth``: neighbours of each query that it starts from.
    """

    ready: ReadyReranking
    labels: np.ndarray
    prototypes: np.ndarray
    depth: int

    def rerank(self, evidence: Evidence, embeddings: np.ndarray, rows: np.ndarray) -> Evidence:
        """The evidence of Q queries with their neighbours re-ranked, and with prototypes of the new embeddings.

        Args:
            evidence: of the first search.
            embeddings: (Q, D) of the queries, unit rows.
            rows: (Q, K) gallery rows that the first search found, those of ``evidence.similarities``.
        """
        first = NeighbourLists(
            np.asarray(rows[:, : self.depth], dtype=np.int64), np.asarray(evidence.similarities[:, : self.depth])
        )
        lists, queries = self.ready.rerank(embeddings, first)
        return replace(
            evidence,
            classes=self.labels[lists.rows],
            similarities=lists.similarities,
            prototypes=compare_prototypes(queries, self.prototypes),
        )


def build_reranker(
    method: Reranking,
    gallery: np.ndarray,
    labels: np.ndarray,
    prototypes: np.ndarray,
    categories: Sequence[int] | None,
    *,
    depth: int,
    grown_count: int = 0,
) -> Reranker:
    """Make a method ready for a gallery.

    Args:
        method: an expansion brings prototypes of its own, any other leaves these as they are.
        gallery: (M, D) float32, unit rows.
        labels: (M,) class position of each row, -1 where it is none.
        prototypes: (C, D) of the gallery as it is.
        categories: of the classes but those that were grown; None where all are of one.
        depth: neighbours of each query.
        grown_count: the last of the C classes, that the classifier was not fitted with.

    Raises:
        ArtifactError: see `prepare_reranking`.
    """
    ready = prepare_reranking(method, gallery, labels)
    if isinstance(method, Expansion):
        new, known_count = ready.new_gallery, len(prototypes) - grown_count
        is_known = np.asarray(labels) < known_count
        known = build_prototypes(new, np.where(is_known, labels, -1), known_count, categories=categories)
        grown = build_prototypes(new, np.where(is_known, -1, labels - known_count), grown_count, shrinkage=0.0)
        prototypes = np.concatenate([known, grown.reshape(grown_count, new.shape[1])])
    return Reranker(ready, np.asarray(labels, dtype=np.int64), prototypes, depth)


def answer_reranked(evidence: Evidence, kept: KeptReranking) -> np.ndarray:
    """Class probabilities (Q, C) float32 by a kept re-ranking's classifier, of evidence that is re-ranked."""
    return compute_parts(evidence, kept.classifier).fused
