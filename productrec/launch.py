"""Launch: the same command once a rank, under torchrun; what each rank does is `training.ranks`."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence

from productrec.console import warn
from productrec.errors import ProcessLost

STARTED = "PRODUCTREC_STARTED"  # in the environment: when the command began, as time.time() has it
_OWN_OPTIONS = ("--nproc", "--max-restarts")
_SHUTDOWN_SECONDS = 600


def launch_ranks(arguments: Sequence[str], *, nproc: int, max_restarts: int = 0) -> int:
    """Run the command line ``nproc`` times on this machine, as ranks of one job, and wait.

    When a rank dies the others are ended; a restart begins all of them again, with ``--resume``.

    Args:
        arguments: of the command line, as they were given.
        nproc: ranks.
        max_restarts: how often to start again.

    Returns:
        The exit code: 0, or that of the rank that failed first; it has said why, or its death is told here.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, parse_args, run

    kept = drop_own_options(arguments)
    # A core for each; several processes with a thread a core each would wait for one another.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // nproc)))
    # Its report of who died is pages long, and the one who did has a line of its own.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault(STARTED, str(time.time()))  # so that attempts share --max-minutes
    patience = [f"--shutdown-timeout={_SHUTDOWN_SECONDS}"]  # after a stop, for a step and a save; torch's own is 30 s
    if "--shutdown-timeout" not in get_args_parser().format_help():  # of an older torch
        patience = []
    code = 0
    for attempt in range(max_restarts + 1):
        if attempt and "--resume" not in kept:
            kept.append("--resume")
        try:
            # Each attempt is a job of its own: torchrun's restarts meet in the store of the ranks that died.
            command = ["--standalone", f"--nproc-per-node={nproc}", "--max-restarts=0", *patience]
            run(parse_args([*command, "-m", "productrec", *kept]))  # type: ignore[no-untyped-call]
            return 0
        except SignalException as stop:  # the ranks have saved, and said so
            return 128 + int(stop.sigval)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            code = int(failure.exitcode)
        if code < 0:
            warn(f"process {rank} was ended by {signal.Signals(-code).name}; out of memory is a usual reason.")
            code = 128 - code  # as shells have it
        if code not in (1, ProcessLost.exit_code) and code < 128:
            break  # what another attempt would not mend: it has said so itself
        if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            break  # a stop
    return code


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
