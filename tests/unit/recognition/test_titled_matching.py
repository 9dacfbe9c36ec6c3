"""Matches by image and title: candidates of both searches, and how likely each is a match."""

import numpy as np
import pytest

from productrec.recognition.choosing_matches import PLAIN, TITLES, LabelledPool, choose_matching
from productrec.recognition.matching import MatchRule, build_rule, find_near, list_matches
from productrec.recognition.titled_matching import PairScale, TitledNeighbourhood, find_titled, fit_pairs
from productrec.retrieval.title_neighbours import fit_titles, search_titles
from tests.unit.recognition.test_choosing_matches import draw, search

WORDS = [first + second for first in ("ka", "lo", "mi", "tu") for second in ("bar", "den", "fil", "gox", "hyp", "jun")]


def write(labels, *, share=0.8, noise=0.2, seed=0):
    """Titles of three words a class, of which some are others, for a share of the images."""
    generator = np.random.default_rng(seed)
    own = [list(generator.choice(WORDS, 3, replace=False)) for _ in range(int(labels.max()) + 1)]
    titles = []
    for label in labels:
        words = [str(generator.choice(WORDS)) if generator.random() < noise else word for word in own[label]]
        titles.append(" ".join(words) if generator.random() < share else None)
    return titles


def make_pool(embeddings, labels, titles):
    near = search(embeddings, 20)
    titled = find_titled(embeddings, titles, near.rows, near.similarities)
    return LabelledPool(
        {PLAIN: near}, labels, np.ones(len(labels), bool), 1.0, {} if titled is None else {PLAIN: titled}
    )


def test_candidates_are_those_of_both_searches_each_once_with_both_similarities():
    embeddings, labels = draw(20, 3, noise=0.5, seed=1)
    embeddings, titles = embeddings.astype(np.float32), write(labels)
    near = search(embeddings, 6)
    found = find_titled(embeddings, titles, near.rows, near.similarities)
    assert found is not None
    gallery = fit_titles(titles)
    assert gallery is not None
    by_title = search_titles(gallery, titles, 5, own_rows=np.arange(60))
    for row in range(60):
        there = found.rows[row][found.rows[row] >= 0].tolist()
        told = by_title.rows[row][by_title.similarities[row] > 0].tolist()
        assert len(set(there)) == len(there) and set(there) == {*near.rows[row].tolist(), *told} and row not in there
    owners, columns = np.nonzero(found.rows >= 0)
    images = (embeddings[owners] * embeddings[found.rows[owners, columns]]).sum(axis=1)
    np.testing.assert_allclose(found.images[owners, columns], images, atol=1e-5)
    has = np.array([title is not None for title in titles])
    known = ~np.isnan(found.titles[owners, columns])
    np.testing.assert_array_equal(known, has[owners] & has[found.rows[owners, columns]])


def test_no_titles_no_candidates():
    embeddings, _ = draw(4, 2, noise=0.5, seed=1)
    near = search(embeddings)
    assert find_titled(embeddings, [None] * 8, near.rows, near.similarities) is None


def test_the_probability_is_what_the_scale_says_and_places_without_candidates_come_last():
    near = TitledNeighbourhood(
        np.array([[1, 2, -1], [2, 0, 3]]),
        np.array([[0.9, 0.5, 0.0], [0.4, 0.9, 0.2]]),
        np.array([[np.nan, 0.8, np.nan], [0.1, np.nan, 0.9]]),
    )
    scale = PairScale(image=2.0, title=3.0, offset=-1.0, alone=4.0, alone_offset=-2.0)

    def give(z):
        return 1 / (1 + np.exp(-z))

    rows, likely = scale.rate(near, 50)
    assert rows.tolist() == [[2, 1], [3, 0]]  # as many as the least have
    np.testing.assert_allclose(likely[0], [give(1 + 2.4 - 1), give(3.6 - 2)])
    np.testing.assert_allclose(likely[1], [give(0.4 + 2.7 - 1), give(3.6 - 2)])
    assert scale.rate(near, 2)[0].tolist() == [[2], [3]]


def test_a_scale_is_fitted_to_what_tells_matches_and_never_against_similarity():
    generator = np.random.default_rng(0)
    images, titles = generator.random((200, 10)), generator.random((200, 10))
    titles[:, ::3] = np.nan
    z = 3 * images + 6 * np.nan_to_num(titles) - 5
    is_match = generator.random((200, 10)) < 1 / (1 + np.exp(-z))
    near = TitledNeighbourhood(np.tile(np.arange(10), (200, 1)), images, titles)
    scale = fit_pairs(near, is_match)
    assert scale is not None
    assert scale.image == pytest.approx(3, abs=1) and scale.title == pytest.approx(6, abs=1)
    assert fit_pairs(TitledNeighbourhood(near.rows, -images, titles), is_match).image == 0
    assert fit_pairs(TitledNeighbourhood(near.rows, images, np.full_like(titles, np.nan)), is_match) is None


def test_titles_stay_where_they_gain_and_the_f1_that_is_told_is_of_new_classes():
    embeddings, labels = draw(60, 3, noise=0.7, seed=1)
    embeddings = embeddings.astype(np.float32)
    alone = choose_matching(make_pool(embeddings, labels, [None] * 180), steps=())
    chosen = choose_matching(make_pool(embeddings, labels, write(labels)), steps=())
    assert alone.steps == () and alone.rule.titles is None
    assert chosen.steps[0].name == TITLES and chosen.steps[0].is_kept and chosen.rule.titles is not None
    assert chosen.f1 > alone.f1 + 0.05
    near = make_pool(embeddings, labels, write(labels))
    lists = list_matches(find_near(near.near[PLAIN], near.titled[PLAIN], chosen.rule), chosen.rule)
    assert len(lists.counts) == 180


def test_titles_of_noise_are_left_out():
    embeddings, labels = draw(60, 3, noise=0.4, seed=2)
    chosen = choose_matching(
        make_pool(embeddings.astype(np.float32), labels, write(np.random.default_rng(5).integers(0, 60, 180))), steps=()
    )
    assert not chosen.steps[0].is_kept and chosen.rule.titles is None


def test_a_rule_comes_back_from_plain_values_also_from_before_titles():
    rule = MatchRule(0.4, titles=PairScale(2.0))
    assert build_rule({"threshold": 0.4, "titles": {"image": 2.0}}) == rule
    assert build_rule({"threshold": 0.4, "at_least": 2, "both_ways": False, "most": 50}).titles is None
