import pytest
import torch

from productrec.errors import TrainingError
from productrec.losses.engine.batch import check_batch, check_label_range, choose_computing_dtype


def test_a_sound_batch_passes() -> None:
    for dtype in (torch.int64, torch.int32, torch.uint8):
        check_batch("here", torch.zeros(3, 2), torch.zeros(3, dtype=dtype))
    check_label_range("here", torch.tensor([0, 4]), 5)


@pytest.mark.parametrize(
    ("rows", "labels", "said"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "matrix"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "at least one"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "floating point"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"shape \(3,\); got \(2,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64), "one-hot"),
        (torch.zeros(3, 2), torch.zeros(3), "integer class positions; got torch.float32"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool), "integer class positions; got torch.bool"),
    ],
)
def test_an_unsound_batch_is_refused(rows: torch.Tensor, labels: torch.Tensor, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        check_batch("this loss", rows, labels)
    assert str(caught.value).startswith("this loss: ")


@pytest.mark.parametrize("labels", [[0, 5], [-1, 0], [-100]])
def test_labels_out_of_range_are_refused(labels: list[int]) -> None:
    with pytest.raises(TrainingError, match="from 0 to 4; got"):
        check_label_range("here", torch.tensor(labels), 5)


def test_labels_off_the_cpu_are_not_read() -> None:
    labels = torch.empty(3, dtype=torch.int64, device="meta")
    check_label_range("here", labels, 5)
    with pytest.raises((RuntimeError, NotImplementedError)):  # what reading them would have done
        int(labels.min())


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.float16,), torch.float32),
        ((torch.bfloat16,), torch.float32),
        ((torch.float32,), torch.float32),
        ((torch.float64,), torch.float64),
        ((torch.bfloat16, torch.float16), torch.float32),
        ((torch.bfloat16, torch.float64), torch.float64),
    ],
)
def test_computing_dtype(dtypes: tuple[torch.dtype, ...], expected: torch.dtype) -> None:
    assert choose_computing_dtype(*(torch.zeros(1, dtype=dtype) for dtype in dtypes)) == expected
