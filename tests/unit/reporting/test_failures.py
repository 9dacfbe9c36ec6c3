"""Confused pairs, mistakes, results by class and category: counted as a loop over the answers would."""

from collections import Counter

import numpy as np
import pytest

from productrec.reporting.answered import Answered, summarise_answers
from productrec.reporting.category_results import build_category_results
from productrec.reporting.class_names import ClassNames
from productrec.reporting.class_results import list_class_results, pick_easiest
from productrec.reporting.confusions import find_confusions
from productrec.reporting.failure_sections import build_answers, build_mistakes
from productrec.reporting.mistakes import SplitNeighbours, choose_mistakes, describe_mistakes
from productrec.reporting.page import render_page
from productrec.reporting.pictures import Pictures
from productrec.reporting.thumbnails import Thumbnails

CLASS_IDS = [10, 20, 30]


def answer(labels: list[int], best: list[int], sure: list[float] | None = None) -> Answered:
    """Answers with these labels (-1 for none) and best classes."""
    given = np.full((len(labels), 3), 0.1)
    sure = sure or [0.8] * len(labels)
    for row, (class_id, value) in enumerate(zip(best, sure, strict=True)):
        given[row] = (1 - value) / 2
        given[row, CLASS_IDS.index(class_id)] = value
    ids = [f"image {row}" for row in range(len(labels))]
    known = np.array(labels) >= 0
    return summarise_answers("val", ids, np.array(labels), known, CLASS_IDS, given.astype(np.float32))


def test_answers_are_summarised_and_a_foreign_label_is_a_mistake() -> None:
    answered = answer([10, 20, 99, -1], [10, 30, 10, 20])
    assert answered.best.tolist() == [10, 30, 10, 20]
    assert answered.is_right.tolist() == [True, False, False, False]
    assert answered.is_wrong.tolist() == [False, True, True, False]


def test_pairs_are_confused_both_ways_and_the_surest_come_first() -> None:
    answered = answer([10, 20, 20, 30, 10, 10], [20, 10, 10, 20, 20, 10], [0.5, 0.6, 0.9, 0.7, 0.8, 0.8])
    first, second = find_confusions(answered, most=5)
    assert (first.one, first.other, first.one_as_other, first.other_as_one) == (10, 20, 2, 2)
    assert (first.images_of_one, first.images_of_other, first.mistakes) == (3, 2, 4)
    assert first.rows.tolist() == [2, 4, 1, 0]
    assert (second.one, second.other, second.one_as_other, second.other_as_one) == (30, 20, 1, 0)
    assert len(find_confusions(answered, most=1)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_results_by_class_are_those_of_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels, best = (generator.choice([*CLASS_IDS, -1] if n == 0 else CLASS_IDS, 60).tolist() for n in range(2))
    results = {result.class_id: result for result in list_class_results(answer(labels, best))}
    for class_id in CLASS_IDS:
        named = Counter(other for own, other in zip(labels, best, strict=True) if own == class_id)
        result = results[class_id]
        assert (result.images, result.right) == (named.total(), named[class_id])
        del named[class_id]
        assert result.times == max(named.values()) and named[result.taken_for] == result.times


def test_a_class_of_many_mistakes_is_harder_than_one_of_a_single_image() -> None:
    results = list_class_results(answer([10] + [20] * 20 + [30] * 5, [20] + [30] * 19 + [20] + [30] * 5))
    assert [result.class_id for result in results] == [20, 10, 30]
    assert pick_easiest(results, 1)[0].class_id == 30


def test_a_tree_counts_what_stays_within_a_category() -> None:
    answered = answer([10, 10, 20, 30], [20, 30, 20, 30])
    confused = {(10, 20): 1, (10, 30): 1}
    root = build_category_results(
        list_class_results(answered), {10: "food/tea", 20: "food/tea", 30: "food/jam"}, confused
    )
    assert root is not None and (root.images, root.right, root.right_within) == (4, 2, 4)
    (food,) = root.children
    jam, tea = food.children
    assert (tea.name, tea.classes, tea.images, tea.right, tea.right_within) == ("tea", 2, 3, 1, 2)
    assert (food.right_within, jam.right_within) == (4, 1)
    assert build_category_results(list_class_results(answered), {}, confused) is None


def test_mistakes_are_the_surest_and_few_of_one_pair() -> None:
    answered = answer([10] * 4 + [20], [20] * 4 + [30], [0.9, 0.8, 0.7, 0.6, 0.5])
    assert choose_mistakes(answered, most=10).tolist() == [0, 1, 2, 4]
    assert choose_mistakes(answered, most=2).tolist() == [0, 1]


def test_where_the_right_class_stood() -> None:
    answered = answer([10, 20], [20, 30])
    near = SplitNeighbours(
        ["image 1", "image 0"],
        ["a", "b", "c"],
        np.array([[0, 1, 2], [2, 1, 0]]),
        np.array([[30, 30, 30], [20, 20, 10]]),
        np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]),
    )
    first, second = describe_mistakes(answered, np.array([0, 1]), near, nearest=2)
    assert [(one.image_id, one.label, one.similarity) for one in first.nearest] == [("c", 20, 0.6), ("b", 20, 0.5)]
    assert first.right_place == 3 and first.right is not None and first.right.image_id == "a"
    assert second.right_place is None and second.looked_at == 3
    assert describe_mistakes(answered, np.array([0]), None)[0].nearest == ()


def test_a_class_that_the_model_does_not_know_has_no_rank() -> None:
    answered = answer([10, 99], [20, 30])
    mistakes = describe_mistakes(answered, np.array([0, 1]), None)
    assert [mistake.is_known for mistake in mistakes] == [True, False]
    pictures = Pictures(Thumbnails(), None, {})
    section = build_mistakes(mistakes, answered, ClassNames({}), pictures, maps={})
    page = render_page("Mistakes", [section], styles=("report.css",))
    assert page.count("The right class ranks ") == 1 and "ranks 4" not in page
    assert page.count("The model does not know the right class.") == 1


def test_of_too_many_answers_the_wrong_and_the_least_sure_are_held() -> None:
    answered = answer([10, 10, 10, -1], [10, 20, 10, 10], [0.9, 0.95, 0.5, 0.6])
    data = build_answers([answered], ClassNames({}), most=3).data
    assert data["columns"]["id"] == ["image 1", "image 2", "image 3"] and (data["held"], data["count"]) == (3, 4)
    assert data["columns"]["label"] == [0, 0, -1] and data["columns"]["best"] == [1, 0, 0]
