"""What a bundle takes beside what a notebook allows."""

import pytest

from productrec.competitions.notebook_limits import GIB, Demand, NotebookLimits, compare_with_limits, estimate_memory

LIMITS = NotebookLimits(cpu_hours=2.0, gpu_hours=1.0, memory_gib=4.0, output_gib=1.0, dataset_gib=3.0)


@pytest.mark.parametrize(
    ("demand", "within"),
    [
        (Demand(GIB, GIB, 3600, 1.0, "cpu"), [True, True, True]),
        (Demand(GIB, GIB, 3600 * 3, 1.0, "cpu"), [False, True, True]),
        (Demand(GIB, GIB, 5400, 1.0, "cuda"), [False, True, True]),
        (Demand(GIB, GIB, 5400, 1.0, "cpu"), [True, True, True]),
        (Demand(4 * GIB, GIB, 1, 1.0, "cpu"), [True, False, True]),
        (Demand(GIB, 5 * GIB, None, 1.0, "cpu"), [True, True, False]),
        (Demand(GIB, GIB), [True, True, True]),
    ],
)
def test_what_is_beyond_a_limit_is_known(demand: Demand, within: list[bool]) -> None:
    assert [one.is_within for one in compare_with_limits(demand, LIMITS)] == within


def test_a_line_says_what_and_how_much() -> None:
    time, disk, memory = (one.told for one in compare_with_limits(Demand(GIB // 2, GIB, 7200, 1.0, "cpu"), LIMITS))
    assert time.startswith("time: 7,200 images at 1.0 images/s on this machine (cpu) take 2.0 h; ")
    assert time.endswith("a notebook has 2 h on a CPU, 1 h on a GPU")
    assert disk == "disk: 0.50 GiB; a data set holds 3 GiB, a notebook's output 1 GiB"
    assert memory == "memory: about 1.0 GiB; a notebook has 4"
    assert "take 1.0 min" in compare_with_limits(Demand(0, 0, 60, 1.0, "cpu"), LIMITS)[0].told
    assert Demand(0, 0, 60).hours is None and Demand(0, 0, None, 5.0).hours is None


def test_memory_grows_with_images_and_classes() -> None:
    least = estimate_memory(0, 0, 0, 0)
    assert estimate_memory(0, 0, 1000, 50) - least == 4 * 1000 * 50
    assert estimate_memory(100, 10, 0, 0) - least == 210
