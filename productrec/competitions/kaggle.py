"""Kaggle's official client in a process of its own: a question as a line of JSON, an answer as a line of JSON.

`client` starts this file as a program and asks. The package `kaggle` logs in when it is imported, prints, ends the
process where it finds no credentials and knows no time limits; here nothing of that reaches a command. It stands alone
(nothing of productrec is imported), so that it starts quickly.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_LONGEST_TEXT = 300
_HIDDEN = "(hidden)"
_SHORTEST_SECRET = 6  # shorter ones would be found in any text
# A place to upload to is a secret of its own: whoever knows it may write there.
_ADDRESS = re.compile(r"https?://\S+|(?<=url: )/\S+")


class _Refused(Exception):
    """An answer that is no success: its kind, the HTTP status or 0, and the words of whoever refused."""

    def __init__(self, kind: str, words: str = "", status: int = 0) -> None:
        super().__init__(words)
        self.kind, self.words, self.status = kind, words, status


def answer_questions() -> None:
    """Answer until standard input ends; what is printed meanwhile by others goes nowhere."""
    # Streams of our own: the client prints, and its exit() closes sys.stdin.
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    api: Any = None
    for line in questions:
        question = json.loads(line)
        with _limit(question["seconds"]):
            printed = io.StringIO()
            answer: dict[str, Any]
            try:
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    if api is None:
                        api = _log_in()
                    answer = {"value": _QUESTIONS[question["ask"]](api, **question["arguments"])}
            except (Exception, SystemExit) as error:  # SystemExit: the client's own way to say that it has had enough
                refused = _classify(error)
                words = refused.words or _get_last_line(printed.getvalue())
                answer = {"refused": refused.kind, "status": refused.status, "words": words}
        print(_hide_secrets(json.dumps(answer), api), file=answers, flush=True)


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Let the kernel end this process where the block takes longer, whatever the block waits for."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)
    yield
    if hasattr(signal, "alarm"):
        signal.alarm(0)


def _log_in() -> Any:
    try:
        import kaggle  # logs in, and keeps silent about it where that fails
    except ImportError as error:
        raise _Refused("not installed", str(error)) from None
    if not kaggle.api._authenticated:
        try:
            kaggle.api.authenticate()  # again, to hear why
        except SystemExit:
            raise _Refused("no login") from None
    return kaggle.api


def _get_competition(api: Any, slug: str) -> dict[str, Any]:
    from kagglesdk.competitions.types.competition_api_service import ApiGetCompetitionRequest

    request = ApiGetCompetitionRequest()
    request.competition_name = slug
    with api.build_kaggle_client() as client:
        found = client.competitions.competition_api_client.get_competition(request)
    return {
        "title": found.title or slug,
        "a_day": found.max_daily_submissions,
        "is_for_code": found.is_kernels_submissions_only,
        "is_closed": found.submissions_disabled,
        "has_entered": found.user_has_entered,
    }


def _get_limits(api: Any, slug: str) -> dict[str, Any]:
    limits = api.competition_get_submission_limits(slug)
    return {
        "today": limits.num_today,
        "total": limits.num_total,
        "left": limits.num_allowed_now,
        "is_total": limits.limited_by_total,
    }


def _list_submissions(api: Any, slug: str, most: int) -> list[dict[str, Any]]:
    """The latest submissions, newest first."""
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    listed: list[dict[str, Any]] = []
    request = ApiListSubmissionsRequest()
    request.competition_name = slug
    request.page_size = min(most, 100)
    with api.build_kaggle_client() as client:
        while True:
            response = client.competitions.competition_api_client.list_submissions(request)
            listed.extend(_describe(one) for one in response.submissions or ())
            if not response.next_page_token or len(listed) >= most:
                return listed
            request.page_token = response.next_page_token


def _get_submission(api: Any, reference: int) -> dict[str, Any]:
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

    request = ApiGetSubmissionRequest()
    request.ref = reference
    with api.build_kaggle_client() as client:
        return _describe(client.competitions.competition_api_client.get_submission(request))


def _submit(api: Any, slug: str, path: str, message: str) -> dict[str, Any]:
    response = api.competition_submit(path, message, slug, quiet=True)
    if response.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:  # the client's way to say that a PUT failed
        raise _Refused("not uploaded")
    return {"reference": response.ref, "words": response.message}


def _describe(submission: Any) -> dict[str, Any]:
    return {
        "reference": submission.ref,
        "file": _clean(submission.file_name or ""),
        "bytes": submission.total_bytes,
        "date": submission.date.isoformat() if submission.date else "",
        "message": _clean(submission.description or ""),
        "status": submission.status.name.lower(),
        "public": submission.public_score or "",
        "private": submission.private_score or "",
        "error": _clean(submission.error_description or ""),
    }


_QUESTIONS: dict[str, Callable[..., Any]] = {
    "competition": _get_competition,
    "limits": _get_limits,
    "submissions": _list_submissions,
    "submission": _get_submission,
    "submit": _submit,
}


def _classify(error: BaseException) -> _Refused:
    import requests

    if isinstance(error, _Refused):
        return error
    response = getattr(error, "response", None)
    if isinstance(error, requests.exceptions.HTTPError) and response is not None:
        return _Refused("http", str(error), response.status_code)
    if isinstance(error, json.JSONDecodeError | requests.exceptions.JSONDecodeError):
        return _Refused("no answer of the service", "no JSON")
    if isinstance(error, requests.exceptions.RequestException | OSError):
        return _Refused("no connection", type(error).__name__)
    return _Refused("client", f"{type(error).__name__}: {error}")


def _clean(text: str) -> str:
    """A text on one line, without what a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _get_last_line(text: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1] if lines else ""


def _hide_secrets(text: str, api: Any) -> str:
    """The answer without what this process knows that nobody else may, and its words without addresses."""
    for secret in sorted(_list_secrets(api), key=len, reverse=True):
        for form in {secret, json.dumps(secret)[1:-1]}:
            text = text.replace(form, _HIDDEN)
    answer = json.loads(text)
    if "words" in answer:  # shortened last: half of a secret would not be found
        answer["words"] = _ADDRESS.sub("an address", _clean(answer["words"]))[:_LONGEST_TEXT]
    return json.dumps(answer)


def _list_secrets(api: Any) -> set[str]:
    values = dict(getattr(api, "config_values", {}))
    secrets = {str(values.get("key") or ""), str(values.get("token") or "")}
    secrets |= {os.environ.get(name, "") for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN")}
    home = Path.home() / ".kaggle"
    for path in (home / "access_token", home / "access_token.txt", Path(os.environ.get("KAGGLE_API_TOKEN") or "none")):
        with contextlib.suppress(OSError, ValueError):
            secrets.add(path.read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kept = json.loads((home / "credentials.json").read_text(encoding="utf-8"))
        secrets |= {str(kept.get("refresh_token") or ""), str(kept.get("access_token") or "")}
    if values.get("username") and values.get("key"):
        secrets.add(base64.b64encode(f"{values['username']}:{values['key']}".encode()).decode())
    return {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}


if __name__ == "__main__":
    answer_questions()
