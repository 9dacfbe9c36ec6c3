"""Competitions' metrics: each against its definition counted out query by query, and where it has nothing to count."""

import numpy as np
import pytest

from productrec.competitions.contract import load_contract
from productrec.metrics.answers import Answers, join, summarise, summarise_logits
from productrec.metrics.competition import METRICS, CompetitionMetric


def draw(seed=0, queries=80, classes=6):
    """Probabilities in tenths, so that many are tied, and labels of which some are of no class."""
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(queries) < 0.1, -1, generator.integers(0, classes, queries))
    values = generator.multinomial(10, np.ones(classes) / classes, queries) / 10
    return values, labels


def list_guesses(row):
    """Class positions, the likeliest first, of equal ones the lower."""
    return sorted(range(len(row)), key=lambda position: (-row[position], position))


def count_out(name, k, values, labels):
    """A metric by its definition, query by query."""
    guesses = [list_guesses(row) for row in values]
    if name == "top_1_accuracy":
        return sum(guess[0] == label for guess, label in zip(guesses, labels, strict=True)) / len(labels)
    if name == "top_k_error":
        return sum(label not in guess[:k] for guess, label in zip(guesses, labels, strict=True)) / len(labels)
    if name == "map_at_k":
        total = 0.0
        for guess, label in zip(guesses, labels, strict=True):
            for place, named in enumerate(guess[:k], start=1):
                total += (named == label) / place
        return total / len(labels)
    first = [guess[0] for guess in guesses]
    if name == "macro_f1":
        scores = []
        for one in {*labels.tolist(), *first}:
            hits = sum(named == label == one for named, label in zip(first, labels, strict=True))
            wrong = sum(named == one != label for named, label in zip(first, labels, strict=True))
            missed = sum(label == one != named for named, label in zip(first, labels, strict=True))
            scores.append(2 * hits / (2 * hits + wrong + missed))
        return sum(scores) / len(scores)
    order = sorted(range(len(labels)), key=lambda row: (-values[row][first[row]], row))
    total, right = 0.0, 0
    for place, row in enumerate(order, start=1):
        if first[row] == labels[row]:
            right += 1
            total += right / place
    return total / sum(label >= 0 for label in labels)


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_its_definition_with_ties_and_labels_of_no_class(name, seed):
    values, labels = draw(seed)
    for k in (1, 2, 5) if METRICS[name].has_k else (1,):
        metric = CompetitionMetric(name, k)
        assert metric.measure(summarise(values, labels)) == pytest.approx(count_out(name, k, values, labels))
        swapped = np.where(labels < 0, 0, labels)  # a label of no class is told from one of the first class
        assert metric.measure(summarise(values, swapped)) != metric.measure(summarise(values, labels))


@pytest.mark.parametrize("name", list(METRICS))
def test_a_label_of_no_class_is_never_right_however_many_guesses_count(name):
    metric = CompetitionMetric(name, 5 if METRICS[name].has_k else 1)
    answers = summarise(np.array([[0.6, 0.4], [0.5, 0.5]]), np.array([-1, -1]))
    assert metric.orient(metric.measure(answers)) == 0
    assert CompetitionMetric("top_k_error", 5).measure(answers) == 1


@pytest.mark.parametrize("name", list(METRICS))
def test_all_right_is_one_and_errors_are_the_rest(name):
    metric = CompetitionMetric(name, 3 if METRICS[name].has_k else 1)
    labels = np.array([0, 1, 2, 1])
    right = summarise(np.eye(3)[labels], labels)
    assert metric.orient(metric.measure(right)) == 1
    mixed = join([right, summarise(np.eye(4)[[3, 3]][:, [3, 0, 1, 2]], np.array([1, -1]))])
    errors = metric.measure_errors(mixed)
    if errors is None:
        assert name in ("macro_f1", "global_average_precision")
    else:
        assert errors.mean() == pytest.approx(1 - metric.orient(metric.measure(mixed)))


def test_a_sure_answer_to_what_has_none_costs_average_precision():
    """GAP (Weyand et al. 2020): distractors answered with confidence push right answers down the list."""
    gap = CompetitionMetric("global_average_precision")
    values, labels = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]), np.array([-1, 0, 0])
    assert gap.measure(summarise(values, labels)) == pytest.approx((1 / 2 + 2 / 3) / 2)
    unsure = np.array([[0.51, 0.49], [0.8, 0.2], [0.7, 0.3]])
    assert gap.measure(summarise(unsure, labels)) == 1


def test_logits_rank_as_they_are_where_their_probabilities_round_to_one_zero():
    logits, labels = np.array([[900.0, 1.0, 2.0], [1.0, 3.0, 2.0]], np.float32), np.array([2, 0])
    answers = summarise_logits(logits, labels)
    assert answers.ranks.tolist() == [1, 2] and answers.best.tolist() == [0, 1]
    shares = np.exp([1.0, 3.0, 2.0]) / np.exp([1.0, 3.0, 2.0]).sum()
    assert answers.confidence.tolist() == pytest.approx([1, shares[1]])
    assert answers.log_loss[1] == pytest.approx(-np.log(shares[0]))
    assert isinstance(answers.take(np.array([1])), Answers)


@pytest.mark.parametrize(
    ("name", "key", "title"), [("hotel_id2021", "map_at_5", "MAP@5"), ("plain", "top_1_accuracy", "top-1 accuracy")]
)
def test_a_contract_names_its_metric(name, key, title):
    metric = load_contract(name).scored_by
    assert (metric.key, metric.title) == (key, title)
