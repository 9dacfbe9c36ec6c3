"""Figures: which of two values is the better one, by name; and so which of two trials of a sweep."""

import pytest

from productrec.metrics.figures import HEAD_FIGURES, RETRIEVAL_FIGURES, TITLE_FIGURES, VALIDATION_FIGURES, is_better
from productrec.sweep.study import TrialRow
from productrec.sweep.trials import rank_row


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [("top_1_accuracy", 0.9, 0.8), ("top_3_error", 0.1, 0.2), ("recall@1", 0.9, 0.8), ("map@r", 0.9, 0.8)],
)
def test_less_of_an_error_and_more_of_the_others_is_better(name, better, worse):
    assert is_better(name, better, worse)
    assert not is_better(name, worse, better) and not is_better(name, better, better)
    rows = [TrialRow(number, "finished", value, 1, 0.0, {}, "") for number, value in ((1, worse), (2, better))]
    assert min(rows, key=lambda row: rank_row(row, name)).number == 2


def test_every_validation_figure_judges_head_embedding_or_titles():
    assert (*HEAD_FIGURES, *RETRIEVAL_FIGURES, *TITLE_FIGURES) == tuple(VALIDATION_FIGURES)
