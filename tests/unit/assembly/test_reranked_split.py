"""A split's images re-ranked: what a fit tries, over folds each with its own gallery, and answers in blocks."""

import numpy as np
import pytest

from productrec.assembly.evidence import SplitEvidence
from productrec.assembly.reranked import Gallery, answer_block, list_candidates, prepare_reranker
from productrec.recognition.classifier import Classifier
from productrec.recognition.prototypes import build_prototypes
from productrec.recognition.reranked import KeptReranking
from productrec.retrieval.embedding_set import EmbeddingSet
from productrec.retrieval.engine import search_rows
from productrec.retrieval.reranking.methods.alpha_query_expansion import AlphaQueryExpansion
from productrec.retrieval.reranking.methods.database_augmentation import DatabaseAugmentation
from productrec.retrieval.reranking.methods.label_aware import LabelAware
from productrec.retrieval.reranking.methods.whitening import Whitening
from tests.unit.retrieval.reranking.drawn import draw_clustered

CLASSES = 6


def build(k=10, queries=20, seed=0, is_labelled=True):
    """A split and the gallery that it was searched in."""
    values, labels = draw_clustered(queries + 60, CLASSES, 1.0, dim=8, seed=seed)
    asked, gallery = values[:queries], values[queries:]
    positions = labels[queries:] if is_labelled else np.full(60, -1)
    rows, similarities = search_rows(asked, gallery, k)
    logits = np.random.default_rng(seed).standard_normal((queries, CLASSES)).astype(np.float32)
    ids = [f"{seed}-{row}" for row in range(queries)]
    embedded = EmbeddingSet(ids, asked, logits, list(range(CLASSES)), ["plain"], "w", {}, "print")
    prototypes = build_prototypes(gallery, positions, CLASSES)
    split = SplitEvidence(ids, embedded, rows, positions[rows], similarities, prototypes, None, {})
    return split, Gallery(gallery, positions)


def test_folds_are_re_ranked_each_in_its_own_gallery_and_as_deep_as_the_shallowest():
    searched = [build(), build(k=7, seed=1, queries=9)]
    ((method, evidence),) = list_candidates([LabelAware(k=20)], searched)
    assert method == LabelAware(k=20) and evidence.classes.shape == (29, 7)
    for (split, gallery), rows in zip(searched, (slice(0, 20), slice(20, 29)), strict=True):
        own = prepare_reranker(method, split, gallery, depth=7)
        seen = own.rerank(split.take(slice(None)), split.queries.embeddings, split.rows)
        np.testing.assert_array_equal(evidence.classes[rows], seen.classes)
        np.testing.assert_allclose(evidence.similarities[rows], seen.similarities, atol=1e-6)
        np.testing.assert_array_equal(evidence.logits[rows], split.queries.logits)


def test_a_method_that_needs_labels_is_left_out_where_there_are_none(capsys):
    searched = [build(), build(seed=1, is_labelled=False)]
    methods = [LabelAware(), AlphaQueryExpansion(), DatabaseAugmentation(same_class=True), Whitening()]
    tried = [method.get_name() for method, _ in list_candidates(methods, searched)]
    assert tried == ["alpha_query_expansion", "whitening"]
    told = capsys.readouterr().err
    assert "label_aware: the gallery's rows must have labels" in told and "same_class" in told
    assert [method for method, _ in list_candidates(methods, searched[:1])] == methods
    assert not list(list_candidates([], searched))


@pytest.mark.parametrize("rows", [slice(3, 8), np.array([0, 19])])
def test_a_block_has_the_answer_with_and_without_what_was_kept(rows):
    split, gallery = build()
    kept = KeptReranking(Whitening(), Classifier(weights={"vote": 1.0}), 10)
    reranker = prepare_reranker(kept.method, split, gallery, depth=10)
    whole = answer_block(split, slice(None), Classifier(), kept, reranker).parts
    part = answer_block(split, rows, Classifier(), kept, reranker).parts
    assert list(part)[-2:] == ["fused", "reranked"]
    for name in part:
        np.testing.assert_allclose(part[name], whole[name][rows], atol=1e-5)
    assert np.abs(whole["fused"] - whole["reranked"]).max() > 0.01
    assert list(answer_block(split, rows, Classifier(), None, None).parts)[-1] == "fused"
