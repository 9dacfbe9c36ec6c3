"""One URL to one complete file: attempts, redirects, limits, and a few words for whatever went wrong."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
from yarl import URL

from productrec import __version__
from productrec.data.download.addresses import NOT_PUBLIC, AddressRefusedError, DaemonResolver, open_public_socket
from productrec.data.download.content import HEAD_BYTES, ContentDecoder, find_format
from productrec.data.download.ledger import explain_disk, get_part
from productrec.data.download.terms import DownloadLimits, Outcome, Request
from productrec.errors import ProductrecError

_REDIRECTS = (301, 302, 303, 307, 308)
_READ_BYTES = 64 << 10
_HEADERS = {
    "User-Agent": f"productrec/{__version__}",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",  # pictures are compressed already
}


class _FailureError(Exception):
    """Why an attempt gave no file; ``pause_s`` is what the server asked for."""

    def __init__(self, reason: str, *, may_pass: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_pass = may_pass
        self.pause_s = pause_s


def open_session(limits: DownloadLimits, *, allow_private: bool) -> aiohttp.ClientSession:
    """A session without cookies, proxies or redirects of its own, which connects to public addresses alone.

    Args:
        limits: how many connections, and how long one may take to be made.
        allow_private: connect to any address.
    """
    connector = aiohttp.TCPConnector(
        limit=limits.connections,
        limit_per_host=limits.connections_per_host,
        resolver=DaemonResolver(),
        ttl_dns_cache=300,
        socket_factory=None if allow_private else open_public_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s),
        auto_decompress=False,  # ours is bounded
    )


async def fetch(session: aiohttp.ClientSession, request: Request, folder: Path, limits: DownloadLimits) -> Outcome:
    """Fetch one image to its temporary place (`get_part`), with as many attempts as are allowed and make sense.

    Args:
        session: from `open_session`.
        request: what to fetch.
        folder: where the temporary file lies.
        limits: bounds of each attempt.

    Returns:
        The outcome; whatever the URL or its server does wrong is its reason. Without success no file is left.

    Raises:
        StorageError: the disk refused.
    """
    image_id, given = request
    if not isinstance(given, str) or not given.strip():
        return Outcome(image_id, None, "no URL")
    part = get_part(folder, image_id)
    complete = False
    try:
        for attempt in range(1, limits.attempts + 1):
            try:
                outcome = await _try_once(session, image_id, given, part, limits)
                complete = True
                return outcome
            except _FailureError as failure:
                if not failure.may_pass or attempt == limits.attempts:
                    return Outcome(image_id, given, failure.reason, failure.may_pass)
                pause = limits.pause_s * 2 ** min(attempt - 1, 30) * random.uniform(0.5, 1.5)
                await asyncio.sleep(min(max(pause, failure.pause_s), limits.longest_pause_s))
        raise AssertionError("the last attempt returns")
    finally:
        if not complete:
            part.unlink(missing_ok=True)


async def _try_once(
    session: aiohttp.ClientSession, image_id: str, given: str, part: Path, limits: DownloadLimits
) -> Outcome:
    """One attempt within the deadline; every failure but the disk's becomes a `_FailureError`."""
    try:
        async with asyncio.timeout(limits.deadline_s):
            return await _follow(session, image_id, given, part, limits)
    except (_FailureError, ProductrecError):
        raise
    except aiohttp.ConnectionTimeoutError:
        raise _FailureError(f"no connection within {limits.connect_s:g} s", may_pass=True) from None
    except TimeoutError:
        raise _FailureError(f"not complete within {limits.deadline_s:g} s", may_pass=True) from None
    except aiohttp.ClientConnectorCertificateError:
        raise _FailureError("certificate is not trusted") from None
    except aiohttp.ClientConnectorError as error:
        raise _explain_connection(error) from None
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError):
        raise _FailureError("connection dropped", may_pass=True) from None
    except aiohttp.ClientResponseError:
        raise _FailureError("answer is not HTTP", may_pass=True) from None
    except ValueError:  # yarl's, the resolver's, and aiohttp's InvalidURL
        raise _FailureError("not a valid URL") from None
    except Exception as error:  # a single URL must not end the run, whatever a library makes of its answer
        raise _FailureError(f"failed ({type(error).__name__})", may_pass=True) from None


def _explain_connection(error: aiohttp.ClientConnectorError) -> _FailureError:
    if isinstance(error.os_error, AddressRefusedError):
        return _FailureError(NOT_PUBLIC)
    if isinstance(error.os_error, socket.gaierror):
        return _FailureError("host not found", may_pass=True)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return _FailureError("no secure connection", may_pass=True)
    return _FailureError("no connection", may_pass=True)


async def _follow(
    session: aiohttp.ClientSession, image_id: str, given: str, part: Path, limits: DownloadLimits
) -> Outcome:
    """Follow redirects by hand, each hop checked as the first one was, then store the answer."""
    url = URL(given.strip())
    for _ in range(limits.redirects + 1):
        if url.scheme not in ("http", "https"):
            raise _FailureError("scheme is neither http nor https")
        if not url.host:
            raise _FailureError("not a valid URL")
        async with session.get(url, allow_redirects=False) as response:
            try:
                if response.status not in _REDIRECTS:
                    _check_status(response)
                    return await _store(response, image_id, given, part, limits)
                if "Location" not in response.headers:
                    raise _FailureError(f"HTTP {response.status} without a location")
                url = url.join(URL(response.headers["Location"]))
            finally:
                if not response.content.at_eof():
                    response.close()  # the rest is not wanted, however much it is
    raise _FailureError(f"more than {limits.redirects} redirects")


def _check_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status in (200, 203):
        return
    if status in (408, 429) or status >= 500:
        pause_s = _read_pause(response.headers.get("Retry-After", ""))
        raise _FailureError(f"HTTP {status}", may_pass=True, pause_s=pause_s)
    raise _FailureError(f"HTTP {status}")


def _read_pause(text: str) -> float:
    """Seconds that a Retry-After header asks for, given as such or as a date; 0 where it makes no sense."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


async def _store(
    response: aiohttp.ClientResponse, image_id: str, given: str, part: Path, limits: DownloadLimits
) -> Outcome:
    """Write the decoded body to ``part``; end at the first byte that shows that it is not wanted."""
    too_large = _FailureError(f"larger than {limits.most_bytes} bytes")
    if (response.content_length or 0) > limits.most_bytes:
        raise too_large
    try:
        decoder = ContentDecoder(response.headers.get("Content-Encoding", ""))
    except ValueError as error:
        raise _FailureError(str(error)) from None
    digest, size, received, head, image_format = hashlib.sha256(), 0, 0, b"", None
    with explain_disk(part.parent):
        file = part.open("wb")
    try:
        async for data in response.content.iter_chunked(_READ_BYTES):
            received += len(data)
            try:
                for piece in decoder.decode(data):
                    size += len(piece)
                    if max(size, received) > limits.most_bytes:
                        raise too_large
                    if image_format is None and len(head) < HEAD_BYTES:
                        head += piece[:HEAD_BYTES]
                        if len(head) >= HEAD_BYTES and (image_format := find_format(head)) is None:
                            raise _FailureError("not an image")
                    digest.update(piece)
                    with explain_disk(part.parent):
                        file.write(piece)
            except ValueError as error:
                raise _FailureError(str(error)) from None
        if not decoder.is_complete:
            raise _FailureError("connection dropped", may_pass=True)
        if size == 0:
            raise _FailureError("empty")
        if (image_format := image_format or find_format(head)) is None:
            raise _FailureError("not an image")
    finally:
        with explain_disk(part.parent):
            file.close()
    return Outcome(image_id, given, format=image_format, size=size, sha256=digest.hexdigest())
