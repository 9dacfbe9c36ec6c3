"""Fitting: objectives against their formulas, weights against what is known, and steps that must gain to stay."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from productrec.metrics.answers import Answers, summarise
from productrec.recognition import fitting
from productrec.recognition.classifier import Classifier, Evidence, compute_parts
from productrec.recognition.fitting import fit_classifier
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.weights import FITS, combine, fit_mixture, fit_product, split_folds

GRIDS = {"k_grid": (1, 3, 8), "power_grid": (1.0, 8.0)}


def draw(queries=300, neighbours=8, classes=6, seed=0, head=1.5, vote=0.5, near=0.1):
    """Evidence whose parts know more of the true class the larger their numbers are."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, queries)
    told = np.where(
        generator.random((queries, neighbours)) < vote,
        labels[:, None],
        generator.integers(0, classes, (queries, neighbours)),
    )
    similarities = -np.sort(-generator.uniform(0.3, 1, (queries, neighbours)), axis=1).astype(np.float32)
    logits = generator.standard_normal((queries, classes)).astype(np.float32)
    logits[np.arange(queries), labels] += head
    prototypes = generator.uniform(-0.2, 0.5, (queries, classes)).astype(np.float32)
    prototypes[np.arange(queries), labels] += near
    return Evidence(logits, told, similarities, prototypes), labels


def answer(classifier, evidence, labels):
    return summarise(compute_parts(evidence, classifier).fused, labels)


def test_objectives_are_what_their_names_say():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 200)
    labels = np.append(generator.integers(0, 5, 190), np.full(10, -1))
    answers = summarise(probabilities, labels)
    order = np.argsort(-probabilities, axis=1)
    top = (order[:, :3] == labels[:, None]).any(axis=1)
    assert Objective("top_k_error", 3).measure(answers) == pytest.approx(1 - top.mean())
    places = [np.flatnonzero(row == label) for row, label in zip(order, labels, strict=True)]
    mean = np.mean([1 / (1 + place[0]) if len(place) and place[0] < 3 else 0.0 for place in places])
    assert Objective("map_at_k", 3).measure(answers) == pytest.approx(1 - mean)
    macro = f1_score(labels, order[:, 0], average="macro", labels=np.unique([*labels, *order[:, 0]]))
    assert Objective("macro_f1").measure(answers) == pytest.approx(1 - macro)
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (order[:, 0] == labels)[surest]
    precision = np.cumsum(right) / np.arange(1, 201)
    gap = (precision * right).sum() / 190
    assert Objective("global_average_precision").measure(answers) == pytest.approx(1 - gap)


def test_equal_counts_of_errors_are_equal_whichever_they_are():
    labels = np.zeros(97, np.int64)
    judged = set()
    for wrong in range(31, 60):  # so many are not first, and the others of 60 errors are beyond the third place
        ranks = np.repeat([5, 1, 0], [60 - wrong, 2 * wrong - 60, 97 - wrong])
        judged.add(Objective("top_k_error", 3).judge(Answers(labels, ranks, labels, np.ones(97), np.ones(97))))
    assert len(judged) == 1


@pytest.mark.parametrize("metric", ["top_k_error", "map_at_k", "macro_f1", "global_average_precision"])
def test_a_weight_counts_as_a_query_that_comes_again(metric):
    generator = np.random.default_rng(1)
    answers = summarise(generator.dirichlet(np.ones(4), 60), generator.integers(0, 4, 60))
    times = generator.integers(0, 3, 60)
    again = answers.take(np.repeat(np.arange(60), times))
    objective = Objective(metric, 2)
    allowed = (
        0.02 if metric == "global_average_precision" else 1e-9
    )  # a repeated answer's precision is that of its last
    assert objective.judge(answers, times.astype(float)) == pytest.approx(objective.judge(again), abs=allowed)


def test_chance_is_sure_of_a_plain_gain_and_half_of_a_tie():
    labels = draw()[1]
    good, poor = (summarise(part, labels) for part in (np.eye(6)[labels], np.full((300, 6), 1 / 6)))
    for metric in ("top_k_error", "macro_f1"):
        objective = Objective(metric, 1)
        assert compute_chance(objective, good, poor, draws=50) == 1.0
        assert compute_chance(objective, poor, good, draws=50) == 0.0
        assert compute_chance(objective, good, good, draws=50) == 0.5


def test_a_mixture_of_known_shares_is_found_again():
    generator = np.random.default_rng(0)
    parts = [generator.dirichlet(np.full(5, 0.4), 20_000) for _ in range(2)]
    mixed = combine(parts, [0.7, 0.3], "linear").astype(np.float64)
    labels = np.array([generator.choice(5, p=row / row.sum()) for row in mixed])
    weights, rule = fit_mixture(parts, labels, Objective())
    assert rule == "linear" and weights == pytest.approx([0.7, 0.3], abs=0.03)


def test_exponents_of_known_size_are_found_again():
    generator = np.random.default_rng(0)
    parts = [generator.dirichlet(np.full(5, 2.0), 20_000) for _ in range(2)]
    mixed = combine(parts, [1.5, 0.4], "product").astype(np.float64)
    labels = np.array([generator.choice(5, p=row / row.sum()) for row in mixed])
    weights, rule = fit_product(parts, labels, Objective())
    assert rule == "product" and weights == pytest.approx([1.5, 0.4], abs=0.05)


def test_few_queries_leave_a_product_near_equal_weights():
    parts = [np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])]
    weights, _ = fit_product(parts, np.array([0]), Objective())
    assert 0 < weights[1] < weights[0] < 1
    assert fit_product(parts, np.array([-1]), Objective())[0] == [0.5, 0.5]


@pytest.mark.parametrize("how", sorted(FITS))
def test_every_fit_leaves_out_what_knows_nothing(how):
    evidence, labels = draw(queries=2000, head=3.0)
    generator = np.random.default_rng(3)
    parts = [compute_parts(evidence, Classifier()).head, generator.dirichlet(np.full(6, 0.3), 2000)]
    weights, _ = FITS[how](parts, labels, Objective("top_k_error", 1))
    assert weights[1] < 0.1 * weights[0]


def test_folds_are_even_and_keep_groups_together():
    folds = split_folds(103, 5)
    assert sorted(np.bincount(folds).tolist()) == [20, 20, 21, 21, 21]
    groups = np.arange(90) // 3
    folds = split_folds(90, 5, groups=groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(30))
    assert np.bincount(folds).tolist() == [18] * 5


def test_on_new_queries_a_fit_is_above_each_part_that_knows_something_of_its_own():
    gains = []
    for seed in range(4):
        evidence, labels = draw(queries=1200, seed=seed, head=1.5, vote=0.45, near=0.2)
        fitted = fit_classifier(evidence.take(slice(0, 400)), labels[:400], Objective("top_k_error", 1), **GRIDS)
        rest, truth = evidence.take(slice(400, None)), labels[400:]
        parts = compute_parts(rest, fitted.classifier)._asdict()
        right = {name: float((summarise(part, truth).ranks == 0).mean()) for name, part in parts.items()}
        gains.append(right["fused"] - max(right[name] for name in ("head", "vote", "prototypes")))
    assert min(gains) > 0.02


def test_one_strong_part_is_not_spoilt_by_weak_ones():
    evidence, labels = draw(queries=1200, head=6.0, vote=0.05, near=0.0)
    fitted = fit_classifier(evidence.take(slice(0, 300)), labels[:300], Objective("top_k_error", 1), **GRIDS)
    rest, truth = evidence.take(slice(300, None)), labels[300:]
    alone = (summarise(compute_parts(rest, fitted.classifier).head, truth).ranks == 0).mean()
    assert (answer(fitted.classifier, rest, truth).ranks == 0).mean() >= alone - 0.005


def test_reported_answers_are_honest():
    """Parts that know nothing: what is fitted must not look better than chance by being judged on what it saw."""
    rates = []
    for seed in range(6):
        evidence, labels = draw(queries=120, classes=3, seed=seed, head=0.0, vote=0.0, near=0.0)
        fitted = fit_classifier(
            evidence, labels, Objective("top_k_error", 1), k_grid=range(1, 9), power_grid=(1.0, 4.0)
        )
        rates.append(float((fitted.answers.ranks == 0).mean()))
    assert abs(np.mean(rates) - 1 / 3) < 0.05


def test_another_blend_takes_its_place_only_where_it_surely_gains(monkeypatch):
    evidence, labels = draw()
    kept = fit_classifier(evidence, labels, Objective("top_k_error", 1), **GRIDS).steps
    assert [step.name for step in kept] == ["head", "vote", "prototypes", "fused", "instead"]
    assert not kept[-1].is_kept and kept[3].is_kept
    monkeypatch.setattr(fitting, "INSTEAD_FROM", 0.0)
    assert fit_classifier(evidence, labels, Objective("top_k_error", 1), **GRIDS).steps[-1].is_kept


def test_parts_that_may_not_speak_are_not_heard():
    evidence, labels = draw(vote=0.9)
    fitted = fit_classifier(evidence, labels, Objective(), **GRIDS, parts=("head",))
    assert list(fitted.classifier.weights) == ["head"]
    np.testing.assert_array_equal(answer(fitted.classifier, evidence, labels).best, evidence.logits.argmax(axis=1))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_handful_of_queries_and_labels_that_nobody_knows_are_no_error(count):
    evidence, labels = draw(queries=count)
    for known in (labels, np.full(count, -1)):
        fitted = fit_classifier(evidence, known, Objective("top_k_error", 3), **GRIDS)
        assert len(fitted.answers.ranks) == count
        assert np.isfinite(compute_parts(evidence, fitted.classifier).fused).all()


def test_a_category_is_heard_where_it_helps():
    generator = np.random.default_rng(0)
    queries, classes = 600, 12
    labels = generator.integers(0, classes, queries)
    category = np.arange(classes) // 4
    # Neighbours know the category and not the class; the head knows the class within it and not the category.
    near = (labels // 4 * 4)[:, None] + generator.integers(0, 4, (queries, 3))
    logits = generator.normal(0, 0.3, (queries, classes)).astype(np.float32)
    logits[np.arange(classes)[None, :] % 4 == (labels % 4)[:, None]] += 2
    evidence = Evidence(logits, near, np.full((queries, 3), 0.9, np.float32), None, category.tolist())
    fitted = fit_classifier(evidence, labels, Objective("top_k_error", 1), k_grid=(3,), power_grid=(1.0,))
    assert fitted.steps[-1].name == "category" and fitted.steps[-1].is_kept
    assert fitted.classifier.category_share > 0
