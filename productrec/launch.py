"""Launch: the same command once a rank, under torchrun; what each rank does is `training.ranks`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

_OWN_OPTIONS = ("--nproc", "--max-restarts")


def launch_ranks(arguments: Sequence[str], *, nproc: int, max_restarts: int = 0) -> int:
    """Run the command line ``nproc`` times on this machine, as ranks of one job, and wait.

    When a rank dies the others are ended; a restart begins all of them again, with ``--resume``.

    Args:
        arguments: of the command line, as they were given.
        nproc: ranks.
        max_restarts: how often to start again.

    Returns:
        The exit code: 0, or that of the job.
    """
    kept = drop_own_options(arguments)
    if max_restarts and "--resume" not in kept:
        kept.append("--resume")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    command += [f"--max-restarts={max_restarts}", "-m", "productrec", *kept]
    # A core for each; several processes with a thread a core each would wait for one another.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // nproc))}
    return subprocess.run(command, env=threads | dict(os.environ), check=False).returncode


def drop_own_options(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that say how many ranks there are, in either way of writing them."""
    kept: list[str] = []
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
        elif argument in _OWN_OPTIONS:
            is_value = True
        elif not argument.startswith(tuple(f"{option}=" for option in _OWN_OPTIONS)):
            kept.append(argument)
    return kept
