"""Locks: where none can be had that is told, and the work is done without."""

import errno
import os
import signal
import subprocess
import sys
import time

import filelock
import pytest

from productrec.errors import StorageError
from productrec.locking import ProcessLock, hold_lock

# Takes a lock and forks a process that outlives it, as a loader does.
HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from productrec.locking import ProcessLock

assert ProcessLock(Path(sys.argv[1])).acquire(wait=False) is False
lock = ProcessLock(Path(sys.argv[2]))
assert lock.acquire()
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EACCES, "cannot be locked (Permission denied)"), (errno.ENOLCK, "knows no locks"), (errno.EROFS, None)],
)
def test_a_folder_that_cannot_be_locked_is_told(tmp_path, monkeypatch, capfd, number, told):
    def refuse(*arguments, **options):
        raise OSError(number, "Permission denied")

    monkeypatch.setattr(filelock, "FileLock", refuse)
    worked = []
    with hold_lock(tmp_path / ".lock", "busy"):
        worked.append(True)
    said = capfd.readouterr().err
    assert worked and (told in said if told else not said)


def test_a_lock_is_one_process_s_until_it_dies_whatever_it_has_forked(tmp_path):
    ours, theirs = ProcessLock(tmp_path / "ours"), ProcessLock(tmp_path / "theirs")
    assert ours.acquire()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "ours", tmp_path / "theirs"], stdout=subprocess.PIPE, text=True
    )
    with holder:
        child = int(holder.stdout.readline())
        try:
            assert not theirs.acquire(wait=False)
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # it lives
            deadline = time.monotonic() + 20
            while not theirs.acquire(wait=False):  # the child is just giving it back
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            os.kill(child, signal.SIGKILL)
    ours.release()
    assert ours.acquire(wait=False)


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOLCK, r"cannot be locked \(.*\). Choose a folder on"), (errno.EACCES, "not permitted")],
)
def test_a_lock_that_cannot_be_had_is_an_error(tmp_path, monkeypatch, number, told):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(StorageError, match=told):
        ProcessLock(tmp_path / "lock").acquire()
