"""The classifier of a run: what head, neighbours and prototypes say becomes one probability, as was fitted for it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

import numpy as np

from productrec.recognition.prototypes import back_off
from productrec.recognition.vote import Vote, compute_nearest, compute_softmax, compute_vote, soften
from productrec.recognition.voters import FurtherVoter, VoterEvidence, build_voter, join_voters
from productrec.recognition.weights import Rule, combine

BLENDED = ("head", "vote", "prototypes")


@dataclass(frozen=True)
class Evidence:
    """What is known of some queries.

    ``logits``: (Q, C); ``classes``: (Q, K) class position of each neighbour, -1 for one that is none of the C;
    ``similarities``: (Q, K), descending; ``prototypes``: (Q, C) similarity to each class's prototype, None where they
    are not asked; ``categories``: (C,) a number for each class's category, None where all are of one; ``distractors``:
    (Q,) similarity to the nearest image that is known to be of no class, None where there are no such images;
    ``voters``: what further voters know of the queries, by name.
    """

    logits: np.ndarray
    classes: np.ndarray
    similarities: np.ndarray
    prototypes: np.ndarray | None = None
    categories: Sequence[int] | None = None
    distractors: np.ndarray | None = None
    voters: Mapping[str, VoterEvidence] = field(default_factory=dict)

    def take(self, rows: slice | np.ndarray) -> Evidence:
        """That of some queries."""
        return Evidence(
            self.logits[rows],
            self.classes[rows],
            self.similarities[rows],
            None if self.prototypes is None else self.prototypes[rows],
            self.categories,
            None if self.distractors is None else self.distractors[rows],
            {name: voter.take(rows) for name, voter in self.voters.items()},
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
        join_voters((len(part.logits), part.voters) for part in parts),
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
BASIC = PARTS[: PARTS.index("fused")]  # which stand before what is made of them
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


def list_ways(names: Iterable[str]) -> list[str]:
    """Names of parts and of further voters in the order in which a person reads them: what is answered comes last."""
    listed = list(names)
    further = [name for name in listed if name not in PARTS]
    return [name for name in (*BASIC, *further, "fused", RERANKED) if name in listed]


def name_way(name: str) -> str:
    """A part or a further voter as a person reads it."""
    return PART_TITLES.get(name, f"vote of {name}")


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
    `prototypes.back_off`, of the vote; ``further``: voters that some queries have, in the order in which they joined.
    """

    vote: Vote = field(default_factory=Vote)
    head_scale: float = 1.0
    prototype_scale: float = 20.0
    weights: Mapping[str, float] = field(default_factory=lambda: {"head": 0.5, "vote": 0.5})
    rule: Rule = "linear"
    category_share: float = 0.0
    further: tuple[FurtherVoter, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The settings as plain values."""
        values = asdict(self) | {"weights": dict(self.weights)}
        values.pop("further")
        return values | ({"further": [voter.describe() for voter in self.further]} if self.further else {})

    def ask(self, names: Container[str]) -> Classifier:
        """The classifier with those of its further voters that are named, up to the first that is not."""
        kept = list(takewhile(lambda voter: voter.name in names, self.further))
        return replace(self, further=tuple(kept))

    def tell(self) -> str:
        """The settings in words."""
        total = sum(self.weights.values())
        shares = {name: weight / total for name, weight in self.weights.items() if weight}
        voters = f"vote of {self.vote.k} neighbours"
        named = {"head": "head", "vote": voters, "prototypes": "class prototypes"}
        if len(shares) == 1:
            return f"{named[next(iter(shares))]} alone"
        if self.rule == "product":
            return _tell_product(named, self.weights)
        return " + ".join(f"{share:.2g} x {named[name]}" for name, share in shares.items())

    def tell_further(self) -> str:
        """What further voters make of it, in words; empty where there are none."""
        named = {"head": "head", "vote": f"vote of {self.vote.k} neighbours", "prototypes": "class prototypes"}
        told = ""
        for voter in self.further:
            named[voter.name] = f"vote of {voter.vote.k} neighbours by {voter.name}"
            told += f"; with {voter.name}, {_tell_product(named, voter.weights)}"
        return told


def _tell_product(named: Mapping[str, str], weights: Mapping[str, float]) -> str:
    return "product of " + ", ".join(f"{named[name]} ^ {weight:.2g}" for name, weight in weights.items() if weight)


# What answers where nothing could be fitted.
UNFITTED = Classifier(weights={"head": 0.5, "prototypes": 0.5}, rule="product")


def build_classifier(values: Mapping[str, Any]) -> Classifier:
    """A classifier from what `Classifier.describe` gave, also before there were further voters."""
    further = tuple(build_voter(voter) for voter in values.get("further", ()))
    return Classifier(**{**values, "vote": Vote(**values["vote"]), "further": further})


def compute_parts(evidence: Evidence, classifier: Classifier) -> Parts:
    """Probabilities of some queries by every part of a classifier, and by all of it with the voters that each has."""
    class_count = evidence.logits.shape[1]
    near = np.zeros_like(evidence.logits, dtype=np.float32) if evidence.prototypes is None else evidence.prototypes
    parts = {
        "head": compute_softmax(evidence.logits, classifier.head_scale),
        "nearest": compute_nearest(evidence.classes, evidence.similarities, class_count),
        "vote": soften(compute_vote(evidence.classes, evidence.similarities, class_count, classifier.vote)),
        "prototypes": compute_softmax(near, classifier.prototype_scale),
    }
    fused = fuse(parts, classifier, evidence.categories)
    _answer_with_voters(fused, parts, evidence, classifier)
    return Parts(**parts, fused=fused)


def compute_voters(evidence: Evidence, classifier: Classifier) -> dict[str, np.ndarray]:
    """What each further voter of a classifier says, (Q, C) float32; uniform where a query does not have it."""
    class_count = evidence.logits.shape[1]
    said = {}
    for voter in classifier.further:
        if (seen := evidence.voters.get(voter.name)) is not None:
            said[voter.name] = soften(compute_vote(seen.classes, seen.similarities, class_count, voter.vote))
            said[voter.name][~seen.has] = 1 / class_count
    return said


def fuse(parts: Mapping[str, np.ndarray], classifier: Classifier, categories: Sequence[int] | None) -> np.ndarray:
    """The parts of a classifier as one probability (Q, C) float32, without further voters."""
    opinions = list_opinions(parts, classifier, categories)
    names = list(classifier.weights)
    return combine([opinions[name] for name in names], list(classifier.weights.values()), classifier.rule)


def list_opinions(
    parts: Mapping[str, np.ndarray], classifier: Classifier, categories: Sequence[int] | None
) -> dict[str, np.ndarray]:
    """The parts as they are weighed: with a category's share in the vote, where that has one."""
    opinions = dict(parts)
    if classifier.category_share and categories is not None:
        opinions["vote"] = back_off(opinions["vote"], categories, classifier.category_share)
    return opinions


def _answer_with_voters(
    fused: np.ndarray, parts: Mapping[str, np.ndarray], evidence: Evidence, classifier: Classifier
) -> None:
    """Answer anew, in ``fused``, the queries that have further voters; the others' answers are left as they are."""
    said = compute_voters(evidence, classifier)
    opinions = list_opinions(parts, classifier, evidence.categories) | said if said else {}
    has = np.ones(len(fused), dtype=bool)
    for voter in classifier.further:
        if voter.name not in said:
            return
        has &= evidence.voters[voter.name].has
        used = [opinions[name][has] for name in voter.weights]
        fused[has] = combine(used, list(voter.weights.values()), "product")
