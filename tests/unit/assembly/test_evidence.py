"""What a run knows of a split: taken in blocks, whatever the memory, and for classes that a head does not know."""

import numpy as np

from productrec.assembly import evidence as module
from productrec.assembly.evidence import SplitEvidence, draw_rows
from productrec.recognition.prototypes import build_prototypes
from productrec.retrieval.embedding_set import EmbeddingSet


def build(columns=None, classes=5):
    generator = np.random.default_rng(0)
    embeddings = generator.standard_normal((30, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    known = classes if columns is None else len(columns)
    logits = generator.standard_normal((30, known)).astype(np.float32)
    queries = EmbeddingSet([f"i{row}" for row in range(30)], embeddings, logits, [], ["plain"], "w", {}, "print")
    labels = generator.integers(0, classes, 30)
    prototypes = build_prototypes(embeddings, labels, classes)
    near = generator.integers(0, classes, (30, 4))
    similarities = generator.uniform(0, 1, (30, 4)).astype(np.float32)
    return SplitEvidence(queries.ids, queries, near, near, similarities, prototypes, None, {}, columns)


def test_a_block_is_what_the_whole_has_there_and_nothing_else_is_computed(monkeypatch):
    split = build()
    whole = split.take(slice(None))
    asked = []
    compare = module.compare_prototypes
    monkeypatch.setattr(module, "compare_prototypes", lambda rows, to: (asked.append(len(rows)), compare(rows, to))[1])
    for rows in (slice(7, 12), np.array([3, 20, 29])):
        part = split.take(rows)
        for name in ("logits", "classes", "similarities", "prototypes"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[rows], atol=1e-6)
    assert asked == [5, 3]


def test_a_class_that_a_head_does_not_know_gets_next_to_nothing():
    split = build(columns=np.array([4, 0, 2]))
    part = split.take(slice(0, 10))
    np.testing.assert_array_equal(part.logits[:, [4, 0, 2]], split.queries.logits[:10])
    assert (part.logits[:, [1, 3]] <= part.logits[:, [4, 0, 2]].min(axis=1, keepdims=True) - 29).all()


def test_what_is_fitted_on_is_bounded_and_the_same_each_time(monkeypatch):
    assert draw_rows(7).tolist() == list(range(7))
    monkeypatch.setattr(module, "FITTED_ON", 4)
    drawn = draw_rows(100)
    assert len(set(drawn.tolist())) == 4 and (np.diff(drawn) > 0).all() and drawn.tolist() == draw_rows(100).tolist()
