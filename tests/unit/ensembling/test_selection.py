"""Greedy selection of models, against trying everything by hand."""

import numpy as np
import pytest

from productrec.ensembling import selection
from productrec.ensembling.selection import select_greedily
from productrec.metrics.answers import summarise
from productrec.recognition.objective import Objective


def draw(seed, members=4, queries=60, classes=6):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, queries)
    parts = []
    for one in range(members):
        logits = generator.normal(size=(queries, classes)) + (0.3 + 0.3 * one) * np.eye(classes)[labels]
        shares = np.exp(logits)
        parts.append((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))
    return parts, labels


def select_by_hand(parts, labels, objective, rounds):
    """The same by the whole mean of what is chosen, without patience."""
    chosen, best, stands = [], None, None
    for _ in range(rounds):
        tried = []
        for one in range(len(parts)):
            answers = summarise(np.mean([parts[other] for other in [*chosen, one]], axis=0), labels)
            tried.append((objective.judge(answers), round(float(answers.log_loss.mean()), 6), one))
        error, loss, one = min(tried)
        chosen.append(one)
        if best is None or (error, loss) < best:
            best, stands = (error, loss), list(chosen)
    return [stands.count(one) / len(stands) for one in range(len(parts))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("objective", [Objective("top_k_error", 3), Objective("map_at_k", 5), Objective("macro_f1")])
def test_it_adds_the_model_that_helps_most(seed, objective, monkeypatch):
    monkeypatch.setattr(selection, "_PATIENCE", 100)
    parts, labels = draw(seed)
    found = select_greedily(parts, labels, objective, rounds=8)
    np.testing.assert_allclose(found, select_by_hand(parts, labels, objective, 8), atol=1e-9)


def test_a_model_that_knows_all_is_taken_alone_and_noise_never():
    parts, labels = draw(0)
    sure = np.full_like(parts[0], 1e-4)
    sure[np.arange(len(labels)), labels] = 1.0
    weights = select_greedily([parts[0], sure, parts[1]], labels, Objective("top_k_error", 1))
    assert weights == [0.0, 1.0, 0.0]


def test_it_gives_up_after_rounds_that_bring_nothing(monkeypatch):
    parts, labels = draw(1)
    seen = []
    tell = selection.Rivals.tell
    monkeypatch.setattr(selection.Rivals, "tell", lambda *given: (seen.append(1), tell(*given))[1])
    select_greedily([parts[3], parts[3]], labels, Objective("top_k_error", 1))
    assert len(seen) == 2 * 11  # one round that chooses, ten that bring nothing
