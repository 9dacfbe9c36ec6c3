"""Embedding sets that do not belong to their run, by the order of ids or of classes, are refused by name."""

from pathlib import Path

import numpy as np
import pytest

from productrec.assembly.evidence import load_evidence
from productrec.data.table import load_table
from productrec.errors import ArtifactError
from productrec.retrieval.embedding_set import load_embedding_set, write_embedding_set


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ids", r"embeddings/plain/val: must be of the same images \(id order\) as"),
        ("class_ids", r"embeddings/plain/val: must be of the same classes \(class order\) as"),
        ("both", r"images \(id order\) and classes \(class order\)"),
    ],
)
def test_ids_or_classes_in_another_order_are_refused(finished, change, words):
    folder = Path("runs/tiny/embeddings/plain/val")
    held = load_embedding_set(folder)
    prototypes = np.ones((len(held.class_ids), held.embeddings.shape[1]), np.float32)
    rest = (load_table(Path("data/tiny")), "plain", "val", held.class_ids, prototypes, None)
    assert load_evidence(Path("runs/tiny"), *rest) is not None
    orders = {name: list(getattr(held, name)) for name in ("ids", "class_ids")}
    for name in orders:
        if change in (name, "both"):
            orders[name].reverse()
    embeddings, logits = np.array(held.embeddings), np.array(held.logits)
    made = {"views": held.views, "weights_digest": held.weights_digest, "inputs": {}, "settings": {}}
    with write_embedding_set(
        folder, orders["ids"], class_ids=orders["class_ids"], dim=embeddings.shape[1], keep_logits=True, **made
    ) as writer:
        writer.write(np.arange(len(held.ids)), embeddings, logits)
    with pytest.raises(ArtifactError, match=words):
        load_evidence(Path("runs/tiny"), *rest)
