"""The chain of structure is the same in blocks as in the whole, and its rows sum to 1."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from productrec.recognition.structure.chain import Structured, apply_chain

strengths = some.fixed_dictionaries(
    {"groups": some.floats(0, 1), "categories": some.floats(0, 4), "prior": some.floats(0, 1)}
)


def run(images, chosen, block_rows):
    out = np.full(images.values.shape, np.nan, np.float32)
    for rows, block in apply_chain(images, chosen, block_rows=block_rows):
        assert len(rows) <= block_rows
        out[rows] = block
    return out


@given(some.integers(1, 40), some.integers(1, 6), some.integers(0, 2**32 - 1), some.integers(1, 50), strengths)
def test_blocks_are_the_whole(count, classes, seed, block_rows, chosen):
    generator = np.random.default_rng(seed)
    values = generator.dirichlet(np.full(classes, 0.05), count).astype(np.float32)
    values = np.nan_to_num(values, nan=1 / classes)
    values /= values.sum(axis=1, keepdims=True)
    images = Structured(
        values,
        groups=generator.integers(-1, max(count // 3, 1), count),
        silent=generator.random(count) < 0.3,
        categories=generator.integers(0, 3, classes).tolist(),
        ratios=generator.choice([0.0, 0.1, 1.0, 50.0], classes) + (classes == 1),
    )
    whole = run(images, chosen, 1000)
    np.testing.assert_allclose(run(images, chosen, block_rows), whole, atol=1e-5)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_array_equal(run(images, dict.fromkeys(chosen, 0.0), block_rows), values)
