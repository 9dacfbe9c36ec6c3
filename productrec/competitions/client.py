"""A conversation with the competition's service: questions with time limits, answers or errors in our words.

The official client runs in a process of its own (`kaggle.py`), which is started by the first question, stays for the
next ones, and is ended where it does not answer in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from productrec.competitions.credentials import HOW_TO_GET
from productrec.errors import UploadError

PROGRAM = Path(__file__).with_name("kaggle.py")
_GRACE_SECONDS = 5  # the process ends itself before
_CHATTY = ("VERBOSE", "VERBOSE_OUTPUT")  # with these the client prints headers, the token among them
_LISTED = 1000


class Unanswered(UploadError):
    """It is not known whether the service did what it was asked: no answer, a broken one, or a fault of its own."""


class NotFound(UploadError):
    """The service does not know what it was asked for."""


@dataclass(frozen=True)
class CompetitionFacts:
    """What the service says of a competition: uploads ``a_day`` at most, 0 where it does not say."""

    title: str
    a_day: int
    is_for_code: bool
    is_closed: bool
    has_entered: bool


@dataclass(frozen=True)
class Limits:
    """Submissions of today (UTC), in ``total`` and those ``left``; ``is_total`` where the total is what limits them."""

    today: int
    total: int
    left: int
    is_total: bool


@dataclass(frozen=True)
class Sent:
    """A submission as the service lists it.

    ``status`` is pending, complete or error; ``date`` is UTC in ISO 8601; scores are texts, empty while unknown.
    """

    reference: int
    file: str
    bytes: int | None
    date: str
    message: str
    status: str
    public: str
    private: str
    error: str


class CompetitionClient:
    """The service's side of one competition, asked through Kaggle's client; use it as a context.

    Args:
        slug: the competition's name in its address.
        seconds: time limit of a question.
        upload_seconds: time limit of an upload beside what its bytes take.
    """

    _BYTES_A_SECOND = 100_000  # a slow line

    def __init__(self, slug: str, *, seconds: int = 60, upload_seconds: int = 300) -> None:
        self.slug = slug
        self._seconds, self._upload_seconds = seconds, upload_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the client's process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()

    def get_competition(self) -> CompetitionFacts:
        """What kind of competition it is."""
        return CompetitionFacts(**self._ask("competition", slug=self.slug))

    def get_limits(self) -> Limits:
        """How many submissions are left."""
        return Limits(**self._ask("limits", slug=self.slug))

    def list_submissions(self, most: int = _LISTED) -> list[Sent]:
        """The latest submissions, newest first."""
        return [Sent(**one) for one in self._ask("submissions", slug=self.slug, most=most)]

    def get_submission(self, reference: int) -> Sent:
        """One submission."""
        return Sent(**self._ask("submission", reference=reference))

    def submit(self, path: Path, message: str) -> tuple[int, str]:
        """Upload a file and make it a submission: its reference, 0 where the service gives none, and what it said.

        Raises:
            Unanswered: it may or may not have arrived.
            UploadError: it was refused.
        """
        seconds = self._upload_seconds + path.stat().st_size // self._BYTES_A_SECOND
        answer = self._ask("submit", limit=seconds, slug=self.slug, path=str(path.absolute()), message=message)
        return int(answer["reference"]), str(answer["words"])

    def _ask(self, what: str, *, limit: int | None = None, **arguments: Any) -> Any:
        seconds = limit or self._seconds
        question = {"ask": what, "arguments": arguments, "seconds": seconds}
        line = self._exchange(json.dumps(question), seconds)
        answer = json.loads(line)
        if "refused" in answer:
            raise self._explain(answer["refused"], int(answer["status"]), answer["words"], arguments.get("reference"))
        return answer["value"]

    def _exchange(self, question: str, seconds: int) -> str:
        """The answer to a question."""
        if self._process is None:
            self._process = self._start()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        line, is_in_time = b"", True
        try:
            with contextlib.suppress(OSError):
                process.stdin.write(f"{question}\n".encode())
                process.stdin.flush()
                is_in_time = bool(select.select([process.stdout], [], [], seconds + _GRACE_SECONDS)[0])
                line = process.stdout.readline() if is_in_time else b""
        except BaseException:  # Ctrl-C: an answer that comes now would be taken for that of the next question
            self.close()
            raise
        if line.endswith(b"\n"):
            return line.decode()
        if is_in_time:  # the stream has ended, and the process with it
            is_in_time = process.wait() != -signal.SIGALRM
        self.close()
        raise Unanswered(
            f"{self.slug}: Kaggle's client must answer; it ended with code {process.returncode}. Run the command again."
            if is_in_time
            else f"{self.slug}: the service must answer within {seconds} s; it did not. Look whether the network "
            "reaches kaggle.com, and run the command again."
        )

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        if util.find_spec("kaggle") is None:
            raise _build_missing_package()
        environment = {name: value for name, value in os.environ.items() if name not in _CHATTY}
        # -P: a file kaggle.py in the working folder is not the client. A session of its own: Ctrl-C is for us.
        return subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    def _explain(self, kind: str, status: int, words: str, reference: int | None) -> UploadError:
        said = f" (it said: {words.rstrip('.')})" if words else ""
        page = f"kaggle.com/competitions/{self.slug}"
        match kind, status:
            case ("no login", _) | ("http", 401):
                return UploadError(
                    f"{self.slug}: credentials must be valid; the service does not know them, or they have "
                    f"expired{said}. {HOW_TO_GET}."
                )
            case "http", 403:
                return UploadError(
                    f"{self.slug}: your account must have joined the competition; the service answered 403{said}. "
                    f"Accept the rules at {page}/rules and run the command again."
                )
            case "http", 404 if reference is not None:
                return NotFound(
                    f"{self.slug}: submission {reference} must be one of yours; there is none. Look at {page}."
                )
            case "http", 404:
                return NotFound(
                    f"{self.slug}: must be a competition's name as in its address; the service knows none of that "
                    f"name (404){said}. Look at {page}, and give the right one with --slug or as upload_slug in the "
                    "contract."
                )
            case "http", 429:
                return UploadError(f"{self.slug}: too many requests (429){said}. Wait some minutes and run it again.")
            case "http", _ if status < 500:
                return UploadError(f"{self.slug}: the service refused, with status {status}{said}. Look at {page}.")
            case "http", _:
                return Unanswered(
                    f"{self.slug}: the service failed, with status {status}{said}. Run the command again later."
                )
            case "no answer of the service", _:
                return Unanswered(
                    f"{self.slug}: the service must answer in JSON; got something else, such as the page of a proxy "
                    "or of maintenance. Look whether a browser on this network reaches kaggle.com, and run the "
                    "command again."
                )
            case "no connection", _:
                return Unanswered(
                    f"{self.slug}: the service must be reachable; got no connection{said}. Look at the network, and "
                    "run the command again."
                )
            case "not uploaded", _:
                return UploadError(
                    f"{self.slug}: the file must arrive whole; the upload was broken off{said}. Run the command again."
                )
            case "not installed", _:
                return _build_missing_package()
        return Unanswered(f"{self.slug}: Kaggle's client failed{said}. Run the command again.")


def _build_missing_package() -> UploadError:
    return UploadError("upload: needs Kaggle's own client, which is not installed. pip install 'productrec[kaggle]'")
