import numpy as np
import pytest

from productrec.assembly.matching import Embedded, build_labelled_pool
from productrec.errors import DataError
from productrec.recognition.choosing_matches import PLAIN, LabelledPool
from productrec.retrieval.reranking.methods.neighbourhood_blending import NeighbourhoodBlending


def draw(names: list[str], seed: int) -> Embedded:
    rows = np.random.default_rng(seed).normal(size=(len(names), 8)).astype(np.float32)
    return Embedded(names, rows / np.linalg.norm(rows, axis=1, keepdims=True), {})


VALIDATION = draw([f"v{number}" for number in range(10)], 1)
OTHERS = draw([f"t{number}" for number in range(40)], 2)
LABELS = {f"v{number}": number // 2 for number in range(10)} | {f"t{number}": 100 + number // 4 for number in range(40)}


def build(pool_images: int, *, others: Embedded | None = OTHERS, labels: dict[str, int] = LABELS) -> LabelledPool:
    return build_labelled_pool(VALIDATION, others, labels, {}, pool_images=pool_images, most=50, seed=0)


@pytest.mark.parametrize(
    ("pool_images", "size", "weight"), [(30, 30, 1.0), (50, 50, 1.0), (99, 50, 2.0), (10, 10, 1.0), (4, 10, 1 / 3)]
)
def test_the_pool_is_as_large_as_that_of_the_test_images_or_counts_as_it(
    pool_images: int, size: int, weight: float
) -> None:
    pool = build(pool_images)
    assert len(pool.labels) == size and pool.weight == pytest.approx(weight)
    assert pool.is_judged.sum() == 10 and pool.is_judged[:10].all()
    assert pool.near[PLAIN].rows.shape == (size, min(49, size - 1))


def test_other_images_of_a_judged_class_are_never_left_out_by_the_draw() -> None:
    labels = LABELS | {"t3": 0, "t17": 4}
    pool = build(14, labels=labels)
    assert len(pool.labels) == 14
    assert (pool.labels == 0).sum() == 3 and (pool.labels == 4).sum() == 3


def test_images_without_a_label_are_in_no_pool() -> None:
    labels = {name: label for name, label in LABELS.items() if name not in ("v0", "t5")}
    pool = build(99, labels=labels)
    assert len(pool.labels) == 48 and pool.is_judged.sum() == 9
    assert len(build(99, others=None).labels) == 10
    with pytest.raises(DataError, match=r"validation images must have labels.*match\.threshold"):
        build(99, labels={})


def test_each_way_to_change_embeddings_has_its_neighbours() -> None:
    method = NeighbourhoodBlending(threshold=0.2)
    pool = build_labelled_pool(VALIDATION, OTHERS, LABELS, {"inb": method}, pool_images=50, most=5, seed=0)
    assert list(pool.near) == [PLAIN, "inb"]
    assert pool.near["inb"].rows.shape == pool.near[PLAIN].rows.shape == (50, 4)
    assert pool.near["inb"].similarities.mean() > pool.near[PLAIN].similarities.mean()
    assert not (pool.near["inb"].rows == np.arange(50)[:, None]).any()
