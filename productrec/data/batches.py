"""Batches of one epoch, as row numbers: shuffled, or balanced over classes; those of classes times images are in
`pk_batches`."""

import numpy as np


def draw_present(weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows of one epoch, each there with the probability of its weight: a systematic sample of shuffled rows.

    Their count is the sum of the weights, rounded down or up.

    Args:
        weights: (N,) float64, from 0 to 1.
        generator: where randomness comes from.

    Returns:
        Row numbers, ascending, int64.
    """
    sure = np.flatnonzero(weights == 1)
    order = generator.permutation(np.flatnonzero((weights > 0) & (weights < 1)))
    taken = draw_counts(weights[order], generator) > 0
    return np.sort(np.concatenate([sure, order[taken]]))


def draw_shuffled_batches(count: int, batch_size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Every row at most once, in random order, in full batches; fewer rows than a batch make one smaller batch."""
    order = generator.permutation(count)
    batches = max(1, count // batch_size)
    return [order[start * batch_size : (start + 1) * batch_size] for start in range(batches)]


def draw_balanced_batches(
    labels: np.ndarray, batch_size: int, generator: np.random.Generator, *, class_power: float
) -> list[np.ndarray]:
    """Shuffled batches; a class's share is its size to a power (Kang et al. 2020, arXiv 1910.09217, equation 1).

    A class's draws are its share of the epoch, rounded down or up. Its images are dealt from a shuffle, all of them
    before any repeats; its draws are spread evenly over the batches, and no image stands in one twice unless it is
    drawn more often than there are batches.

    Args:
        labels: (N,) class positions.
        batch_size: rows of a batch; fewer rows than that make one batch of N.
        generator: where randomness comes from.
        class_power: 0 draws every class equally often, 0.5 by the square root of its size, 1 by its size.

    Returns:
        N // batch_size arrays of batch_size rows, at least one.
    """
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    count = max(1, len(labels) // batch_size)
    slots = count * min(len(labels), batch_size)
    numbers = generator.permutation(len(sizes))
    shares = sizes[numbers] ** float(class_power)
    draws = draw_counts(slots * shares[:-1] / shares.sum(), generator)
    draws = np.append(draws, slots - draws.sum())
    dealt = []
    for number, drawn in zip(numbers, draws, strict=True):
        rows = generator.permutation(order[starts[number] : starts[number] + sizes[number]])
        times, rest = divmod(int(drawn), len(rows))
        dealt.append(np.repeat(rows, times + (np.arange(len(rows)) < rest)))
    # One row to each batch in turn: a row's copies, and a class's rows, stand side by side and so come apart.
    batches = np.concatenate(dealt).reshape(-1, count).T
    return list(generator.permuted(generator.permutation(batches), axis=1))


def draw_counts(expected: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Whole numbers, each the expected one rounded down or up, right on average; their sum likewise."""
    # Marks stand at every whole number of the running sum, shifted by one draw; a count is the marks that it passes.
    reached = np.floor(np.cumsum(expected) + generator.random())
    return np.diff(reached, prepend=0.0)
