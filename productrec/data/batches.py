"""Batches of one epoch, as row numbers: shuffled, balanced over classes, or classes times images."""

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
    taken = _draw_counts(weights[order], generator) > 0
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
    draws = _draw_counts(slots * shares[:-1] / shares.sum(), generator)
    draws = np.append(draws, slots - draws.sum())
    dealt = []
    for number, drawn in zip(numbers, draws, strict=True):
        rows = generator.permutation(order[starts[number] : starts[number] + sizes[number]])
        times, rest = divmod(int(drawn), len(rows))
        dealt.append(np.repeat(rows, times + (np.arange(len(rows)) < rest)))
    # One row to each batch in turn: a row's copies, and a class's rows, stand side by side and so come apart.
    batches = np.concatenate(dealt).reshape(-1, count).T
    return list(generator.permuted(generator.permutation(batches), axis=1))


def draw_pk_batches(
    labels: np.ndarray,
    batch_size: int,
    images_per_class: int,
    generator: np.random.Generator,
    *,
    count: int | None = None,
    near_classes: np.ndarray | None = None,
    hard_share: float = 0.0,
    categories: np.ndarray | None = None,
    category_share: float = 0.0,
) -> list[np.ndarray]:
    """Batches of P distinct classes times K images (Hermans et al. 2017, arXiv 1703.07737), as many as fill an epoch.

    Each class's images are shuffled and dealt in groups of K (a class with fewer than K repeats some of its own); each
    batch draws P classes with probability proportional to the groups they have left, so that an epoch sees nearly every
    image once and no class twice in a batch. With fewer than P classes some stand in a batch twice.

    Args:
        labels: (N,) class positions.
        batch_size: P times K.
        images_per_class: K.
        generator: where randomness comes from.
        count: how many batches, None for N // batch_size and at least one.
        near_classes: (C, count) the class positions nearest to each, nearest first.
        hard_share: of a batch's classes, how many are the nearest to its first that have images left.
        categories: (C,) code of each class's category, -1 for none.
        category_share: of a batch's classes, how many at least are drawn from its first one's category, as long as that
            has classes with images left. The nearest ones go before them and count for both shares where they are both.

    Returns:
        ``count`` arrays of batch_size rows.
    """
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    rows_of = np.split(order, starts[1:])
    groups: list[list[np.ndarray]] = [[] for _ in classes]
    wanted = batch_size // images_per_class
    left = np.array([-(-len(rows) // images_per_class) for rows in rows_of], dtype=np.float64)
    codes = None if categories is None else categories[classes]
    batches = []
    for _ in range(max(1, len(labels) // batch_size) if count is None else count):
        chosen: list[int] = []
        while len(chosen) < wanted:
            # Gumbel's trick: the largest keys are a draw without replacement, proportional to what is left.
            weights = left if (left > 0).sum() >= min(wanted, len(classes)) else left + 1e-6
            with np.errstate(divide="ignore"):
                keys = np.log(weights) + generator.gumbel(size=len(classes))
            drawn = np.argsort(-keys, kind="stable")
            if codes is not None and not chosen and codes[drawn[0]] >= 0:
                kin = drawn[codes[drawn] == codes[drawn[0]]]
                drawn = _put_forward(drawn, kin[left[kin] > 0], round(category_share * (wanted - 1)))
            if near_classes is not None and not chosen:
                near = near_classes[classes[drawn[0]]]
                near = np.searchsorted(classes, near[np.isin(near, classes)])
                drawn = _put_forward(drawn, near[left[near] > 0], round(hard_share * (wanted - 1)))
            chosen += drawn[: wanted - len(chosen)].tolist()
        batch = []
        for number in chosen:
            if not groups[number]:
                groups[number] = _deal(rows_of[number], images_per_class, generator)
            batch.append(groups[number].pop())
            left[number] = max(left[number] - 1, 0.0)
        batches.append(np.concatenate(batch))
    return batches


def _draw_counts(expected: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Whole numbers, each the expected one rounded down or up, right on average; their sum likewise."""
    # Marks stand at every whole number of the running sum, shifted by one draw; a count is the marks that it passes.
    reached = np.floor(np.cumsum(expected) + generator.random())
    return np.diff(reached, prepend=0.0)


def _put_forward(drawn: np.ndarray, preferred: np.ndarray, count: int) -> np.ndarray:
    """The order as drawn, but right behind its first ``count`` of the preferred numbers, as they are ordered."""
    first, others = drawn[:1], drawn[1:]
    preferred = preferred[preferred != first][:count]
    return np.concatenate([first, preferred, others[~np.isin(others, preferred)]])


def _deal(rows: np.ndarray, size: int, generator: np.random.Generator) -> list[np.ndarray]:
    shuffled = generator.permutation(rows)
    short = -len(rows) % size
    if short:
        # The last group is filled from the others, so that an image never stands beside itself where that can be.
        others = shuffled[: len(rows) // size * size] if len(rows) > size else rows
        shuffled = np.concatenate([shuffled, generator.choice(others, short, replace=len(others) < short)])
    return list(shuffled.reshape(-1, size))
