"""Agreement: how far the answers of two forms of one network are from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

# (B, S, S, 3) uint8 to embeddings (B, D) of unit norm and probabilities (B, C), both float32.
Recognise = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_ALONE = 4  # images that are also asked one by one


@dataclass(frozen=True)
class Agreement:
    """Two sets of answers to the same images.

    ``images``: how many; ``embedding`` and ``probability``: the largest difference of any number of an embedding or a
    probability, infinite where one is not finite; ``same_answers``: images whose most probable class is the same.
    """

    images: int
    embedding: float
    probability: float
    same_answers: int

    def is_within(self, tolerance: float) -> bool:
        """Whether no number differs by more than ``tolerance``."""
        return self.embedding <= tolerance and self.probability <= tolerance


@dataclass(frozen=True)
class Loss:
    """What answers of lower precision lose.

    ``images``: how many were asked; ``same_answers``: those whose most probable class stayed; ``similarity``: of an
    image's two embeddings, the mean; ``right``: answers that are the image's own class, before and after, None where
    nobody knows these.
    """

    images: int
    same_answers: int
    similarity: float
    right: tuple[int, int] | None


def compare_answers(recognise: Recognise, other: Recognise, squares: np.ndarray, batch_size: int) -> Agreement:
    """Ask both for all images in batches, and for some of them one by one, since a batch of one may go another way.

    Args:
        recognise: what is right.
        other: what is compared with it.
        squares: (N, S, S, 3) uint8, at least one.
        batch_size: at least 2; a single image is asked twice in one batch.
    """
    batches = [squares[start : start + batch_size] for start in range(0, len(squares), batch_size)]
    if len(squares) == 1:
        batches = [np.repeat(squares, 2, axis=0)]
    right = [recognise(batch) for batch in batches]
    given = [other(batch) for batch in batches]
    same = sum(
        int((ours[1].argmax(axis=1) == theirs[1].argmax(axis=1)).sum())
        for ours, theirs in zip(right, given, strict=True)
    )
    for image in squares[:_ALONE]:
        right.append(recognise(image[None]))
        given.append(other(image[None]))
    embedding, probability = (
        max(_find_largest(ours[part], theirs[part]) for ours, theirs in zip(right, given, strict=True))
        for part in (0, 1)
    )
    return Agreement(len(squares), embedding, probability, min(same, len(squares)))


def measure_loss(
    recognise: Recognise, lower: Recognise, batches: Iterable[tuple[np.ndarray, np.ndarray | None]]
) -> Loss:
    """Compare answers with those of lower precision.

    Args:
        recognise: in float32.
        lower: in lower precision.
        batches: (B, S, S, 3) uint8 with the positions (B,) of the images' classes among the probabilities, -1 for one
            that is none of these; or with None, where nobody knows them.
    """
    images = same = before = after = 0
    similarity, labelled = 0.0, True
    for squares, positions in batches:
        (embeddings, probabilities), (others, other_probabilities) = recognise(squares), lower(squares)
        answers, other_answers = probabilities.argmax(axis=1), other_probabilities.argmax(axis=1)
        images += len(squares)
        same += int((answers == other_answers).sum())
        similarity += float((embeddings.astype(np.float64) * others).sum())
        if positions is None:
            labelled = False
            continue
        before += int((answers == positions).sum())
        after += int((other_answers == positions).sum())
    return Loss(images, same, similarity / max(images, 1), (before, after) if labelled else None)


def _find_largest(values: np.ndarray, others: np.ndarray) -> float:
    largest = float(np.abs(values.astype(np.float64) - others).max())
    return largest if np.isfinite(largest) else float("inf")
