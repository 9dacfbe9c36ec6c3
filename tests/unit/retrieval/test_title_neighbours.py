"""Neighbours by title: the similarity of words and characters, scripts kept, ties by row, and no query finds itself."""

import math

import numpy as np
import pytest

from productrec.retrieval import title_neighbours
from productrec.retrieval.neighbours import load_neighbours
from productrec.retrieval.title_neighbours import (
    fit_titles,
    has_title,
    normalise_title,
    save_title_neighbours,
    search_titles,
)

SHOP = ["Oat milk 1 l", "oat milk 0.5 l", None, "Cola zero", "Cola classic", float("nan"), "  ", "Cola zero"]


def search(titles, k=3, gallery=SHOP, **options):
    fitted = fit_titles(gallery)
    assert fitted is not None
    return search_titles(fitted, titles, k, **options)


def test_the_most_similar_title_comes_first_and_equal_ones_in_the_order_of_rows():
    found = search(["COLA ZERO", "oat  milk 1 l"])
    assert found.rows[0].tolist() == [3, 7, 4] and found.rows[1, :2].tolist() == [0, 1]
    np.testing.assert_allclose(found.similarities[0, :2], 1, atol=1e-6)
    assert (np.diff(found.similarities, axis=1) <= 0).all() and found.similarities.min() >= 0


def test_similarity_is_the_mean_of_the_cosines_of_words_and_of_characters():
    """From the formulas: counts as 1 + log, times log((1 + N) / (1 + n)) + 1, of unit norm."""
    gallery = ["red tea tea", "red cup", "green tea"]

    def list_words(title):
        return title.split()

    def list_characters(title):
        padded = [f" {word} " for word in title.split()]
        return [word[start : start + n] for word in padded for n in (3, 4) for start in range(len(word) - n + 1)]

    def weigh(title, listed):
        weights = {}
        for term in set(listed(title)):
            documents = sum(term in listed(other) for other in gallery)
            if documents:
                rarity = math.log((1 + len(gallery)) / (1 + documents)) + 1
                weights[term] = (1 + math.log(listed(title).count(term))) * rarity
        norm = math.sqrt(sum(weight**2 for weight in weights.values())) or 1
        return {term: weight / norm for term, weight in weights.items()}

    def compare(one, other):
        cosines = []
        for listed in (list_words, list_characters):
            first, second = weigh(one, listed), weigh(other, listed)
            cosines.append(sum(weight * second.get(term, 0) for term, weight in first.items()))
        return sum(cosines) / 2

    found = search(["tea red red", "teas"], gallery=gallery)
    for query, title in enumerate(["tea red red", "teas"]):
        expected = {row: compare(title, other) for row, other in enumerate(gallery)}
        for row, similarity in zip(found.rows[query], found.similarities[query], strict=True):
            assert similarity == pytest.approx(expected[row], abs=1e-6)


def test_letters_stay_what_they_are_in_every_script():
    assert normalise_title("Cafe\u0301 GRO\u00df") == "caf\u00e9 gross"
    gallery = ["牛奶 一升", "हिन्दी चाय", "crème brûlée", "creme brulee"]
    found = search(["牛奶", "हिन्दी", "CRÈME BRÛLÉE"], k=1, gallery=gallery)
    assert found.rows[:, 0].tolist() == [0, 1, 2]
    assert (found.similarities > 0.3).all()


def test_lines_are_one_title_and_nothing_is_no_title():
    assert has_title("a") and not any(has_title(title) for title in (None, "", " \n", float("nan")))
    assert normalise_title("Oat\nmilk") == "oat milk"
    assert fit_titles([None, ""]) is None


def test_titles_of_punctuation_alone_are_compared_by_their_characters():
    found = search(["!!!!"], k=1, gallery=["????", "!!!!"])
    assert found.rows.tolist() == [[1]]


def test_no_title_finds_nothing_and_is_found_by_nobody():
    found = search([None, "cola"], k=10)
    assert not found.similarities[0].any()
    assert set(found.rows[1].tolist()) <= {0, 1, 3, 4, 7}


def test_a_query_never_finds_its_own_row():
    own = np.arange(len(SHOP))
    found = search(SHOP, k=10, own_rows=own)
    assert not (found.rows == own[:, None]).any()
    assert found.rows.shape[1] == 4 and found.rows[3, 0] == 7


def test_blocks_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    words = ["tea", "milk", "cola", "zero", "oat", "red", "1l", "2l"]
    gallery = [" ".join(generator.choice(words, 3)) for _ in range(60)]
    asked = generator.integers(0, 60, (60, 5))
    whole = search(gallery, k=7, gallery=gallery, own_rows=np.arange(60), asked=asked)
    monkeypatch.setattr(title_neighbours, "_CELLS_AT_A_TIME", 130)
    parts = search(gallery, k=7, gallery=gallery, own_rows=np.arange(60), asked=asked)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_similarities_that_are_asked_for_are_those_that_are_found():
    wide = search(SHOP, k=8)
    found = search(SHOP, k=2, asked=np.tile(np.arange(8), (8, 1)))
    assert np.isnan(found.asked[[2, 5, 6]]).all() and np.isnan(found.asked[:, [2, 5, 6]]).all()
    for query in (0, 1, 3, 4, 7):
        np.testing.assert_allclose(found.asked[query, wide.rows[query]], wide.similarities[query])


def test_a_set_holds_only_queries_that_have_neighbours(tmp_path):
    save_title_neighbours(
        tmp_path / "titles",
        gallery_ids=[f"g{row}" for row in range(8)],
        gallery_titles=SHOP,
        gallery_labels=np.arange(8) * 10,
        ids=["a", "b", "c", "g3"],
        titles=["cola", None, "xyzzy", "Cola zero"],
        k=2,
        inputs={},
        settings={},
    )
    kept = load_neighbours(tmp_path / "titles")
    assert kept.ids == ["a", "g3"]
    assert kept.labels.tolist() == (kept.rows * 10).tolist()
    assert 3 in kept.rows[0] and 3 not in kept.rows[1]
