"""A plan in words: units that suit the size, and no more digits than a short look is worth."""

import pytest

from productrec.assembly.forecast import share_time
from productrec.pipeline.plan_table import describe_bytes, describe_work


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0.0 KiB"),
        (2048, "2.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (1 << 29, "0.50 GiB"),
        (3 << 30, "3.00 GiB"),
        (2048 << 30, "2,048.0 GiB"),
    ],
)
def test_bytes(count, words):
    assert describe_bytes(count) == words


@pytest.mark.parametrize(
    ("network", "loading", "words"),
    [
        (20.0, 5.0, "20 to 25 seconds"),
        (600.0, 300.0, "10 to 15 minutes"),
        (598.0, 5.0, "10 minutes"),
        (4000.0, 1000.0, "67 to 83 minutes"),
        (36000.0, 7200.0, "10 to 12 hours"),
        (9000.0, 1800.0, "2.5 to 3.0 hours"),
        (9000.0, 0.0, "2.5 hours"),
    ],
)
def test_a_range_of_time(network, loading, words):
    assert describe_work(share_time(network, loading, overlaps=True)) == words
