"""Re-ranked evidence: new lists become new votes, and new embeddings new prototypes; what is kept is read again."""

import json

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.recognition.classifier import Classifier, Evidence
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.recognition.reranked import KeptReranking, build_kept, build_reranker
from productrec.recognition.vote import Vote
from productrec.retrieval.reranking.first_search import search_first
from productrec.retrieval.reranking.methods.label_aware import LabelAware
from productrec.retrieval.reranking.methods.whitening import Whitening
from tests.unit.retrieval.reranking.drawn import draw_clustered

CLASSES = 12


def build(k=6):
    values, labels = draw_clustered(132, CLASSES, 1.0, dim=16)
    gallery, positions = values[12:], labels[12:]
    prototypes = build_prototypes(gallery, positions, CLASSES)
    first = search_first(values[:12], gallery, k=k, labels=positions)
    logits = np.zeros((12, CLASSES), np.float32)
    near = compare_prototypes(first.queries, prototypes)
    return first, prototypes, Evidence(logits, positions[first.lists.rows], first.lists.similarities, near)


@pytest.mark.parametrize("method", [Whitening(dimensions=5), LabelAware(weight=2.0)])
def test_votes_are_of_the_new_lists_and_prototypes_of_the_new_embeddings(method):
    first, prototypes, evidence = build()
    reranker = build_reranker(method, first.gallery, first.labels, prototypes, None, depth=6)
    seen = reranker.rerank(evidence, first.queries, first.lists.rows)
    lists = method.rerank(first)
    assert seen.classes.tolist() == first.labels[lists.rows].tolist()
    np.testing.assert_allclose(seen.similarities, lists.similarities, atol=1e-6)
    if isinstance(method, Whitening):
        queries, gallery = method.expand(first)
        expected = compare_prototypes(queries, build_prototypes(gallery, first.labels, CLASSES))
        np.testing.assert_allclose(seen.prototypes, expected, atol=1e-5)
    else:
        np.testing.assert_allclose(seen.prototypes, evidence.prototypes, atol=1e-6)
    assert seen.logits is evidence.logits


def test_a_deeper_search_changes_nothing_beyond_the_depth_that_was_fitted():
    first, prototypes, evidence = build(k=20)
    reranker = build_reranker(LabelAware(k=20), first.gallery, first.labels, prototypes, None, depth=5)
    deep = reranker.rerank(evidence, first.queries, first.lists.rows)
    shallow = reranker.rerank(
        Evidence(evidence.logits, evidence.classes[:, :5], evidence.similarities[:, :5]),
        first.queries,
        first.lists.rows[:, :5],
    )
    assert deep.classes.shape == (12, 5) and deep.classes.tolist() == shallow.classes.tolist()


def test_grown_classes_have_prototypes_of_their_rows_alone():
    first, prototypes, _ = build()
    reranker = build_reranker(
        Whitening(), first.gallery, first.labels, prototypes, [0] * 6 + [1] * 4, depth=6, grown_count=2
    )
    gallery = Whitening().expand(first)[1]
    own = np.where(first.labels < 10, first.labels, -1)
    np.testing.assert_allclose(
        reranker.prototypes[:10], build_prototypes(gallery, own, 10, categories=[0] * 6 + [1] * 4), atol=1e-5
    )
    plain = build_prototypes(gallery, first.labels, CLASSES, shrinkage=0.0)
    np.testing.assert_allclose(reranker.prototypes[10:], plain[10:], atol=1e-5)


def test_what_is_kept_is_read_as_it_was():
    kept = KeptReranking(Whitening(dimensions=7), Classifier(Vote(3), weights={"vote": 1.0}), 50)
    assert build_kept(json.loads(json.dumps(kept.describe()))) == kept
    assert kept.tell() == "vote of 3 neighbours alone, re-ranked by whitening(dimensions=7)"


@pytest.mark.parametrize("method", [{"name": "whitenning"}, {"name": "whitening", "depth": 3}, {}])
def test_a_method_that_is_not_there_is_refused_by_name(method):
    kept = KeptReranking(Whitening(), Classifier(), 50).describe() | {"method": method}
    with pytest.raises(ArtifactError, match="classifier: its re-ranking"):
        build_kept(kept)
