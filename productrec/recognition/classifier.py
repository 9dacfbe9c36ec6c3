"""The classifier of a run: what head, neighbours and prototypes say becomes one probability, as was fitted for it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from productrec.recognition.prototypes import back_off
from productrec.recognition.vote import Vote, compute_nearest, compute_softmax, compute_vote, soften
from productrec.recognition.weights import Rule, combine

BLENDED = ("head", "vote", "prototypes")


@dataclass(frozen=True)
class Evidence:
    """What is known of some queries.

    ``logits``: (Q, C); ``classes``: (Q, K) class position of each neighbour, -1 for one that is none of the C;
    ``similarities``: (Q, K), descending; ``prototypes``: (Q, C) similarity to each class's prototype, None where they
    are not asked; ``categories``: (C,) a number for each class's category, None where all are of one; ``distractors``:
    (Q,) similarity to the nearest image that is known to be of no class, None where there are no such images.
    """

    logits: np.ndarray
    classes: np.ndarray
    similarities: np.ndarray
    prototypes: np.ndarray | None = None
    categories: Sequence[int] | None = None
    distractors: np.ndarray | None = None

    def take(self, rows: slice | np.ndarray) -> Evidence:
        """That of some queries."""
        return Evidence(
            self.logits[rows],
            self.classes[rows],
            self.similarities[rows],
            None if self.prototypes is None else self.prototypes[rows],
            self.categories,
            None if self.distractors is None else self.distractors[rows],
        )


def join_evidence(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of some queries, then that of others, as many neighbours of each as the least have.

    Args:
        parts: of the same classes, all with prototypes, and all or none with distractors.
    """
    k = min(part.classes.shape[1] for part in parts)
    far = [part.distractors for part in parts if part.distractors is not None]
    return Evidence(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.classes[:, :k] for part in parts]),
        np.concatenate([part.similarities[:, :k] for part in parts]),
        np.concatenate([part.prototypes for part in parts if part.prototypes is not None]),
        parts[0].categories,
        np.concatenate(far) if far else None,
    )


class Parts(NamedTuple):
    """Probabilities (Q, C) float32 by each way to predict, and ``fused``, what the classifier answers.

    The names of these fields are the parts' names on disk and in tables.
    """

    head: np.ndarray
    nearest: np.ndarray
    vote: np.ndarray
    prototypes: np.ndarray
    fused: np.ndarray


RERANKED = "reranked"  # what the classifier answers where a re-ranking was kept; see `recognition.reranked`
PARTS = (*Parts._fields, RERANKED)
# How a person reads them.
PART_TITLES = {
    "head": "head alone",
    "nearest": "nearest neighbour",
    "vote": "vote",
    "prototypes": "prototypes",
    "fused": "fused",
    RERANKED: "re-ranked",
}
Way = TypeVar("Way")


def name_answer(parts: Container[str]) -> str:
    """The part that is answered: the last of `PARTS` that is there."""
    return RERANKED if RERANKED in parts else "fused"


def get_answer(parts: Mapping[str, Way]) -> Way:
    """What stands for the part that is answered."""
    return parts[name_answer(parts)]


@dataclass(frozen=True)
class Classifier:
    """How parts become one answer.

    ``head_scale``: what logits are multiplied by before their softmax, and ``prototype_scale`` similarities to
    prototypes; ``weights``: of the parts in `BLENDED`; ``rule``: see `weights.combine`; ``category_share``: see
    `prototypes.back_off`, of the vote.
    """

    vote: Vote = field(default_factory=Vote)
    head_scale: float = 1.0
    prototype_scale: float = 20.0
    weights: Mapping[str, float] = field(default_factory=lambda: {"head": 0.5, "vote": 0.5})
    rule: Rule = "linear"
    category_share: float = 0.0

    def describe(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self) | {"weights": dict(self.weights)}

    def tell(self) -> str:
        """The settings in words."""
        total = sum(self.weights.values())
        shares = {name: weight / total for name, weight in self.weights.items() if weight}
        voters = f"vote of {self.vote.k} neighbours"
        named = {"head": "head", "vote": voters, "prototypes": "class prototypes"}
        if len(shares) == 1:
            return f"{named[next(iter(shares))]} alone"
        if self.rule == "product":
            return "product of " + ", ".join(f"{named[name]} ^ {self.weights[name]:.2g}" for name in shares)
        return " + ".join(f"{share:.2g} x {named[name]}" for name, share in shares.items())


# What answers where nothing could be fitted.
UNFITTED = Classifier(weights={"head": 0.5, "prototypes": 0.5}, rule="product")


def build_classifier(values: Mapping[str, Any]) -> Classifier:
    """A classifier from what `Classifier.describe` gave."""
    return Classifier(**{**values, "vote": Vote(**values["vote"])})


def compute_parts(evidence: Evidence, classifier: Classifier) -> Parts:
    """Probabilities of some queries by every part of a classifier, and by all of it."""
    class_count = evidence.logits.shape[1]
    near = np.zeros_like(evidence.logits, dtype=np.float32) if evidence.prototypes is None else evidence.prototypes
    parts = {
        "head": compute_softmax(evidence.logits, classifier.head_scale),
        "nearest": compute_nearest(evidence.classes, evidence.similarities, class_count),
        "vote": soften(compute_vote(evidence.classes, evidence.similarities, class_count, classifier.vote)),
        "prototypes": compute_softmax(near, classifier.prototype_scale),
    }
    return Parts(**parts, fused=fuse(parts, classifier, evidence.categories))


def fuse(parts: Mapping[str, np.ndarray], classifier: Classifier, categories: Sequence[int] | None) -> np.ndarray:
    """The parts of a classifier as one probability (Q, C) float32."""
    opinions = dict(parts)
    if classifier.category_share and categories is not None:
        opinions["vote"] = back_off(opinions["vote"], categories, classifier.category_share)
    names = list(classifier.weights)
    return combine([opinions[name] for name in names], list(classifier.weights.values()), classifier.rule)
