"""The figures that models are compared by: name, title, what they judge, and whether less is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """A figure in [0, 1].

    ``title``: as a table heads it; ``judges``: the head, the embedding by its neighbours alone, which needs no class
    that was trained on, or images and titles by one another, which needs none at all; ``lower_is_better``: so of an
    error.
    """

    title: str
    judges: Literal["head", "embedding", "titles"]
    lower_is_better: bool = False

    def orient(self, value: float) -> float:
        """The value, turned so that more is better."""
        return -value if self.lower_is_better else value


# What is measured on validation images during training, by name.
VALIDATION_FIGURES = {
    "top_1_accuracy": Figure("top-1 accuracy", "head"),
    "top_3_error": Figure("top-3 error", "head", lower_is_better=True),
    "competition": Figure("mean of the competition's metric and top-1 accuracy", "head"),
    "recall@1": Figure("Recall@1", "embedding"),
    "map@r": Figure("MAP@R", "embedding"),
    "pair_recall": Figure("mean Recall@1, 5 and 10 between images and titles", "titles"),
    "image_to_title_recall@1": Figure("Recall@1, image to title", "titles"),
    "title_to_image_recall@1": Figure("Recall@1, title to image", "titles"),
}
HEAD_FIGURES = tuple(name for name, figure in VALIDATION_FIGURES.items() if figure.judges == "head")
TITLE_FIGURES = tuple(name for name, figure in VALIDATION_FIGURES.items() if figure.judges == "titles")
RETRIEVAL_FIGURES = tuple(name for name, figure in VALIDATION_FIGURES.items() if figure.judges == "embedding")


def is_better(name: str, value: float, than: float) -> bool:
    """Whether a value of the validation figure ``name`` is strictly better than another."""
    figure = VALIDATION_FIGURES[name]
    return figure.orient(value) > figure.orient(than)
