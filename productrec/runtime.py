"""Where and how the mathematics runs: device, precision, seeds, threads, and a polite way to be stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from productrec.errors import RecipeError
from productrec.settings.names import Precision

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h

_DEVICES = ("cpu", "cuda", "mps", "xpu")


def prepare_process() -> None:
    """Set what libraries read from the environment when they are first imported; what the user has set stays.

    OpenMP's threads spin while they wait for each other. Where loader processes or anything else want the same cores,
    that makes a training step several times as long; a short spin costs a quiet machine little
    (benchmarks/RESULTS.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version


def count_cores() -> int:
    """Cores this process may use (its affinity, not the machine's count)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Share:
    """This process's share of a machine: it is number ``number``, from 0, of ``processes`` that work side by side."""

    number: int = 0
    processes: int = 1

    def count_cores(self) -> int:
        """Cores that are this process's, at least one."""
        return max(1, count_cores() // self.processes)


ALONE = Share()


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on: ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        RecipeError: the named device is unknown or not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _DEVICES:
        raise RecipeError(f"device: must be auto, cpu, cuda, cuda:1 (the second GPU) or mps; got {name!r}.")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        seen = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type)
        reason = f"torch finds {seen} of that kind" if seen is not None else str(error).partition(". ")[0][:120]
        raise RecipeError(
            f"device: {name!r} cannot be used here ({reason}). Use device=auto or device=cpu; `productrec doctor` "
            "tells more."
        ) from None
    return device


def take_own_device(device: torch.device, share: Share = ALONE) -> torch.device:
    """This process's own GPU, where several stand beside each other: as ranks of torchrun, or with a ``share`` each.

    Any other device, and a GPU that is named by its number, stays as it is.
    """
    import torch

    if device.type != "cuda":
        return device
    if "LOCAL_RANK" in os.environ:
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    elif share.processes > 1 and device.index is None and torch.cuda.device_count() > 1:
        own = torch.device("cuda", share.number % torch.cuda.device_count())
    else:
        return device
    torch.cuda.set_device(own)
    return own


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type activations are computed in; weights, losses and embeddings stay float32.

    ``auto``: on CUDA bfloat16 where the card has it, else float16; elsewhere float32. Whether a CPU is faster in
    bfloat16 depends on the network; who has one times it.
    """
    import torch

    if precision != "auto":
        named: torch.dtype = getattr(torch, precision)
        return named
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32


def computes_bfloat16() -> bool:
    """Whether this machine's CPU has instructions for bfloat16 (AVX512-BF16 or AMX)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Mixed precision on ``device``; no-op for float32."""
    import torch

    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given, as before a clock is read."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU, let the allocator keep what a step frees for the next one, where it is glibc's.

    Else it gives every large activation back to the system and takes it again, page by page: a tenth of a training
    step, and half of a prediction whose activations are beyond 2 GB. On other systems, and where activations live on
    another device, nothing is changed.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 256 << 20)):
            mallopt(option, value)


def measure_memory(device: torch.device) -> int:
    """Bytes held at most so far: what torch took of a CUDA device, else of this process's memory."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def forget_memory(device: torch.device) -> None:
    """Have `measure_memory` begin anew, on a CUDA device; a process keeps its own highest for ever."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def measure_free_memory() -> int | None:
    """Bytes that this machine, or the container's limit, has left for this process; None where Linux does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = {line.partition(":")[0]: line.split()[1] for line in file}
        free = (int(sizes["MemAvailable"]) + int(sizes.get("SwapFree", 0))) << 10
    except (OSError, KeyError, ValueError, IndexError):
        return None
    for limit, used, statistics, reclaimable in _list_limits():
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            most, now = int(_read(limit)), int(_read(used))
            cached = [line.split()[1] for line in _read(statistics).splitlines() if line.startswith(f"{reclaimable} ")]
            free = min(free, max(0, most - now + sum(map(int, cached))))
    return free


def _list_limits() -> Iterator[tuple[str, str, str, str]]:
    """Files of the limit, the use, and what of it could be given back, for each control group we are in."""
    try:
        groups = [line.split(":", 2) for line in _read("/proc/self/cgroup").splitlines()]
    except OSError:
        return
    for number, controllers, group in groups:
        names, root = ("memory.max", "memory.current", "memory.stat"), "/sys/fs/cgroup"
        if number != "0":
            if "memory" not in controllers.split(","):
                continue
            names, root = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"), "/sys/fs/cgroup/memory"
        # Inside a container the group's own path is the root of what is mounted.
        for base in dict.fromkeys((root + group.rstrip("/"), root)):
            limit, used, statistics = (f"{base}/{name}" for name in names)
            yield limit, used, statistics, "inactive_file" if number == "0" else "total_inactive_file"


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch; data order and augmentation derive from (seed, epoch, row) instead."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def get_random_state(device: torch.device) -> dict[str, Any]:
    """What Python, NumPy and torch, also on ``device``, draw from: tensors and plain values."""
    import random

    import numpy as np
    import torch

    _, numbers, position, has_normal, normal = np.random.get_state()
    version, words, second = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (torch.from_numpy(np.asarray(numbers, dtype=np.int64)), position, has_normal, normal),
        "python": (version, torch.tensor(words), second),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Let them draw on from what `get_random_state` gave; a state of another kind of device leaves this one's."""
    import random

    import numpy as np
    import torch

    numbers, *rest = state["numpy"]
    version, words, second = state["python"]
    np.random.set_state(("MT19937", numbers.cpu().numpy().astype(np.uint32), *rest))
    random.setstate((version, tuple(words.tolist()), second))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())


@dataclass
class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; the second one raises KeyboardInterrupt at once."""

    wanted: bool = False
    exit_code: int = 130  # 128 and the number of the signal, as shells have it


@contextlib.contextmanager
def catch_stop() -> Iterator[StopRequest]:
    """Let a loop finish its step and save before it ends; outside the main thread it changes nothing."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.wanted:
            raise KeyboardInterrupt
        request.wanted, request.exit_code = True, 128 + number

    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    except ValueError:  # not the main thread
        pass
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
