"""Made ready for a gallery, a method answers block by block, or one query at a time, as it does at once."""

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval.reranking.catalogue import list_rerankings
from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.reranking.first_search import NeighbourLists, search_first
from productrec.retrieval.reranking.methods.database_augmentation import DatabaseAugmentation
from productrec.retrieval.reranking.methods.diffusion import Diffusion
from productrec.retrieval.reranking.methods.neighbourhood_blending import NeighbourhoodBlending
from productrec.retrieval.reranking.ready import prepare_reranking
from tests.unit.retrieval.reranking.drawn import draw, draw_clustered

OTHERS = [
    DatabaseAugmentation(same_class=True),
    Diffusion(k=5, query_k=3, truncate=20),
    NeighbourhoodBlending(threshold=0.3, least_similarity=0.2),
]


def search(k=8):
    values, labels = draw_clustered(150, 15, 1.0, dim=16)
    return search_first(values[:30], values[30:], k=k, labels=labels[30:])


def ask_alone(method, first):
    ready = prepare_reranking(method, first.gallery, first.labels)
    alone = [
        ready.rerank(first.queries[row : row + 1], NeighbourLists(*(part[row : row + 1] for part in first.lists)))
        for row in range(len(first.queries))
    ]
    return NeighbourLists(
        *(np.concatenate([getattr(one.lists, name) for one in alone]) for name in NeighbourLists._fields)
    )


def count_changes(method, first):
    together, alone = method.rerank(first), ask_alone(method, first)
    return int((np.abs(together.similarities - alone.similarities) > 1e-4).sum())


@pytest.mark.parametrize("method", [*(method() for method in list_rerankings().values()), *OTHERS])
def test_an_answer_depends_on_other_queries_only_where_a_method_says_so(method):
    assert (count_changes(method, search()) > 0) == method.depends_on_queries


@pytest.mark.parametrize("method", [*(method() for method in list_rerankings().values()), *OTHERS])
def test_the_gallery_is_prepared_once_and_searched_in_as_the_method_leaves_it(method):
    first = search()
    ready = prepare_reranking(method, first.gallery, first.labels)
    found = ready.rerank(first.queries, first.lists)
    whole = method.rerank(first)
    np.testing.assert_allclose(found.lists.similarities, whole.similarities, atol=1e-6)
    assert (found.lists.rows == whole.rows).mean() > 0.99
    if isinstance(method, Expansion):
        queries, gallery = method.expand(first)
        np.testing.assert_allclose(ready.new_gallery, gallery, atol=1e-6)
        np.testing.assert_allclose(found.queries, queries, atol=1e-6)
        near = np.einsum("qd,qkd->qk", queries, gallery[found.lists.rows])
        np.testing.assert_allclose(found.lists.similarities, near, atol=1e-5)
    else:
        assert ready.new_gallery is first.gallery and found.queries.tolist() == first.queries.tolist()


@pytest.mark.parametrize("name", list(list_rerankings()))
def test_what_no_method_can_start_from_is_refused(name):
    method, first = list_rerankings()[name](), search()
    with pytest.raises(ArtifactError, match=f"{name}: the gallery must hold at least one image"):
        prepare_reranking(method, draw(0), np.zeros(0, np.int64))
    with pytest.raises(ArtifactError, match="gallery: embeddings must be finite"):
        prepare_reranking(method, first.gallery * 2, first.labels)
    ready = prepare_reranking(method, first.gallery, first.labels)
    with pytest.raises(ArtifactError, match="queries: embeddings must be finite"):
        ready.rerank(first.queries * np.float32("nan"), first.lists)
    nothing = NeighbourLists(*(part[:0] for part in first.lists))
    assert ready.rerank(first.queries[:0], nothing).lists.rows.shape == (0, 8)


def test_a_gallery_whose_rows_are_all_of_unknown_class_has_no_labels():
    first = search()
    for name, method in list_rerankings().items():
        unknown = np.full(len(first.gallery), -1)
        if method.needs_labels:
            with pytest.raises(ArtifactError, match=f"{name}: the gallery's rows must have labels"):
                prepare_reranking(method(), first.gallery, unknown)
        else:
            assert prepare_reranking(method(), first.gallery, unknown).labels is None


def test_a_list_is_as_deep_as_the_gallery_where_more_is_asked():
    first = search(k=500)
    for method in (method() for method in list_rerankings().values()):
        found = prepare_reranking(method, first.gallery, first.labels).rerank(
            first.queries[:1], NeighbourLists(*(part[:1] for part in first.lists))
        )
        assert sorted(found.lists.rows[0].tolist()) == list(range(120))
