import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.metrics.classification import compute_log_loss, compute_top_1_accuracy, compute_top_k_error

PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
CLASS_IDS = np.array([30, 10, 20])


def list_imported(statement: str, wanted: str, folder: Path) -> list[str]:
    """Which of the modules ``wanted`` are loaded after ``statement`` in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint([name for name in {wanted.split()} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    names: list[str] = eval(answer.stdout)
    return names


def test_metrics_import_neither_torch_nor_pandas(tmp_path: Path) -> None:
    statement = "import productrec.metrics.classification, productrec.metrics.retrieval"
    assert list_imported(statement, "torch pandas", tmp_path) == []
    (tmp_path / "pandas.py").touch()
    (tmp_path / "guilty.py").write_text("import pandas", encoding="utf-8")
    assert list_imported(f"{statement}, guilty", "torch pandas", tmp_path) == ["pandas"]


@pytest.mark.parametrize(("k", "expected"), [(1, 1.0), (2, 2 / 3), (3, 0.0), (50, 0.0)])
def test_top_k_error(k: int, expected: float) -> None:
    # Ranks from 0: 2, then 1 and 2 by the ties in rows 1 and 2.
    error = compute_top_k_error(PROBABILITIES, CLASS_IDS, np.array([20, 10, 10]), k)
    assert error == pytest.approx(expected)
    assert type(error) is float


def test_ties_go_to_the_lower_position_whatever_its_class_id() -> None:
    even = np.full((2, 4), 0.25)
    class_ids = np.array([9, 7, 5, 3])
    for k, expected in ((1, 0.5), (3, 0.5), (4, 0.0)):
        assert compute_top_k_error(even, class_ids, np.array([9, 3]), k) == expected
    # Broken on purpose: a plain sort from the end names the last position first.
    assert np.argsort(even[0], kind="stable")[::-1][0] == 3


@pytest.mark.parametrize("unknown", [-1, 15, 99])
def test_an_unknown_label_is_an_error_at_any_k(unknown: int) -> None:
    labels = np.array([30, 20, unknown])
    assert compute_top_k_error(PROBABILITIES, CLASS_IDS, labels, 3) == pytest.approx(1 / 3)
    assert compute_top_1_accuracy(PROBABILITIES, CLASS_IDS, labels) == pytest.approx(2 / 3)
    expected = (-math.log(0.5) - math.log(0.8) + 25 * math.log(2)) / 3
    assert compute_log_loss(PROBABILITIES, CLASS_IDS, labels) == pytest.approx(expected)


def test_top_1_accuracy() -> None:
    accuracy = compute_top_1_accuracy(PROBABILITIES, CLASS_IDS, np.array([30, 20, 30]))
    assert accuracy == 1.0
    assert type(accuracy) is float


def test_log_loss() -> None:
    loss = compute_log_loss(PROBABILITIES, CLASS_IDS, np.array([10, 20, 20]))
    assert loss == pytest.approx(-(math.log(0.3) + math.log(0.8) + math.log(0.2)) / 3)
    assert type(loss) is float


def test_log_loss_is_finite_at_zero_and_one() -> None:
    certain = np.eye(2, dtype=np.float16)
    assert compute_log_loss(certain, np.array([0, 1]), np.array([0, 1])) == 0.0
    assert compute_log_loss(certain, np.array([0, 1]), np.array([1, 0])) == pytest.approx(25 * math.log(2))
    assert compute_log_loss(certain, np.array([0, 1]), np.array([1, 0]), floor=0.1) == pytest.approx(-math.log(0.1))
    assert np.float16(2.0**-25) == 0 < np.float16(2.0**-25 * 1.01)  # where the default floor comes from


def test_logits_have_ranks_but_no_log_loss() -> None:
    logits = np.log(PROBABILITIES) * 7
    labels = np.array([30, 30, 10])
    assert compute_top_k_error(logits, CLASS_IDS, labels, 2) == compute_top_k_error(PROBABILITIES, CLASS_IDS, labels, 2)
    with pytest.raises(DataError, match="softmax"):
        compute_log_loss(logits, CLASS_IDS, labels)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    labels = np.array([30, 20, 10])
    wrong = PROBABILITIES.copy()
    wrong[1, 2] = bad
    with pytest.raises(DataError, match=r"finite; got others in rows 1 \(1\)"):
        compute_top_k_error(wrong, CLASS_IDS, labels, 1)
    with pytest.raises(DataError, match="must be in"):
        compute_log_loss(wrong, CLASS_IDS, labels)
    # Broken on purpose: nothing is greater than a NaN, so a row of them would count as right.
    assert not (np.array([0.9]) > math.nan).any()


@pytest.mark.parametrize(
    ("probabilities", "class_ids", "labels", "said"),
    [
        (np.zeros((0, 3)), CLASS_IDS, np.zeros(0, dtype=int), "at least one row"),
        (np.zeros((3, 0)), np.zeros(0, dtype=int), np.array([1, 2, 3]), "at least one row and one class"),
        (np.zeros(3), CLASS_IDS, np.array([30, 20, 10]), r"must be \(N, C\)"),
        (PROBABILITIES, CLASS_IDS[:2], np.array([30, 20, 10]), "class_ids must be 3 integers"),
        (PROBABILITIES, CLASS_IDS, np.array([30, 20]), "labels must be 3 integers"),
        (PROBABILITIES, CLASS_IDS, np.array([30.0, 20.0, 10.0]), "labels must be 3 integers; got .* float64"),
        (PROBABILITIES, np.array([30, 10, 30]), np.array([30, 20, 10]), r"unique; got repeats of 1 \(30\)"),
    ],
)
def test_unsound_inputs_are_refused(
    probabilities: np.ndarray, class_ids: np.ndarray, labels: np.ndarray, said: str
) -> None:
    with pytest.raises(DataError, match=f"top-k error: .*{said}"):
        compute_top_k_error(probabilities, class_ids, labels, 1)
    with pytest.raises(DataError, match=f"top-1 accuracy: .*{said}"):
        compute_top_1_accuracy(probabilities, class_ids, labels)
    with pytest.raises(DataError, match=f"log loss: .*{said}"):
        compute_log_loss(probabilities, class_ids, labels)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="k must be at least 1; got 0"):
        compute_top_k_error(PROBABILITIES, CLASS_IDS, np.array([30, 20, 10]), 0)
    for floor in (0.0, 2.0, math.nan):
        with pytest.raises(DataError, match="floor must be"):
            compute_log_loss(PROBABILITIES, CLASS_IDS, np.array([30, 20, 10]), floor=floor)
