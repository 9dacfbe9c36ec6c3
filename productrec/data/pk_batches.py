"""PK batches: P classes times K images, and what an epoch of them is: every class, and no image left out for long."""

import math

import numpy as np

from productrec.data.batches import draw_counts


class PKPlan:
    """An epoch of batches that hold P groups of K images of one class each (Hermans et al. 2017, arXiv 1703.07737).

    A class of n images has n / K groups an epoch, rounded down or up by chance, and one at least: so every class is in
    every epoch, and an image is drawn once an epoch on average. A class with fewer than K images repeats them. Where
    images weigh less than 1, they are drawn that much less often, and their class has fewer groups. The last batch is
    filled by a few more groups of all classes.

    A class stands in a batch once, unless it has more groups than there are batches: then its groups are spread evenly,
    and every batch still holds another class. Where the other classes have too few groups for that they are repeated,
    at most ``class_repeats`` times; what of the large class does not fit is told by ``left_out``.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        images_per_class: int,
        *,
        class_repeats: float = 10.0,
        weights: np.ndarray | None = None,
    ) -> None:
        """What there is to draw from.

        Args:
            labels: (N,) class positions, at least one.
            batch_size: P times K.
            images_per_class: K.
            class_repeats: at least 1, see above.
            weights: (N,) from 0 to 1, sample weights, not all 0; None for ones.
        """
        self._images_per_class, self._batch_groups = images_per_class, batch_size // images_per_class
        rows = np.arange(len(labels)) if weights is None else np.flatnonzero(weights > 0)
        self._rows = rows[np.argsort(labels[rows], kind="stable")]
        self._row_weights = np.ones(len(rows)) if weights is None else weights[self._rows].astype(np.float64)
        self.classes, self._starts, self._sizes = np.unique(labels[self._rows], return_index=True, return_counts=True)
        own = np.maximum(1.0, self._sizes / images_per_class)
        own *= np.add.reduceat(self._row_weights, self._starts) / self._sizes
        self.batch_count, self._groups = _share_groups(own, self._batch_groups, class_repeats)
        missing = np.maximum(0.0, 1 - self._groups / own)
        self.left_out = float((missing * self._sizes).sum() / len(self._rows))
        """Share of the images that an epoch leaves out on average, because ``class_repeats`` has no room for them."""

    def draw(
        self,
        generator: np.random.Generator,
        *,
        near_classes: np.ndarray | None = None,
        hard_share: float = 0.0,
        categories: np.ndarray | None = None,
        category_share: float = 0.0,
    ) -> np.ndarray:
        """The batches of an epoch.

        Args:
            generator: where randomness comes from.
            near_classes: (C, count) the class positions nearest to each, nearest first.
            hard_share: of a batch's classes, how many are the nearest to its first that have groups left.
            categories: (C,) code of each class's category, -1 for none.
            category_share: of a batch's classes, how many at least are drawn from its first one's category, as long as
                that has classes with groups left. The nearest ones go before them and count for both shares where they
                are both.

        Returns:
            (``batch_count``, batch_size) row numbers; a batch's groups lie one after the other.
        """
        order = generator.permutation(len(self.classes))
        drawn = draw_counts(self._groups[order[:-1]], generator)
        counts = np.empty(len(order), np.int64)
        counts[order] = np.append(drawn, self.batch_count * self._batch_groups - drawn.sum())
        groups, first = self._deal(counts, generator)
        if (near_classes is None or not hard_share) and (categories is None or not category_share):
            table = _spread(order, counts, first, self.batch_count, generator)
        else:
            table = self._gather_kin(counts, first, generator, near_classes, hard_share, categories, category_share)
        batches: np.ndarray = groups[table].reshape(self.batch_count, -1)
        return batches

    def _deal(self, counts: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Groups (G, K) of row numbers, class by class, and the first one (C,) of each class.

        A class's images are drawn as often as they weigh, rounded down or up; an image's copies lie in different groups
        as far as there are any.
        """
        images, drawn = self._images_per_class, counts * self._images_per_class
        class_of = np.repeat(np.arange(len(counts)), self._sizes)
        shuffled = np.lexsort((generator.random(len(class_of)), class_of))
        weights = self._row_weights[shuffled]
        sums = np.add.reduceat(weights, self._starts)
        reached = np.cumsum(weights * (drawn / sums)[class_of])
        before = np.concatenate([[0.0], reached[self._starts[1:] - 1]])
        shifts = generator.random(len(counts))
        marks = np.floor(reached - before[class_of] + shifts[class_of] + 1e-9).astype(np.int64)
        marks[self._starts + self._sizes - 1] = drawn  # whatever rounding did to the sum
        marks = np.minimum(marks, drawn[class_of])
        times = np.diff(marks, prepend=0)
        times[self._starts] = marks[self._starts]
        rows = np.repeat(self._rows[shuffled], times)
        first = np.cumsum(counts) - counts
        of_class = np.repeat(np.arange(len(counts)), drawn)
        turn = np.arange(len(rows)) - first[of_class] * images
        groups = np.empty((int(counts.sum()), images), np.int64)
        groups[first[of_class] + turn % counts[of_class], turn // counts[of_class]] = rows
        return groups, first

    def _gather_kin(
        self,
        counts: np.ndarray,
        first: np.ndarray,
        generator: np.random.Generator,
        near_classes: np.ndarray | None,
        hard_share: float,
        categories: np.ndarray | None,
        category_share: float,
    ) -> np.ndarray:
        """Groups (batches, P) of classes near each other; how often a class stands in a batch is as in `_spread`."""
        wanted, left, table = self._batch_groups, counts.copy(), []
        codes = None if categories is None else categories[self.classes]
        for batches_left in range(self.batch_count, 0, -1):
            sure, rest = np.divmod(left, batches_left)  # a class with a group for every batch is in this one
            with np.errstate(divide="ignore"):
                # Gumbel's trick: the largest keys are a draw without replacement, proportional to what is left.
                keys = np.log(rest) + generator.gumbel(size=len(rest))
            drawn = np.argsort(-keys, kind="stable")[: np.count_nonzero(rest)]
            present = np.flatnonzero(sure)
            leader = int(drawn[0]) if len(drawn) else int(present[0])
            if codes is not None and codes[leader] >= 0:
                drawn = _put_forward(drawn, leader, drawn[codes[drawn] == codes[leader]], category_share * (wanted - 1))
            if near_classes is not None:
                near = near_classes[self.classes[leader]]
                near = np.searchsorted(self.classes, near[np.isin(near, self.classes)])
                drawn = _put_forward(drawn, leader, near[rest[near] > 0], hard_share * (wanted - 1))
            chosen = np.concatenate([drawn[: wanted - int(sure.sum())], np.repeat(present, sure[present])])
            order = np.argsort(chosen, kind="stable")
            same = np.diff(chosen[order], prepend=-1) != 0
            nth = np.empty(len(chosen), np.int64)
            nth[order] = np.arange(len(chosen)) - np.maximum.accumulate(np.where(same, np.arange(len(chosen)), 0))
            table.append(first[chosen] + counts[chosen] - left[chosen] + nth)
            np.subtract.at(left, chosen, 1)
        return np.stack(table)


def _share_groups(own: np.ndarray, wanted: int, class_repeats: float) -> tuple[int, np.ndarray]:
    """Batches of an epoch, and the groups (C,) that each class has of them on average.

    Args:
        own: (C,) groups that a class's images make.
        wanted: P, groups of a batch.
        class_repeats: how often the smaller classes' groups may be repeated beside one that would fill whole batches.
    """
    batches = max(1, math.ceil(own.sum() / wanted - 1e-9))
    if len(own) == 1:
        return batches, np.array([float(batches * wanted)])
    most = batches * wanted
    if wanted > 1:  # of a class, so that another one is in every batch
        largest = float(own.max())
        batches = max(batches, math.ceil(largest / (wanted - 1) - 1e-9))
        batches = min(batches, max(1, math.floor(class_repeats * (own.sum() - largest))))
        most = batches * (wanted - 1)
    # A class is repeated within a batch only where it has more groups than batches, or there are too few classes.
    room = np.minimum(np.maximum(own, batches * math.ceil(wanted / len(own))), most)
    return batches, _fill(own, room, batches * wanted)


def _fill(own: np.ndarray, room: np.ndarray, total: int) -> np.ndarray:
    """Shares (C,) of a total, in proportion to ``own`` but for those that have no room for it."""
    order = np.argsort(room / own, kind="stable")
    full = np.concatenate([[0.0], np.cumsum(room[order])[:-1]])
    growing = np.cumsum(own[order][::-1])[::-1]
    factors = (total - full) / growing
    fits = factors <= (room / own)[order] + 1e-12
    factor = factors[int(np.argmax(fits))] if fits.any() else np.inf
    shares: np.ndarray = np.minimum(own * factor, room)
    return shares


def _spread(
    order: np.ndarray, counts: np.ndarray, first: np.ndarray, batches: int, generator: np.random.Generator
) -> np.ndarray:
    """Groups (batches, P), each class's as evenly over the batches as they go, and beside others by chance.

    The groups are laid out class by class, in a random order of classes, as P rows of one group a batch; each row is
    then shuffled by itself. A class that goes on in the next row keeps to the batches that have one less of it.
    """
    lengths = counts[order]
    groups = np.repeat(first[order] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    rows = np.repeat(order, lengths).reshape(-1, batches)
    table = np.empty_like(rows)
    ahead = np.empty(0, np.int64)  # the batches that hold one more than others of the class the row before ended with
    for number, row in enumerate(rows):
        columns = generator.permutation(batches)
        goes_on = number > 0 and row[0] == rows[number - 1, -1]
        led = int(np.argmax(row != row[0])) or batches
        if goes_on and led < batches:
            is_ahead = np.isin(columns, ahead)
            columns = np.concatenate([columns[~is_ahead], columns[is_ahead]])
            columns[led:] = generator.permutation(columns[led:])
        table[number, columns] = groups[number * batches : (number + 1) * batches]
        if led < batches:
            ended = int(np.argmax(row[::-1] != row[-1]))
            ahead = columns[batches - ended :]
        elif not goes_on:
            ahead = np.empty(0, np.int64)
    return table.T


def _put_forward(drawn: np.ndarray, leader: int, preferred: np.ndarray, count: float) -> np.ndarray:
    """The order as drawn, but its first ``count`` of the preferred numbers, as they are ordered, behind the leader."""
    preferred = preferred[preferred != leader][: round(count)]
    leading = drawn[drawn == leader]
    others = drawn[(drawn != leader) & ~np.isin(drawn, preferred)]
    return np.concatenate([leading, preferred, others])
