"""A stand-in for the competition's service on loopback, which speaks what Kaggle's own client speaks.

The client is pointed to ``http://localhost`` (KAGGLE_API_ENVIRONMENT=LOCALHOST), a port that only the administrator may
open; so the service is named as the proxy of all HTTP, and gets each request with its whole address.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

USER, KEY, TOKEN = "ada", "sentinel-key-0123456789", "sentinel-token-9876543210"
SLUG = "imaterialist-product-2019"
Fault = Callable[["_Handler"], None]


class KaggleService:
    """What the service knows, and how it shall misbehave; both may be changed while it runs."""

    def __init__(self, home: Path, address: str) -> None:
        self.home, self.address = home, address
        self.token = home / ".kaggle/access_token"
        self.begin()

    def begin(self) -> None:
        """Forget all that has happened."""
        self.competitions: dict[str, dict[str, Any]] = {
            SLUG: {"title": "A race", "maxDailySubmissions": 5, "userHasEntered": True},
        }
        self.submissions: list[dict[str, Any]] = []
        self.blobs: dict[str, bytes] = {}
        self.polls_pending = 0  # how often a submission is still pending when it is asked for
        self.public, self.private, self.scoring_error = "0.25000", "", ""
        self.has_limits = True
        self.faults: dict[str, list[Fault]] = {}  # by method, each used up by one request
        self.calls: list[str] = []

    def build_environment(self) -> dict[str, str]:
        """What points the client to the service, and to no credentials but those of its home."""
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY"), self.address)
        none = dict.fromkeys(("no_proxy", "NO_PROXY"), "")
        return {"HOME": str(self.home), "KAGGLE_API_ENVIRONMENT": "LOCALHOST"} | proxies | none

    def add(self, file: str, size: int, *, date: datetime | None = None, status: str = "COMPLETE", **more: Any) -> int:
        """A submission that is there already; its reference."""
        reference = 1001 + len(self.submissions)
        when = (date or datetime.now(UTC)).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        one = {"ref": reference, "fileName": file, "totalBytes": size, "date": when, "status": status, **more}
        self.submissions.append(one)
        return reference

    def score(self, submission: dict[str, Any]) -> None:
        """Score a submission as ``public``, ``private`` and ``scoring_error`` say."""
        if self.scoring_error:
            submission |= {"status": "ERROR", "errorDescription": self.scoring_error}
        else:
            submission |= {"status": "COMPLETE", "publicScore": self.public}
            submission |= {"privateScore": self.private} if self.private else {}

    def count(self, method: str) -> int:
        return self.calls.count(method)


def answer_status(status: int, message: str = "no") -> Fault:
    return lambda handler: handler.send(status, {"code": status, "message": message})


def answer_html(handler: _Handler) -> None:
    handler.send(200, b"<html><body>Down for maintenance</body></html>", kind="text/html")


def drop_in_the_middle(handler: _Handler) -> None:
    handler.rfile.read(10)
    handler.close_connection = True
    handler.connection.close()


def hang(handler: _Handler) -> None:
    handler.read_body()
    time.sleep(30)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: KaggleService

    def log_message(self, *_: object) -> None:
        pass

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status: int, body: Any, *, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Kaggle-APIVersion", "99.0")  # the client prints that it is old
        self.end_headers()
        self.wfile.write(data)

    def _misbehaves(self, method: str) -> bool:
        self.service.calls.append(method)
        faults = self.service.faults.get(method)
        if not faults:
            return False
        faults.pop(0)(self)
        self.close_connection = True
        return True

    def do_PUT(self) -> None:
        if self._misbehaves("PUT"):
            return
        self.service.blobs[urlsplit(self.path).path.rsplit("/", 1)[-1]] = self.read_body()
        self.send(200, b"")

    def do_POST(self) -> None:
        path = urlsplit(self.path)
        if not path.path.startswith("/api/v1/"):
            self.send(404, {"code": 404, "message": "no such address"})
            return
        method = path.path.rsplit("/", 1)[-1]
        if self._misbehaves(method):
            return
        body = json.loads(self.read_body() or b"{}")
        if method == "IntrospectToken":
            self.send(200, {"active": body.get("token") == TOKEN, "username": USER})
            return
        basic = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if self.headers.get("Authorization") not in (f"Bearer {TOKEN}", f"Basic {basic}"):
            self.send(401, {"code": 401, "message": f"Unauthenticated: {self.headers.get('Authorization')}"})
            return
        slug = body.get("competitionName")
        if slug is not None and slug not in self.service.competitions:
            self.send(404, {"code": 404, "message": f"Competition {slug} not found"})
            return
        answer = getattr(self, f"_answer_{method}", None)
        status, value = (404, {"code": 404, "message": "unknown method"}) if answer is None else answer(slug, body)
        self.send(status, value)

    def _answer_GetCompetition(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        return 200, self.service.competitions[slug]

    def _answer_GetSubmissionLimits(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        if not self.service.has_limits:
            return 404, {"code": 404, "message": "unknown method"}
        today = self._count_today()
        left = max(0, self.service.competitions[slug]["maxDailySubmissions"] - today)
        return 200, {"numToday": today, "numTotal": len(self.service.submissions), "numAllowedNow": left}

    def _count_today(self) -> int:
        return sum(one["date"][:10] == f"{datetime.now(UTC):%Y-%m-%d}" for one in self.service.submissions)

    def _answer_ListSubmissions(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        """Pages of two."""
        newest = self.service.submissions[::-1]
        start = int(body.get("pageToken") or 0)
        more = {"nextPageToken": str(start + 2)} if start + 2 < len(newest) else {}
        return 200, {"submissions": newest[start : start + 2], **more}

    def _answer_StartSubmissionUpload(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        token = f"blob-{len(self.service.blobs) + 1}"
        self.service.blobs[f"{token}-name"] = body["fileName"].encode()
        return 200, {"token": token, "createUrl": f"{self.service.address}/upload/{token}"}

    def _answer_CreateSubmission(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        token = body["blobFileTokens"]
        name = self.service.blobs[f"{token}-name"].decode()
        message = body.get("submissionDescription", "")
        reference = self.service.add(name, len(self.service.blobs[token]), status="PENDING", description=message)
        return 200, {"message": "Successfully submitted to A race", "ref": reference}

    def _answer_GetSubmission(self, slug: str | None, body: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        found = next((one for one in self.service.submissions if one["ref"] == body.get("ref")), None)
        if found is None:
            return 404, {"code": 404, "message": "no such submission"}
        if self.service.polls_pending > 0:
            self.service.polls_pending -= 1
        elif found["status"] == "PENDING":
            self.service.score(found)
        return 200, found


@contextmanager
def start_service(home: Path) -> Iterator[KaggleService]:
    """The service, on a free port, for a client whose home is ``home``."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.service = KaggleService(home, f"http://127.0.0.1:{server.server_port}")
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Handler.service
    finally:
        server.shutdown()
        server.server_close()
