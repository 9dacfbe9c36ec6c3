"""Grown classes: what head, neighbours and prototypes say together of classes some of which the head never saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from productrec.recognition.classifier import Classifier, Evidence, compute_parts
from productrec.recognition.open_set import hide_classes
from productrec.recognition.vote import compute_softmax, compute_vote, normalise_rows, soften
from productrec.recognition.weights import combine

_BY_NEIGHBOURS = ("vote", "prototypes")


def fuse_grown(evidence: Evidence, classifier: Classifier, *, grown_count: int, is_removed: np.ndarray) -> np.ndarray:
    """Probabilities of the head's classes and of those that were grown since.

    Vote and prototypes speak of all classes, with the weights that they have beside the head, made as large together as
    all weights are; what they give to grown classes these keep, since the head has nothing to say of them, and what is
    left is shared out among the head's classes as the classifier says:
    ``p(grown) = q(grown)``, ``p(known) = (1 - sum of q over the grown) * fused(known)``. A class that was taken out has
    probability 0. Further voters know nothing of grown classes and are not asked.

    Args:
        evidence: of Q queries; its classes are positions among the C of the head, then the grown ones, and so are the
            columns of its prototypes.
        classifier: as fitted without the grown classes.
        grown_count: E, classes that the head does not know.
        is_removed: (C,) bool, classes of the head that were taken out.

    Returns:
        (Q, C + E) float32; rows sum to 1 within rounding, or to 0 where every class of the head was taken out and no
        class was grown.
    """
    class_count = evidence.logits.shape[1]
    known = _take_known(evidence, class_count)
    classifier = classifier.ask(())
    if not grown_count and not is_removed.any():
        return compute_parts(known, classifier).fused
    gone = np.append(is_removed, np.zeros(grown_count, dtype=bool))
    fused = np.zeros((len(evidence.logits), class_count), np.float32)
    if not is_removed.all():
        fused = compute_parts(hide_classes(known, is_removed), classifier).fused
        fused[:, is_removed] = 0.0
        fused = normalise_rows(fused)
        fused[:, is_removed] = 0.0
    if not grown_count:
        return fused
    near = _ask_neighbours(evidence, classifier, gone)
    grown = near[:, class_count:]
    left = 1.0 - grown.sum(axis=1, keepdims=True)
    together: np.ndarray = np.concatenate([left * fused, grown], axis=1).astype(np.float32)
    return together


def _take_known(evidence: Evidence, class_count: int) -> Evidence:
    """The evidence as if the grown classes were none."""
    classes = np.where(evidence.classes < class_count, evidence.classes, -1)
    prototypes = None if evidence.prototypes is None else evidence.prototypes[:, :class_count]
    return replace(evidence, classes=classes, prototypes=prototypes, voters={})


def _ask_neighbours(evidence: Evidence, classifier: Classifier, gone: np.ndarray) -> np.ndarray:
    """What vote and prototypes say of all classes, (Q, C + E), nothing of those that are gone."""
    vote = soften(compute_vote(evidence.classes, evidence.similarities, len(gone), classifier.vote))
    weights = {name: classifier.weights.get(name, 0.0) for name in _BY_NEIGHBOURS}
    opinions = {"vote": vote}
    if evidence.prototypes is None:
        weights["prototypes"] = 0.0
    else:
        opinions["prototypes"] = compute_softmax(evidence.prototypes, classifier.prototype_scale)
    if not any(weights.values()):
        weights = dict.fromkeys(opinions, 1.0)
    scale = sum(classifier.weights.values()) / sum(weights.values())
    names = list(opinions)
    said = combine([opinions[name] for name in names], [weights[name] * scale for name in names], classifier.rule)
    said[:, gone] = 0.0
    shares: np.ndarray = said / np.maximum(said.sum(axis=1, keepdims=True), 1e-30)
    return shares
