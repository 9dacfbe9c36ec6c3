"""The label for unknown products: where it stands, counted out, and a threshold that is best for the metric."""

import numpy as np
import pytest

from productrec.metrics.answers import summarise
from productrec.metrics.competition import METRICS, CompetitionMetric
from productrec.recognition.classifier import Classifier
from productrec.recognition.open_set import answer_in_turn
from productrec.recognition.unknown_label import choose_for_metric, place_unknown
from tests.unit.recognition.test_open_set import draw


@pytest.fixture(scope="module")
def seen():
    evidence, labels = draw(queries=400)
    return answer_in_turn(evidence, labels, Classifier())


def list_metrics():
    return [CompetitionMetric(name, 3 if kind.has_k else 1) for name, kind in METRICS.items()]


def test_the_label_leads_where_nothing_is_believed_and_stands_second_elsewhere():
    generator = np.random.default_rng(0)
    values, labels = generator.dirichlet(np.ones(4), 60), generator.integers(-1, 4, 60)
    believed = generator.random(60) < 0.5
    placed = place_unknown(summarise(values, labels), believed, 4)
    for row in range(60):
        named = sorted(range(4), key=lambda one: -values[row, one])
        named.insert(1 if believed[row] else 0, 4)
        assert placed.ranks[row] == named.index(4 if labels[row] < 0 else labels[row])
        assert placed.best[row] == named[0]
        top = values[row].max()
        assert placed.confidence[row] == pytest.approx(top if believed[row] else 1 - top)


@pytest.mark.parametrize("metric", list_metrics(), ids=lambda metric: metric.key)
def test_the_threshold_is_better_for_the_metric_than_to_believe_all_or_none_or_another(seen, metric):
    chosen = choose_for_metric(seen, metric, 10)

    def judge(score, least):
        placed = place_unknown(seen.answers, seen.scores[score] >= least, 10)
        return metric.orient(metric.measure(placed))

    best = judge(chosen.score, chosen.value)
    assert best == pytest.approx(metric.orient(chosen.metric_value))
    for score, values in seen.scores.items():
        for least in (-np.inf, np.inf, *np.quantile(values, np.linspace(0, 1, 60), method="higher")):
            assert judge(score, least) <= best + 1e-12
    placed = seen.scores[chosen.score] >= chosen.value
    assert chosen.false_accepts == pytest.approx(placed[seen.is_unknown].mean())


def test_the_rarer_unknown_products_are_the_more_is_believed(seen):
    metric = CompetitionMetric("top_1_accuracy")
    rare, frequent = (choose_for_metric(seen, metric, 10, unknown_share=share) for share in (0.001, 0.9))
    assert rare.false_accepts > frequent.false_accepts
    assert frequent.false_accepts < 0.1 and np.isfinite([rare.value, frequent.value]).all()
