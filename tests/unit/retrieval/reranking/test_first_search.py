"""What a re-ranking starts from: searched, or checked where it is given."""

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval.engine import search_rows
from productrec.retrieval.reranking.first_search import search_first
from tests.unit.retrieval.reranking.drawn import draw


def test_the_first_search_is_the_indexs():
    queries, gallery = draw(5, seed=1), draw(40)
    first = search_first(queries, gallery, k=7)
    rows, similarities = search_rows(queries, gallery, 7)
    assert first.lists.rows.tolist() == rows.tolist() and first.depth == 7
    np.testing.assert_array_equal(first.lists.similarities, similarities)


def test_k_above_the_gallerys_size_means_all_of_it():
    assert search_first(draw(2, seed=1), draw(3), k=50).lists.rows.shape == (2, 3)


def test_an_empty_gallery_is_refused():
    with pytest.raises(ArtifactError, match="gallery must hold at least one image"):
        search_first(draw(2), draw(0), k=5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("where", ["queries", "gallery"])
def test_rows_that_cannot_be_compared_are_refused_by_their_ids(value, where):
    sets = {"queries": draw(4, seed=1), "gallery": draw(6)}
    sets[where][2] = value
    ids = {"query_ids": [f"asked-{i}" for i in range(4)], "gallery_ids": [f"sold-{i}" for i in range(6)]}
    name = "asked-2" if where == "queries" else "sold-2"
    with pytest.raises(ArtifactError, match=rf"{where}: embeddings must be finite and of unit norm; 1 \({name}\)"):
        search_first(**sets, k=3, **ids)
    with pytest.raises(ArtifactError, match=r"1 \(row 2\)"):
        search_first(**sets, k=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"queries": draw(4, dim=3)}, "of one width"),
        ({"labels": np.zeros(5, np.int64)}, "labels must be 6 integers"),
        ({"labels": np.zeros(6)}, "labels must be 6 integers"),
        ({"query_ids": ["a"]}, "one id a row"),
        ({"lists": (np.zeros((3, 2), np.int64), np.zeros((3, 2)))}, "lists must be rows"),
        ({"lists": (np.full((4, 1), 6), np.zeros((4, 1)))}, "rows from 0 to 5"),
        ({"lists": (np.full((4, 1), -1), np.zeros((4, 1)))}, "rows from 0 to 5"),
        ({"lists": (np.zeros((4, 2), np.int64), np.zeros((4, 2)))}, "name a row once"),
        ({"lists": (np.tile([0, 1], (4, 1)), np.tile([0.1, 0.2], (4, 1)))}, "descending"),
        ({"lists": (np.tile([0, 1], (4, 1)), np.tile([0.1, np.nan], (4, 1)))}, "descending"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {"queries": draw(4, seed=1), "gallery": draw(6), "k": 3}
    with pytest.raises(ArtifactError, match=message):
        search_first(**{**arguments, **changes})


def test_given_lists_are_taken_as_they_are():
    lists = (np.tile([4, 2], (3, 1)), np.tile([0.9, 0.1], (3, 1)))
    first = search_first(draw(3, seed=1), draw(6), k=99, lists=lists)
    assert first.lists.rows.tolist() == lists[0].tolist() and first.depth == 2
