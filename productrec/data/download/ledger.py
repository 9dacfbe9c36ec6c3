"""The ledger of a download folder: one JSON line an outcome, appended as they come, put in order at the end."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from productrec.artifacts import compute_file_digest, explain_storage_errors, write_text
from productrec.data.download.terms import Outcome, get_file_name
from productrec.errors import StorageError
from productrec.locking import hold_lock

LEDGER_NAME = "downloads.jsonl"
_LOCK_NAME = ".downloads.lock"
_PART_START = ".part-"


class Ledger:
    """The outcomes known of a folder, by image id; made by `open_ledger`."""

    def __init__(self, folder: Path, descriptor: int, outcomes: dict[str, Outcome]) -> None:
        self.folder = folder
        self.outcomes = outcomes
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def settle(self, outcome: Outcome) -> None:
        """Give a finished file its name, or take an outdated one away, then append the outcome; all of it flushed.

        Args:
            outcome: what is true from now on; for a success the file lies complete at `get_part`.

        Raises:
            StorageError: the disk refused; the ledger's earlier lines and the earlier files stand.
        """
        part, path = get_part(self.folder, outcome.image_id), self.folder / get_file_name(outcome.image_id)
        with explain_disk(self.folder):
            if outcome.ok:
                _flush(part)
                os.replace(part, path)
            else:
                path.unlink(missing_ok=True)
            line = memoryview(f"{_write_line(outcome)}\n".encode())
            with self._lock:
                while line:
                    line = line[os.write(self._descriptor, line) :]
                self.outcomes[outcome.image_id] = outcome
            os.fsync(self._descriptor)

    def is_intact(self, outcome: Outcome) -> bool:
        """Whether the file of a success is there, with the size and digest that the ledger says."""
        path = self.folder / get_file_name(outcome.image_id)
        try:
            return path.stat().st_size == outcome.size and compute_file_digest(path) == outcome.sha256
        except OSError:
            return False

    def put_in_order(self, image_ids: Iterable[str]) -> None:
        """Rewrite the file, atomically: the outcomes of ``image_ids`` in their order, then any others by id.

        Raises:
            StorageError: the disk refused; the ledger is as it was.
        """
        order = dict.fromkeys(image_ids)
        order.update(dict.fromkeys(sorted(self.outcomes.keys() - order.keys())))
        lines = [_write_line(self.outcomes[image_id]) + "\n" for image_id in order if image_id in self.outcomes]
        write_text(self.folder / LEDGER_NAME, "".join(lines))


@contextlib.contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """Hold a download folder alone, made if need be, clear of what killed runs left half-written.

    Raises:
        ArtifactError: another process downloads into this folder.
        StorageError: the disk refused.
    """
    with contextlib.ExitStack() as stack:
        with explain_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            busy = f"{folder}: must be written by one download at a time; another one is at work. Wait for its end."
            stack.enter_context(hold_lock(folder / _LOCK_NAME, busy))
            _tidy(folder)
            stack.callback(_tidy, folder)
            path = folder / LEDGER_NAME
            outcomes, torn = _read(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            stack.callback(os.close, descriptor)
            if torn:  # else the next line would be lost with it
                os.write(descriptor, b"\n")
        yield Ledger(folder, descriptor, outcomes)


def get_part(folder: Path, image_id: str) -> Path:
    """Where an image's bytes are gathered until they are complete."""
    return folder / f"{_PART_START}{get_file_name(image_id)}"


@contextlib.contextmanager
def explain_disk(where: Path) -> Iterator[None]:
    """As `explain_storage_errors`, with every other refusal of the disk a `StorageError` too."""
    try:
        with explain_storage_errors(where):
            yield
    except OSError as error:
        raise StorageError(
            f"{where}: cannot be read or written ({error.strerror or error}). What is finished stands; mend the disk "
            "and run the same command again."
        ) from error


def _write_line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), sort_keys=True)


def _read(path: Path) -> tuple[dict[str, Outcome], bool]:
    """Outcomes by image id, the last line of each; whether the file ends within a line.

    Lines that cannot be read (one torn by a kill, say) are passed over: their images are fetched again.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}, False
    outcomes = {}
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            outcome = Outcome(**json.loads(line))
            if isinstance(outcome.image_id, str) and isinstance(outcome.reason, str | None):
                outcomes[outcome.image_id] = outcome
    return outcomes, bool(data) and not data.endswith(b"\n")


def _tidy(folder: Path) -> None:
    """Remove half-written files; under the lock nobody writes their names any more."""
    for path in list(folder.iterdir()):
        if path.name.startswith((_PART_START, f".{LEDGER_NAME}.tmp-")):
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
