"""What Kaggle's notebooks and data sets allow, as data, and what of it a bundle would take."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024**3


@dataclass(frozen=True)
class NotebookLimits:
    """Hours that a notebook may run on a CPU and on a GPU, and GiB of its memory, its output and a data set."""

    cpu_hours: float
    gpu_hours: float
    memory_gib: float
    output_gib: float
    dataset_gib: float


# As they are commonly told, in November 2026; not checked against Kaggle's own pages. A code competition may allow
# fewer hours: its rules say.
KAGGLE = NotebookLimits(cpu_hours=12.0, gpu_hours=9.0, memory_gib=30.0, output_gib=20.0, dataset_gib=100.0)


@dataclass(frozen=True)
class Demand:
    """What a bundle takes.

    ``bytes``: of its files; ``memory_bytes``: while it predicts, about; ``images``: that it is to predict, None where
    nobody has said; ``images_per_second``: on the machine that made it, None where no image was at hand to time;
    ``device``: that was timed.
    """

    bytes: int
    memory_bytes: int
    images: int | None = None
    images_per_second: float | None = None
    device: str = ""

    @property
    def hours(self) -> float | None:
        """Hours that the images take on the machine that was timed; None where that is not known."""
        if self.images is None or self.images_per_second is None:
            return None
        return self.images / self.images_per_second / 3600


@dataclass(frozen=True)
class Compared:
    """One demand beside its limit: both in words, and whether it is within."""

    told: str
    is_within: bool


def estimate_memory(weights_bytes: int, index_bytes: int, images: int, classes: int) -> int:
    """Bytes that a prediction holds at least: weights, index, probabilities (float32) and the libraries themselves."""
    libraries = 2 * GIB
    return libraries + 2 * weights_bytes + index_bytes + 4 * images * classes


def compare_with_limits(demand: Demand, limits: NotebookLimits = KAGGLE) -> list[Compared]:
    """Time, disk and memory of a bundle beside what a notebook allows, a sentence each."""
    size, memory = demand.bytes / GIB, demand.memory_bytes / GIB
    return [
        _compare_time(demand, limits),
        Compared(
            f"disk: {size:.2f} GiB; a data set holds {limits.dataset_gib:g} GiB, a notebook's output "
            f"{limits.output_gib:g} GiB",
            size <= limits.dataset_gib,
        ),
        Compared(f"memory: about {memory:.1f} GiB; a notebook has {limits.memory_gib:g}", memory <= limits.memory_gib),
    ]


def _compare_time(demand: Demand, limits: NotebookLimits) -> Compared:
    allowed = f"a notebook has {limits.cpu_hours:g} h on a CPU, {limits.gpu_hours:g} h on a GPU"
    if demand.images_per_second is None:
        return Compared(f"time: not known, since no image was at hand to time; {allowed}", True)
    rate = f"{demand.images_per_second:.1f} images/s on this machine ({demand.device})"
    if demand.hours is None:
        return Compared(f"time: {rate}, and it is not known how many are to be predicted; {allowed}", True)
    most = limits.gpu_hours if demand.device.startswith("cuda") else limits.cpu_hours
    taken = f"{demand.hours:.1f} h" if demand.hours >= 1 else f"{60 * demand.hours:.1f} min"
    told = f"time: {demand.images:,} images at {rate} take {taken}; {allowed}"
    return Compared(told, demand.hours <= most)
