"""Processes that work side by side on one machine: how they are started, what each begins with, how all are ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from productrec.runtime import Share


def start_process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that inherits nothing of this one but its environment; ``target`` calls `begin_process` first."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)  # CUDA outlives no fork
    # It inherits that Ctrl-C is held back, and would else die of it with a traceback while it imports.
    # The tracker that comes with the first of them lets it through again, so it is started before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return process


def begin_process(share: Share) -> None:
    """What a process does first, best before it imports torch: hear the command alone, and take its share of the cores.

    A number of threads that the user has set for OpenMP stays.
    """
    # Else its loader processes would be started as it was, and import everything anew.
    multiprocessing.set_start_method(None, force=True)
    os.setsid()  # a signal to the whole group reaches the command alone, which hands it on once
    threading.Thread(target=_follow_parent, daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        cores = share.count_cores()
        os.environ["OMP_NUM_THREADS"] = str(cores)
        import torch

        torch.set_num_threads(cores)


def _follow_parent() -> None:
    """Stop politely when the command is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def end_processes(processes: Iterable[BaseProcess]) -> None:
    """Ask those that are alive to stop: they finish a step and save; who is asked a second time ends at once."""
    for process in processes:
        if process.is_alive():
            process.terminate()


def name_end(code: int) -> str:
    """How a process ended that gave ``code``: by which signal, or with which code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
