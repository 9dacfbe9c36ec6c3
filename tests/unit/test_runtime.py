"""Device, precision, seeds and a polite stop."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from productrec.errors import RecipeError
from productrec.runtime import (
    Share,
    autocast,
    catch_stop,
    choose_device,
    choose_dtype,
    count_cores,
    set_seed,
    take_own_device,
)

CPU = torch.device("cpu")


def test_cores_are_those_this_process_may_use() -> None:
    assert 1 <= count_cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert count_cores() == 1
        finally:
            os.sched_setaffinity(0, allowed)


def test_cores_without_affinity_are_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1


@pytest.mark.parametrize(("cores", "processes", "share"), [(8, 1, 8), (8, 3, 2), (2, 2, 1), (2, 5, 1)])
def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, share: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert Share(0, processes).count_cores() == share


def test_processes_with_a_share_take_a_gpu_each_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    gpu = torch.device("cuda")
    assert [take_own_device(gpu, Share(number, 3)).index for number in range(3)] == [0, 1, 0]
    assert take_own_device(gpu) == gpu
    assert take_own_device(torch.device("cuda", 1), Share(0, 3)).index == 1
    assert take_own_device(torch.device("cpu"), Share(1, 3)).type == "cpu"


def test_the_named_device_is_taken() -> None:
    assert choose_device("cpu") == CPU


def test_auto_prefers_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert choose_device().type == expected


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "", "xla", "meta"])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"device: must be auto, cpu, cuda, cuda:1"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "mps", "xpu"])
def test_a_device_that_is_not_there_is_refused_in_a_line(name: str) -> None:
    if name != "cuda:99" and (torch.backends.mps.is_available() or torch.xpu.is_available()):
        pytest.skip("it is there")
    with pytest.raises(RecipeError, match="cannot be used here") as caught:
        choose_device(name)
    assert "Use device=auto or device=cpu" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_named_precision_is_taken(name: str) -> None:
    assert choose_dtype(name, CPU) == getattr(torch, name)


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_on_cuda_asks_the_card(monkeypatch: pytest.MonkeyPatch, has: bool, expected: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation)
    assert choose_dtype("auto", torch.device("cuda")) == expected


def test_auto_elsewhere_is_float32() -> None:
    assert choose_dtype("auto", torch.device("mps")) == torch.float32
    assert choose_dtype("auto", CPU) == torch.float32


def test_autocast_changes_products_only_below_float32() -> None:
    a = torch.ones(2, 2)
    with autocast(CPU, torch.float32):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))


def test_a_seed_decides_every_library() -> None:
    set_seed(5)
    first = draw()
    second = draw()
    set_seed(5)
    assert draw() == first != second
    set_seed(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
    set_seed(2**40)  # more than NumPy's 32 bits


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_one_stops(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with catch_stop() as stop:
        assert not stop.wanted
        os.kill(os.getpid(), number)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_the_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="inside"), catch_stop():
        raise ValueError("inside")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with catch_stop() as stop:
            seen.append((stop.wanted, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the allocator is not glibc's")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    code = """
import resource, sys, torch
from productrec.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory(torch.device("cpu"))
def take(times):
    for _ in range(times):
        torch.empty(1 << 24).fill_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-take(10) + take(5))
"""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", code, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "leave")
    }
    assert faults["keep"] < faults["leave"] / 10
