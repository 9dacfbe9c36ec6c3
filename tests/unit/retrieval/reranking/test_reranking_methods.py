"""Known cases of each re-ranking: where it must change nothing, and where it must help."""

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval.reranking.catalogue import list_rerankings
from productrec.retrieval.reranking.first_search import search_first
from productrec.retrieval.reranking.methods.alpha_query_expansion import AlphaQueryExpansion
from productrec.retrieval.reranking.methods.class_bridged import ClassBridged
from productrec.retrieval.reranking.methods.database_augmentation import DatabaseAugmentation
from productrec.retrieval.reranking.methods.diffusion import Diffusion
from productrec.retrieval.reranking.methods.k_reciprocal import KReciprocal, rerank_k_reciprocal, search_jointly
from productrec.retrieval.reranking.methods.label_aware import LabelAware
from productrec.retrieval.reranking.methods.neighbourhood_blending import NeighbourhoodBlending
from tests.unit.retrieval.reranking.drawn import draw, draw_clustered, draw_curve


def search_drawn(queries=7, rows=60, k=10):
    labels = np.random.default_rng(3).integers(0, 6, rows)
    return search_first(draw(queries, seed=1), draw(rows), k=k, labels=labels)


@pytest.mark.parametrize(
    "method",
    [
        AlphaQueryExpansion(k=0, alpha=0.0),
        DatabaseAugmentation(k=0),
        DatabaseAugmentation(k=1, weights="rank"),
        NeighbourhoodBlending(rounds=0),
        NeighbourhoodBlending(threshold=1.0, least_similarity=1.0),
        ClassBridged(weight=0.0),
        LabelAware(weight=0.0),
        KReciprocal(original_weight=1.0),
    ],
)
def test_settings_that_do_nothing_change_no_list(method):
    first = search_drawn()
    found = method.rerank(first)
    assert found.rows.tolist() == first.lists.rows.tolist()
    if not isinstance(method, KReciprocal):
        np.testing.assert_allclose(found.similarities, first.lists.similarities, atol=1e-6)


@pytest.mark.parametrize("name", list(list_rerankings()))
@pytest.mark.parametrize(("queries", "rows"), [(1, 1), (1, 2), (3, 1), (1, 40)])
def test_one_query_and_hardly_a_gallery(name, queries, rows):
    first = search_drawn(queries=queries, rows=rows, k=50)
    assert list_rerankings()[name]().rerank(first).rows.shape == (queries, rows)


@pytest.mark.parametrize("name", list(list_rerankings()))
def test_copies_in_the_gallery_are_all_found(name):
    gallery = np.repeat(draw(5), 4, axis=0)
    first = search_first(draw(5), gallery, k=4, labels=np.repeat(np.arange(5), 4))
    found = list_rerankings()[name]().rerank(first)
    assert (np.sort(found.rows, axis=1) == np.arange(20).reshape(5, 4)).all()


@pytest.mark.parametrize("name", list(list_rerankings()))
def test_opposite_rows_give_no_nonsense(name):
    gallery = np.concatenate([draw(6), -draw(6)])
    first = search_first(-draw(6), gallery, k=12, labels=np.repeat([0, 1], 6))
    found = list_rerankings()[name]().rerank(first)
    assert np.isfinite(found.similarities).all()
    if name != "diffusion":  # which says what is central among so few rows
        assert found.rows[:, 0].tolist() == list(range(6, 12))


@pytest.mark.parametrize(
    "method",
    [
        AlphaQueryExpansion(),
        ClassBridged(),
        DatabaseAugmentation(),
        DatabaseAugmentation(k=5, weights="rank"),
        DatabaseAugmentation(same_class=True),
        Diffusion(k=10, query_k=3),
        KReciprocal(k1=15),
        LabelAware(),
        NeighbourhoodBlending(threshold=0.45, least_similarity=0.3),
    ],
)
def test_own_class_comes_nearer_in_drawn_clusters(method):
    values, labels = draw_clustered(480, 24, 1.2, seed=5)
    first = search_first(values[:120], values[120:], k=15, labels=labels[120:])

    def measure(lists):
        return (labels[120:][lists.rows] == labels[:120, None]).mean()

    assert measure(method.rerank(first)) > measure(first.lists) + 0.02


def test_query_expansion_reaches_what_only_a_neighbour_is_near_to():
    # Along the curve: the query at its beginning, and a stranger off the curve that is nearer than the curve's third.
    gallery = np.array([[0.8, 0.6, 0], [0.5, 0.8, 0.3], [0.52, -0.6, 0.5]], dtype=np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    first = search_first(np.array([[1, 0, 0]], np.float32), gallery, k=3)
    assert first.lists.rows[0].tolist() == [0, 2, 1]
    assert AlphaQueryExpansion(k=1, alpha=1.0).rerank(first).rows[0].tolist() == [0, 1, 2]


def test_query_expansion_deeper_than_the_first_lists_searches_again():
    deep, shallow = (
        AlphaQueryExpansion(k=9, alpha=0.0).expand(search_first(draw(3, seed=1), draw(40), k=k))[0] for k in (20, 2)
    )
    np.testing.assert_allclose(shallow, deep, atol=1e-6)


def test_a_neighbour_that_is_not_similar_has_no_weight_whatever_alpha_is():
    first = search_first(np.array([[1, 0]], np.float32), np.array([[-1, 0], [0, -1]], np.float32), k=2)
    assert AlphaQueryExpansion(k=2, alpha=0.0).expand(first)[0].tolist() == [[1, 0]]


def test_augmentation_counts_a_copy_of_a_row_and_not_the_row_itself():
    gallery = np.array([[1, 0], [1, 0], [0.6, 0.8]], dtype=np.float32)
    first = search_first(gallery[:1], gallery, k=3)
    _, augmented = DatabaseAugmentation(k=1, alpha=0.0).expand(first)
    np.testing.assert_allclose(augmented[:2], [[1, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(augmented[2], np.array([1.6, 0.8]) / np.hypot(1.6, 0.8), atol=1e-6)


def test_rows_that_cancel_each_other_stay_as_they_are():
    gallery = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    first = search_first(gallery[:1], gallery, k=2)
    _, augmented = DatabaseAugmentation(k=100_000_000, weights="rank").expand(first)
    assert augmented.tolist() == gallery.tolist()


def test_augmentation_within_classes_leaves_rows_without_one():
    gallery, labels = draw(12), np.array([0] * 5 + [7] * 4 + [-1] * 3)
    first = search_first(gallery[:1], gallery, k=3, labels=labels)
    _, augmented = DatabaseAugmentation(k=4, alpha=0.0, same_class=True).expand(first)
    assert augmented[9:].tolist() == gallery[9:].tolist()
    assert not np.allclose(augmented[:9], gallery[:9])


def plant_bridge():
    """A query like one row of its class 3; another row of the class is unlike it, and a stranger's row is nearer."""
    gallery = np.array([[0.9, 0.3, 0, 0], [0.05, 0.2, 1, 0], [0.5, -0.5, 0, 1], [0.4, -0.5, 0, 1]], dtype=np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    return np.array([[1, 0, 0, 0]], np.float32), gallery, np.array([3, 3, 8, 9])


@pytest.mark.parametrize("method", [ClassBridged(), LabelAware()])
@pytest.mark.parametrize("k", [2, 4])
def test_a_class_leads_to_its_rows_that_look_unlike_the_query(method, k):
    queries, gallery, labels = plant_bridge()
    first = search_first(queries, gallery, k=k, labels=labels)
    assert first.lists.rows[0, 1] == 2  # the direct neighbours are wrong from the second on
    found = method.rerank(first)
    assert found.rows[0, :2].tolist() == [0, 1]  # and row 1 was in no list of two
    rank = found.rows[0].tolist().index(1)
    assert found.similarities[0, rank] > queries[0] @ gallery[1]


def test_a_row_of_unknown_class_is_bridged_by_what_it_is_like():
    # As above, but what looks unlike the query has no label: it is close to a labelled row of the query's class.
    queries, gallery, labels = plant_bridge()
    twin = gallery[1] + np.array([0, -0.3, 0, 0], np.float32)
    gallery = np.concatenate([gallery, twin[None] / np.linalg.norm(twin)]).astype(np.float32)
    first = search_first(queries, gallery, k=2, labels=np.append(labels, -1))
    found = ClassBridged(weight=4.0).rerank(search_first(queries, gallery, k=3, labels=np.append(labels, -1)))
    assert 4 not in first.lists.rows[0] and set(found.rows[0].tolist()) == {0, 1, 4}


def test_classes_without_gallery_images_are_never_predicted_and_change_nothing():
    values, labels = draw_clustered(60, 6, 0.5)
    dense = search_first(values[:10], values[10:], k=9, labels=labels[10:])
    gapped = search_first(values[:10], values[10:], k=9, labels=labels[10:] * 1_000_000_007)
    for method in (ClassBridged(), LabelAware()):
        assert method.rerank(dense).rows.tolist() == method.rerank(gapped).rows.tolist()
        nothing = search_first(values[:10], values[10:], k=9, labels=np.full(50, -1))
        assert method.rerank(nothing) is nothing.lists


def test_an_unseen_class_lets_the_vote_correct_the_nearest():
    values = np.array([[1, 0, 0.02], [0.98, 0.2, 0], [0.98, 0.21, 0], [0.97, 0.22, 0]], dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    first = search_first(np.array([[1, 0, 0]], np.float32), values, k=4, labels=np.array([0, 5, 5, 5]))
    assert first.lists.rows[0, 0] == 0
    assert LabelAware(power=1.0).rerank(first).rows[0].tolist() == [1, 2, 3, 0]


def test_diffusion_follows_the_curve_where_similarity_cuts_across():
    # The end of the curve is farther from the query than a stranger that lies off it.
    curve = np.concatenate([draw_curve(15), np.zeros((15, 1), np.float32)], axis=1)
    stranger = np.array([[0.3, 0.0, np.sqrt(1 - 0.09)]], dtype=np.float32)
    gallery = np.concatenate([curve[1:], stranger])
    first = search_first(curve[:1], gallery, k=15)
    assert first.lists.rows[0].tolist().index(14) < 13
    for truncate in (0, 2000, 15):
        found = Diffusion(k=4, query_k=2, truncate=truncate).rerank(first)
        assert found.rows[0, -1] == 14 and found.similarities[0, -1] == 0


def test_blending_takes_the_nearest_alone_where_none_is_close():
    gallery = np.array([[0.8, 0.6], [0.0, 1.0]], dtype=np.float32)
    first = search_first(np.array([[1, 0]], np.float32), gallery, k=2)
    alone = NeighbourhoodBlending(rounds=1, threshold=0.9, least_similarity=0.7).expand(first)[0]
    expected = np.array([1 + 0.64, 0.48])
    np.testing.assert_allclose(alone[0], expected / np.linalg.norm(expected), atol=1e-6)
    none = NeighbourhoodBlending(rounds=1, threshold=0.9, least_similarity=0.9).expand(first)[0]
    assert none.tolist() == [[1, 0]]


def test_blended_queries_do_not_depend_on_what_else_is_asked():
    queries, gallery = draw_clustered(40, 4, 0.6)[0], draw_clustered(60, 4, 0.6, seed=9)[0]
    together = NeighbourhoodBlending().expand(search_first(queries, gallery, k=5))[0]
    single = NeighbourhoodBlending().expand(search_first(queries[3:4], gallery, k=5))[0]
    np.testing.assert_allclose(together[3:4], single, atol=1e-5)


def test_k_reciprocal_takes_a_joint_search_and_refuses_another():
    first = search_drawn()
    joint = search_jointly(first, k1=20, k2=6)
    found = rerank_k_reciprocal(first, k1=20, k2=6, original_weight=0.3, joint=joint, threads=1)
    assert found.rows.tolist() == KReciprocal().rerank(first).rows.tolist()
    for wrong in (joint[:-1], joint[:, :10]):
        with pytest.raises(ArtifactError, match="at least 20 deep"):
            rerank_k_reciprocal(first, k1=20, k2=6, original_weight=0.3, joint=wrong)
