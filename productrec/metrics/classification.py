"""Classification metrics: how often, and how surely, the predicted classes hold the true one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from productrec.class_order import ClassOrder
from productrec.errors import DataError, describe_offenders

# Rows ranked at a time: a block of 2,048 rows by 2,019 classes is 16 MB in float32.
_BLOCK_ROWS = 2048


def compute_top_k_error(probabilities: NDArray[Any], class_ids: NDArray[Any], labels: NDArray[Any], k: int) -> float:
    """Share of rows whose label is not among the k most probable classes.

    Equal probabilities rank by class position, lower first, so the answer never depends on a sort's whim. A label that
    is not in ``class_ids`` is an error whatever k is. k at or above C is allowed.

    Args:
        probabilities: (N, C), finite; only their order within a row matters, so logits do as well.
        class_ids: (C,) integers, the class id of each column, unique.
        labels: (N,) integers, the true class id of each row.
        k: how many classes may be named, at least 1.

    Returns:
        Share in [0, 1], lower is better.

    Raises:
        DataError: shapes do not fit, no rows, a value that is not finite, class ids that repeat, or k below 1.

    Example:
        >>> compute_top_k_error(np.array([[0.5, 0.3, 0.2]]), np.array([10, 11, 12]), np.array([12]), k=2)
        1.0
    """
    if k < 1:
        raise DataError(f"top-k error: k must be at least 1; got {k}. A submission names at least one class.")
    ranks = compute_label_ranks(probabilities, class_ids, labels, where="top-k error")
    return float(np.mean(ranks >= min(k, probabilities.shape[1])))


def compute_top_1_accuracy(probabilities: NDArray[Any], class_ids: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of rows whose most probable class is their label; arguments and errors as :func:`compute_top_k_error`."""
    return float(np.mean(compute_label_ranks(probabilities, class_ids, labels, where="top-1 accuracy") == 0))


def compute_log_loss(
    probabilities: NDArray[Any], class_ids: NDArray[Any], labels: NDArray[Any], *, floor: float = 2.0**-25
) -> float:
    """Mean of -log of the probability given to the label, in nats.

    Probabilities are read as they are, without making rows sum to 1 again. Those below ``floor`` count as ``floor``;
    the default is where float16, the type they are stored in, rounds to 0. A label that is not in ``class_ids`` was
    given probability 0 and costs -log(floor), about 17.3.

    Args:
        probabilities: (N, C) in [0, 1] (up to 1.001, for rounding).
        class_ids: (C,) integers, the class id of each column, unique.
        labels: (N,) integers, the true class id of each row.
        floor: smallest probability counted, in (0, 1].

    Returns:
        Nats a row, lower is better.

    Raises:
        DataError: shapes do not fit, no rows, values that are not probabilities, class ids that repeat.
    """
    where = "log loss"
    _check_inputs(where, probabilities, class_ids, labels)
    if not 0 < floor <= 1:
        raise DataError(f"{where}: floor must be above 0 and at most 1; got {floor}. The default fits float16.")
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (low >= 0 and high <= 1.001):
        raise DataError(
            f"{where}: probabilities must be in [0, 1]; got {low} to {high}. Take the softmax of logits first."
        )
    positions = ClassOrder(class_ids).positions_of(labels)
    given = np.where(positions >= 0, probabilities[np.arange(len(labels)), positions].astype(np.float64), 0.0)
    return float(-np.log(np.clip(given, floor, 1.0)).mean())


def compute_map_at_k(ranks: NDArray[np.integer], k: int, weights: NDArray[np.float64] | None = None) -> float:
    """Mean average precision at k where each row has one true class: the mean of 1 / (1 + rank), 0 from rank k on.

    Args:
        ranks: (N,) how many classes rank before the true one.
        k: how many guesses count.
        weights: (N,) how often each row counts; None for once each.
    """
    return float(np.average(np.where(ranks < k, 1 / (1 + ranks.astype(np.float64)), 0.0), weights=weights))


def compute_global_average_precision(
    is_right: NDArray[np.bool_],
    confidence: NDArray[np.floating],
    answerable: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
) -> float:
    """GAP, or micro-AP: all answers in one list, the surest first; the mean precision at the right ones.

    The sum of precision over the right answers by the number of rows that have one (Perronnin et al., CVPR 2009;
    Google Landmark). Answers of equal confidence stand in the order they are given.

    Args:
        is_right: (N,) whether each row's answer is right.
        confidence: (N,) of it.
        answerable: (N,) whether there is a right answer.
        weights: (N,) how often each row counts; None for once each.
    """
    order = np.argsort(-confidence, kind="stable")
    times = np.ones(len(order)) if weights is None else weights
    return sum_precisions((is_right * times)[order], times[order]) / max(float((answerable * times).sum()), 1e-300)


def sum_precisions(right: NDArray[np.float64], times: NDArray[np.float64]) -> float:
    """Sum of the precisions of a ranked list at its right answers.

    A row that counts w times makes w answers in a row, of one precision to within rounding of its own w.

    Args:
        right: (N,) how often each row counts where its answer is right, else 0; the surest first.
        times: (N,) how often each row counts.
    """
    return float(right @ (np.cumsum(right) / np.maximum(np.cumsum(times), 1e-300)))


def compute_macro_f1(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], weights: NDArray[np.float64] | None = None
) -> float:
    """Mean over classes of F1, 2 TP / (2 TP + FP + FN), as scikit-learn's ``f1_score(average="macro")``.

    The classes are those that are true or predicted somewhere; one that is never both has an F1 of 0.

    Args:
        labels: (N,) true class ids.
        predicted: (N,) class ids.
        weights: (N,) how often each row counts; None for once each.
    """
    right, true, named = _count_by_class(labels, predicted, weights)
    return float(np.mean((2 * right / np.maximum(true + named, 1e-300))[true + named > 0]))


def compute_balanced_accuracy(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], weights: NDArray[np.float64] | None = None
) -> float:
    """Mean over the true classes of the share of their rows that is predicted right; arguments as compute_macro_f1."""
    right, true, _ = _count_by_class(labels, predicted, weights)
    return float(np.mean((right / np.maximum(true, 1e-300))[true > 0]))


def _count_by_class(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows of each class that are predicted right, that are of it, and that are predicted as it."""
    classes, codes = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    own, named = codes[: len(labels)], codes[len(labels) :]
    times = np.ones(len(labels)) if weights is None else weights

    def add_up(which: NDArray[np.integer], counted: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(which, weights=counted, minlength=len(classes)).astype(np.float64)

    return add_up(own, times * (own == named)), add_up(own, times), add_up(named, times)


def compute_label_ranks(
    probabilities: NDArray[Any], class_ids: NDArray[Any], labels: NDArray[Any], *, where: str = "label ranks"
) -> NDArray[np.int64]:
    """How many classes rank before each row's label; C where the label is not among the classes.

    Arguments and errors as :func:`compute_top_k_error`; ``where`` names the caller in an error.

    Returns:
        (N,) int64, 0 for a label that ranks first.
    """
    _check_inputs(where, probabilities, class_ids, labels)
    positions = ClassOrder(class_ids).positions_of(labels)
    columns = np.arange(probabilities.shape[1])
    ranks = np.empty(len(labels), dtype=np.int64)
    for start in range(0, len(labels), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        # NumPy compares float16 one by one; float32 holds the same values and compares many at once.
        block = probabilities[rows].astype(np.result_type(probabilities, np.float32), copy=False)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{where}: probabilities must be finite; got others in rows "
                f"{describe_offenders(start + np.flatnonzero(~finite))}. Predict these rows again."
            )
        own_position = positions[rows, None]
        own = np.take_along_axis(block, own_position, axis=1)
        before = (block > own) | ((block == own) & (columns < own_position))
        ranks[rows] = np.count_nonzero(before, axis=1)
    ranks[positions < 0] = len(columns)  # until here of some column
    return ranks


def _check_inputs(where: str, probabilities: NDArray[Any], class_ids: NDArray[Any], labels: NDArray[Any]) -> None:
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise DataError(
            f"{where}: probabilities must be (N, C) with at least one row and one class; got shape "
            f"{probabilities.shape}. Check that the split has labelled images."
        )
    for name, values, length in (
        ("class_ids", class_ids, probabilities.shape[1]),
        ("labels", labels, len(probabilities)),
    ):
        if values.shape != (length,) or not np.issubdtype(values.dtype, np.integer):
            raise DataError(
                f"{where}: {name} must be {length} integers; got shape {values.shape} of {values.dtype}. "
                "Take them from the same artefact as the probabilities."
            )
    listed, counts = np.unique(class_ids, return_counts=True)
    if len(listed) < len(class_ids):
        raise DataError(
            f"{where}: class_ids must be unique; got repeats of {describe_offenders(listed[counts > 1])}. "
            "Merge the columns of one class first."
        )
