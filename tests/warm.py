"""Processes of a test that cost no imports: they are forked from one that has imported everything already.

They are as real as others: with a session and a group of their own, with signals, loader processes and exit codes. Only
what a cold start itself does is not in them.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PRELOADED = ["productrec.cli", "productrec.pipeline.predict", "productrec.sweep.search", "productrec.sweep.study"]


@cache
def get_warm_context() -> multiprocessing.context.ForkServerContext:
    """What starts processes that are forked from the first one, which is started here."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    before = Path.cwd()
    os.chdir(ROOT)  # where the first process imports from
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(before)
    return context


class WarmProcess:
    """What `subprocess.Popen` is, as far as tests need it; its output is read once it has ended."""

    def __init__(
        self, target: Callable[..., None], *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="warm-"))
        self._out, self._err = folder / "out", folder / "err"
        own = (target, arguments, str(cwd), dict(environment or {}), str(self._out), str(self._err))
        self._process = get_warm_context().Process(target=_play, args=own)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.read_out(), self.read_err()

    def read_out(self) -> str:
        return self._out.read_text(errors="replace") if self._out.exists() else ""

    def read_err(self) -> str:
        return self._err.read_text(errors="replace") if self._err.exists() else ""


def start_command(
    arguments: Sequence[object], *, cwd: Path, environment: Mapping[str, str] | None = None
) -> WarmProcess:
    """The command line, as ``python -m productrec`` would run it."""
    return WarmProcess(_run_command, [str(one) for one in arguments], cwd=cwd, environment=environment)


def start_code(
    code: str, arguments: Sequence[object] = (), *, cwd: Path, environment: Mapping[str, str] | None = None
) -> WarmProcess:
    """Code, as ``python -c`` would run it."""
    return WarmProcess(_run_code, code, [str(one) for one in arguments], cwd=cwd, environment=environment)


def wait_for(path: Path, process: WarmProcess | subprocess.Popen, seconds: float = 200) -> None:
    """Wait until a file is there; the process must not end before."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None:
            raise AssertionError(process.read_err() if isinstance(process, WarmProcess) else process.stderr.read())
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _play(target, arguments, cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    os.setsid()
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.update(environment)
    os.chdir(cwd)
    code = 0
    try:
        target(*arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # As an interpreter ends, which a process of multiprocessing does not: loader processes are let go here.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_command(arguments: list[str]) -> None:
    from productrec.cli import main

    sys.argv = ["productrec", *arguments]
    main(arguments)


def _run_code(code: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    sys.path.insert(0, os.getcwd())
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
