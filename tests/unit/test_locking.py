"""Locks: where none can be had that is told, and the work is done without."""

import errno

import filelock
import pytest

from productrec.locking import hold_lock


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
