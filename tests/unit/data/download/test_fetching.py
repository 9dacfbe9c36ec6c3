"""Downloads: a hostile server on the loopback, every limit, and what is left after kills."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from productrec.data.decode import FORMATS, check_image
from productrec.data.download import addresses
from productrec.data.download import ledger as download_ledger
from productrec.data.download import transfer as download_transfer
from productrec.data.download.addresses import NOT_PUBLIC, is_public
from productrec.data.download.content import ContentDecoder, find_format
from productrec.data.download.fetching import download_images
from productrec.data.download.ledger import LEDGER_NAME, get_part, open_ledger
from productrec.data.download.terms import DownloadLimits, Outcome, Request, get_file_name
from productrec.data.download.transfer import _read_pause
from productrec.errors import ArtifactError, DataError, Interrupted, RecipeError, StorageError

QUICK = DownloadLimits(attempts=3, pause_s=0.01, deadline_s=5, most_bytes=1 << 20)


def draw(number: int = 0, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 256, 90, 200)).save(buffer, kind)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """One path, one way to misbehave."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, pieces: Iterator[bytes], pause_s: float = 0.0, **headers: str) -> None:
        """Send until the client has had enough."""
        self.close_connection = True
        self.send_response(200)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            self.server.sent += len(piece)
            if self.server.stop.wait(pause_s):
                return

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.counts[self.path] += 1
            count = server.counts[self.path]
            server.times.append(time.monotonic())
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            name, _, rest = self.path.lstrip("/").partition("/")
            getattr(self, f"serve_{name.partition('?')[0]}")(rest, count)
        finally:
            with server.lock:
                server.busy -= 1

    def serve_ok(self, rest: str, count: int) -> None:
        self.answer(draw(int(rest or 0)), Content_Type="text/plain")

    def serve_slow(self, rest: str, count: int) -> None:
        time.sleep(0.03)
        self.answer(draw(int(rest)))

    def serve_kind(self, rest: str, count: int) -> None:
        self.answer(draw(kind=rest))

    def serve_hops(self, rest: str, count: int) -> None:
        left = int(rest)
        self.answer(status=302, Location=f"../hops/{left - 1}" if left > 1 else "/ok/7")

    def serve_to(self, rest: str, count: int) -> None:
        self.answer(status=307, Location=bytes.fromhex(rest).decode())

    def serve_nowhere(self, rest: str, count: int) -> None:
        self.answer(status=301)

    def serve_status(self, rest: str, count: int) -> None:
        self.answer(b"sorry", status=int(rest))

    def serve_busy(self, rest: str, count: int) -> None:
        self.answer(draw(3)) if count > 2 else self.answer(status=503)

    def serve_later(self, rest: str, count: int) -> None:
        self.answer(draw(3)) if count > 1 else self.answer(status=429, Retry_After=rest)

    def serve_html(self, rest: str, count: int) -> None:
        self.answer(b"<!doctype html><title>Moved, sorry</title>", Content_Type="image/jpeg")

    def serve_short(self, rest: str, count: int) -> None:
        self.answer(bytes.fromhex(rest), Content_Type="image/jpeg")

    def serve_drip(self, rest: str, count: int) -> None:
        self.stream(iter([draw()[:20], *[b"\0"] * 1000]), pause_s=0.1, Content_Length="1020")

    def serve_endless(self, rest: str, count: int) -> None:
        self.stream(iter(lambda: draw() + b"\0" * 50_000, None))

    def serve_pages(self, rest: str, count: int) -> None:
        self.stream(iter(lambda: b"<p>and so on" * 1000, None))

    def serve_bomb(self, rest: str, count: int) -> None:
        self.answer(make_bomb(rest, 100), Content_Encoding=rest)

    def serve_packed(self, rest: str, count: int) -> None:
        data = {"gzip": gzip.compress, "deflate": zlib.compress, "raw": deflate_raw}[rest](draw(5))
        self.answer(data, Content_Encoding="gzip" if rest == "gzip" else "deflate")

    def serve_cut(self, rest: str, count: int) -> None:
        self.answer(gzip.compress(draw(5))[:-9], Content_Encoding="gzip")

    def serve_fake(self, rest: str, count: int) -> None:
        self.answer(draw(5), Content_Encoding=rest)

    def serve_drop(self, rest: str, count: int) -> None:
        if count > 1:
            return self.answer(draw(4))
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(draw()[:100])
        return None

    def serve_hang_up(self, rest: str, count: int) -> None:
        self.close_connection = True

    def serve_noise(self, rest: str, count: int) -> None:
        self.close_connection = True
        self.wfile.write(b"220 mail.invalid ESMTP\r\n\r\n")


class Server(ThreadingHTTPServer):
    """Counts what it is asked for; its threads end with it."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.counts: Counter[str] = Counter()
        self.times: list[float] = []
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.busy = self.most_busy = self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client: object) -> None:
        pass  # the client hung up


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def deflate_raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def make_bomb(encoding: str, mebibytes: int) -> bytes:
    """A picture's first bytes, then zeros: about a thousandth of its decoded size."""
    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
    pieces = [packer.compress(draw())] + [packer.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return b"".join([*pieces, packer.flush()])


def fetch_one(url: str | None, folder: Path, limits: DownloadLimits = QUICK, *, allow_private: bool = True) -> Outcome:
    [outcome] = download_images([Request("one", url)], folder, limits=limits, allow_private=allow_private)
    path = folder / get_file_name("one")
    assert outcome.ok == path.exists()
    if outcome.ok:
        data = path.read_bytes()
        assert outcome.size == len(data) and outcome.sha256 == hashlib.sha256(data).hexdigest()
    assert json.loads((folder / LEDGER_NAME).read_text())["reason"] == outcome.reason
    assert not list(folder.glob(".part-*"))
    return outcome


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------- one URL


def test_a_good_url_gives_the_file(server: Server, tmp_path: Path) -> None:
    outcome = fetch_one(f"{server.url}/ok/9", tmp_path)
    assert outcome.ok and outcome.format == "JPEG" and outcome.reason is None
    assert (tmp_path / get_file_name("one")).read_bytes() == draw(9)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_told_by_its_content(server: Server, tmp_path: Path, kind: str) -> None:
    assert fetch_one(f"{server.url}/kind/{kind}", tmp_path).format == kind


def test_five_redirects_are_followed_and_six_are_not(server: Server, tmp_path: Path) -> None:
    assert fetch_one(f"{server.url}/hops/5", tmp_path / "five").ok
    outcome = fetch_one(f"{server.url}/hops/6", tmp_path / "six")
    assert outcome.reason == "more than 5 redirects" and server.counts["/ok/7"] == 1


@pytest.mark.parametrize(
    ("path", "reason", "requests"),
    [
        ("status/404", "HTTP 404", 1),
        ("status/410", "HTTP 410", 1),
        ("status/403", "HTTP 403", 1),
        ("status/305", "HTTP 305", 1),
        ("status/206", "HTTP 206", 1),
        ("status/500", "HTTP 500", 3),
        ("nowhere", "HTTP 301 without a location", 1),
        (f"to/{b'file:///etc/passwd'.hex()}", "scheme is neither http nor https", 1),
        (f"to/{b'ftp://127.0.0.1/a.jpg'.hex()}", "scheme is neither http nor https", 1),
        (f"to/{b'http://[::1'.hex()}", "not a valid URL", 1),
        ("html/photo.jpg", "not an image", 1),
        ("short/", "empty", 1),
        ("short/3c70", "not an image", 1),
        ("short/424d" + "41" * 30, "not an image", 1),
        ("pages", "not an image", 1),
        ("endless", "larger than 1048576 bytes", 1),
        ("bomb/gzip", "larger than 1048576 bytes", 1),
        ("bomb/deflate", "larger than 1048576 bytes", 1),
        ("fake/br", "content encoding is neither gzip nor deflate", 1),
        ("fake/gzip", "content encoding is damaged", 1),
        ("cut", "connection dropped", 3),
        ("hang_up", "connection dropped", 3),
        ("noise", "answer is not HTTP", 3),
    ],
)
def test_what_a_server_does_wrong_is_one_line(
    server: Server, tmp_path: Path, path: str, reason: str, requests: int
) -> None:
    outcome = fetch_one(f"{server.url}/{path}", tmp_path)
    assert (outcome.reason, outcome.may_pass) == (reason, requests > 1)
    # A connection that ends without an answer may be asked once more by the client itself.
    assert requests <= server.counts[f"/{path}"] <= requests * (2 if path == "hang_up" else 1)
    assert server.sent < 20 << 20


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "no URL"),
        ("", "no URL"),
        ("  ", "no URL"),
        (float("nan"), "no URL"),
        ("file:///etc/passwd", "scheme is neither http nor https"),
        ("ftp://127.0.0.1/a.jpg", "scheme is neither http nor https"),
        ("data:image/png;base64,AAAA", "scheme is neither http nor https"),
        ("photo.jpg", "scheme is neither http nor https"),
        ("http:///photo.jpg", "not a valid URL"),
        ("http://[::1", "not a valid URL"),
        ("http://127.0.0.1:99999/", "not a valid URL"),
        ("http://\udcff/", "not a valid URL"),
        (f"http://{'a' * 300}.invalid/", "not a valid URL"),
    ],
)
def test_what_is_no_usable_url_is_an_outcome_too(tmp_path: Path, url: str | None, reason: str) -> None:
    outcome = fetch_one(url, tmp_path)
    assert outcome.reason == reason and not outcome.may_pass


@pytest.mark.parametrize(
    "path", ["busy", "drop", "later/0", "later/soon", "packed/gzip", "packed/deflate", "packed/raw"]
)
def test_what_passes_is_tried_again_and_encodings_are_undone(server: Server, tmp_path: Path, path: str) -> None:
    assert fetch_one(f"{server.url}/{path}", tmp_path).ok


def test_a_server_that_asks_for_a_pause_gets_it_up_to_the_limit(server: Server, tmp_path: Path) -> None:
    assert fetch_one(f"{server.url}/later/1", tmp_path / "second").ok
    assert 1.0 <= server.times[1] - server.times[0] < 3.0
    server.times.clear()
    capped = DownloadLimits(pause_s=0.01, longest_pause_s=0.2)
    assert fetch_one(f"{server.url}/later/86400", tmp_path / "day", capped).ok
    assert 0.2 <= server.times[1] - server.times[0] < 2.0


def test_a_pause_may_be_given_as_a_date() -> None:
    assert 50 < _read_pause(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)) <= 60
    assert _read_pause("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [_read_pause(text) for text in ("", "-5", "soon", "1e9", "²", "Wed, 99 Foo 2015")] == [0.0] * 6
    assert _read_pause("9" * 400) == 999_999_999


def test_a_drip_ends_at_the_deadline(server: Server, tmp_path: Path) -> None:
    limits = DownloadLimits(attempts=2, pause_s=0.01, deadline_s=0.4)
    start = time.monotonic()
    outcome = fetch_one(f"{server.url}/drip", tmp_path, limits)
    assert outcome.reason == "not complete within 0.4 s" and outcome.may_pass
    assert time.monotonic() - start < 3 and server.counts["/drip"] == 2


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = fetch_one(f"http://127.0.0.1:{unused.getsockname()[1]}/", tmp_path)
    assert outcome.reason == "no connection" and outcome.may_pass


def test_a_host_that_never_answers(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # a full queue: the next connection is neither accepted nor refused
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        limits = DownloadLimits(attempts=2, pause_s=0.01, connect_s=0.2)
        outcome = fetch_one(f"http://127.0.0.1:{deaf.getsockname()[1]}/", tmp_path, limits)
    assert outcome.reason == "no connection within 0.2 s" and outcome.may_pass


def test_a_name_server_that_never_answers_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def wait(*arguments: object) -> list:
        answered.wait(5)
        return []

    monkeypatch.setattr(addresses.socket, "getaddrinfo", wait)
    started = time.monotonic()
    outcome = fetch_one("http://shop.example.com/a.jpg", tmp_path, DownloadLimits(attempts=1, deadline_s=0.2))
    assert outcome.reason == "not complete within 0.2 s" and outcome.may_pass
    assert time.monotonic() - started < 4
    answered.set()


def test_a_host_without_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> list:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", refuse)
    outcome = fetch_one("http://shop.invalid/a.jpg", tmp_path)
    assert outcome.reason == "host not found" and outcome.may_pass


# ---------------------------------------------------------------- content


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_met_in_small_pieces(encoding: str) -> None:
    bomb = make_bomb(encoding, 50)
    tracemalloc.start()
    try:
        sizes = [len(piece) for piece in ContentDecoder(encoding).decode(bomb)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 50 << 20 and max(sizes) <= 64 << 10
    assert peak < 4 * len(bomb) + (1 << 20)


def test_an_encoded_stream_byte_by_byte_and_its_end() -> None:
    decoder = ContentDecoder("GZIP")
    packed = gzip.compress(b"abc" * 1000)
    assert b"".join(piece for byte in packed[:-1] for piece in decoder.decode(bytes([byte]))) == b"abc" * 1000
    assert not decoder.is_complete
    list(decoder.decode(packed[-1:] + b"\0\0"))
    assert decoder.is_complete
    with pytest.raises(ValueError, match="damaged"):
        list(decoder.decode(packed))


def test_signatures_need_all_their_bytes() -> None:
    assert find_format(b"RIFF\0\0\0\0WEBPVP8 ") == "WEBP" and find_format(b"RIFF\0\0\0\0AVI LIST") is None
    assert find_format(b"MM\0*") == "TIFF" and find_format(b"II+\0") == "TIFF"
    assert find_format(b"") is None and find_format(b"BM") is None and find_format(b"<svg>") is None


# ---------------------------------------------------------------- addresses


PRIVATE = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 239.1.1.1 240.0.0.1
255.255.255.255 192.0.2.1 198.18.0.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd12::1 fec0::1 ff02::1 ff0e::1 2001:db8::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1::
2002:a00:1:: 2001:0:808:808:0:0:80ff:fffe localhost 127.1
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0", "[::]", "169.254.169.254", "0x7f000001"],
)
def test_addresses_that_are_not_public_are_never_asked(server: Server, tmp_path: Path, host: str) -> None:
    outcome = fetch_one(f"http://{host}:{server.server_port}/ok", tmp_path, allow_private=False)
    assert (
        outcome.reason == NOT_PUBLIC and "--allow-private" in NOT_PUBLIC and not outcome.may_pass and not server.counts
    )


def test_a_public_name_with_a_private_address_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_port))
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *arguments: [answer])
    url = f"http://photos.example.com:{server.server_port}/ok"
    assert fetch_one(url, tmp_path / "a", allow_private=False).reason == NOT_PUBLIC
    assert not server.counts
    assert fetch_one(url, tmp_path / "b").ok  # the same, unguarded, arrives


@pytest.mark.parametrize("target", ["127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_a_redirect_to_a_private_address_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    def resolve(host: str, port: int, *rest: object) -> list:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", port))]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    hop = f"http://{target}:{server.server_port}/ok".encode().hex()
    outcome = fetch_one(f"{server.url}/to/{hop}", tmp_path, allow_private=False)
    assert outcome.reason == NOT_PUBLIC
    assert list(server.counts) == [f"/to/{hop}"]  # the first hop was allowed, and asked


# ---------------------------------------------------------------- names

TRICKS = ["../x", "..", ".", "", "/etc/passwd", "a\0b", "A", "a", "x" * 5000, "con", "ä", "a/b", "a\\b", "\udcff", " a"]


def test_names_are_safe_distinct_and_stable(tmp_path: Path) -> None:
    names = [get_file_name(image_id) for image_id in TRICKS]
    assert len({name.lower() for name in names}) == len(TRICKS)
    assert all(len(name) < 100 and name.isascii() and name == os.path.basename(name) for name in names)
    assert get_file_name("a") == "a-ca978112ca1bbdcafac231b39a23dc4d.img"


def test_ids_with_path_tricks_stay_in_the_folder(server: Server, tmp_path: Path) -> None:
    requests = [Request(image_id, f"{server.url}/ok/{row}") for row, image_id in enumerate(TRICKS)]
    folder = tmp_path / "deep" / "folder"
    outcomes = download_images(requests, folder, limits=QUICK, allow_private=True)
    assert all(outcome.ok for outcome in outcomes)
    for row, image_id in enumerate(TRICKS):
        assert (folder / get_file_name(image_id)).read_bytes() == draw(row)
    assert len(list(tmp_path.rglob("*.img"))) == len(list(folder.iterdir())) - 2 == len(TRICKS)
    before = read_folder(folder)
    assert download_images(requests, folder, limits=QUICK, allow_private=True) == outcomes
    assert read_folder(folder) == before and server.counts.total() == len(TRICKS)


def test_an_id_may_stand_once_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unique.*1 \\(a\\)"):
        download_images([Request("a", None), Request("b", None), Request("a", None)], tmp_path)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"deadline_s": 0}, {"redirects": -1}, {"pause_s": float("nan")}])
def test_limits_are_checked(wrong: dict) -> None:
    with pytest.raises(RecipeError, match=f"{next(iter(wrong))} must be"):
        DownloadLimits(**wrong)


# ---------------------------------------------------------------- many URLs


def make_requests(server: Server, count: int) -> list[Request]:
    """Good ones, with one of each lasting fault among them."""
    requests = [Request(f"Image/{row}", f"{server.url}/slow/{row}") for row in range(count)]
    faults = [None, f"{server.url}/status/404", f"{server.url}/html", f"{server.url}/status/500", "ftp://host/a"]
    return requests[: count // 2] + [Request(f"bad {n}", url) for n, url in enumerate(faults)] + requests[count // 2 :]


def test_outcomes_come_in_order_within_the_connections_per_host(server: Server, tmp_path: Path) -> None:
    requests = make_requests(server, 60)
    settled: list[int] = []
    limits = DownloadLimits(connections=20, connections_per_host=6, attempts=2, pause_s=0.01)
    outcomes = download_images(requests, tmp_path, limits=limits, allow_private=True, on_progress=settled.append)
    assert [outcome.image_id for outcome in outcomes] == [request.image_id for request in requests]
    assert sum(settled) == len(requests) and 3 <= server.most_busy <= 6
    lines = [json.loads(line) for line in (tmp_path / LEDGER_NAME).read_text().splitlines()]
    assert [line["image_id"] for line in lines] == [request.image_id for request in requests]
    assert [line["reason"] for line in lines if line["reason"]] == [
        "no URL",
        "HTTP 404",
        "not an image",
        "HTTP 500",
        "scheme is neither http nor https",
    ]


def test_a_busy_host_does_not_hold_up_another(server: Server, tmp_path: Path) -> None:
    address = server.url.replace("127.0.0.1", "localhost")  # to the client another host
    slow = [Request(f"slow {row}", f"{server.url}/drip?{row}") for row in range(8)]
    good = [Request(f"good {row}", f"{address}/ok/{row}") for row in range(8)]
    limits = DownloadLimits(connections=4, connections_per_host=2, attempts=1, deadline_s=0.3)
    done: list[str] = []

    def look(count: int) -> None:
        if len(list(tmp_path.glob("good*.img"))) == 8 and not done:
            done.append("good")
            assert sum(server.counts[f"/drip?{row}"] for row in range(8)) <= 4

    download_images(slow + good, tmp_path, limits=limits, allow_private=True, on_progress=look)
    assert done == ["good"]


def test_a_rerun_tries_what_may_pass_what_changed_and_what_is_damaged(server: Server, tmp_path: Path) -> None:
    urls = {"good": "ok/1", "gone": "ok/2", "damaged": "ok/3", "absent": "status/404", "down": "status/500"}
    requests = [Request(image_id, f"{server.url}/{path}") for image_id, path in urls.items()]
    outcomes = download_images(requests, tmp_path, limits=QUICK, allow_private=True)
    before = read_folder(tmp_path)
    (tmp_path / get_file_name("gone")).unlink()
    path = tmp_path / get_file_name("damaged")
    path.write_bytes(bytes(path.stat().st_size))
    server.counts.clear()
    assert download_images(requests, tmp_path, limits=QUICK, allow_private=True) == outcomes
    assert server.counts == {"/ok/2": 1, "/ok/3": 1, "/status/500": 3}
    assert read_folder(tmp_path) == before

    server.counts.clear()
    download_images(requests, tmp_path, limits=QUICK, allow_private=True, retry_all=True)
    assert server.counts == {"/status/404": 1, "/status/500": 3}

    server.counts.clear()
    changed = [Request("good", f"{server.url}/status/410"), Request("absent", f"{server.url}/ok/4")]
    assert [one.reason for one in download_images(changed, tmp_path, limits=QUICK, allow_private=True)] == [
        "HTTP 410",
        None,
    ]
    assert not (tmp_path / get_file_name("good")).exists()  # what is no longer true is gone
    lines = (tmp_path / LEDGER_NAME).read_text().splitlines()
    assert [json.loads(line)["image_id"] for line in lines] == ["good", "absent", "damaged", "down", "gone"]


@pytest.mark.parametrize(
    "torn", [b'{"image_id": "one", "re', b"\xff\xfe", b"[1]\n", b'{"image_id": 3}\nnull\n', b"[" * 9999]
)
def test_a_torn_ledger_is_read_as_far_as_it_goes(server: Server, tmp_path: Path, torn: bytes) -> None:
    first, second = Request("first", f"{server.url}/ok/1"), Request("second", f"{server.url}/ok/2")
    download_images([first], tmp_path, limits=QUICK, allow_private=True)
    with (tmp_path / LEDGER_NAME).open("ab") as file:
        file.write(torn)
    (tmp_path / ".part-left.img").write_bytes(b"half")
    download_images([first, second], tmp_path, limits=QUICK, allow_private=True)
    assert server.counts == {"/ok/1": 1, "/ok/2": 1}
    with open_ledger(tmp_path) as ledger:
        assert list(ledger.outcomes) == ["first", "second"]
    assert not (tmp_path / ".part-left.img").exists()


def test_a_line_after_a_torn_one_is_kept_and_leftovers_go_first(tmp_path: Path) -> None:
    (tmp_path / LEDGER_NAME).write_bytes(b'{"image_id": "one", "re')
    (tmp_path / ".part-left.img").write_bytes(b"half")
    with open_ledger(tmp_path) as ledger:
        assert not (tmp_path / ".part-left.img").exists()  # before anything new asks for its room
        ledger.settle(Outcome("two", None, "no URL"))
    with open_ledger(tmp_path) as ledger:  # as if the process had been killed before the end
        assert ledger.outcomes == {"two": Outcome("two", None, "no URL")}


def test_two_downloads_into_one_folder_are_refused(tmp_path: Path) -> None:
    with open_ledger(tmp_path), pytest.raises(ArtifactError, match="one download at a time"):
        download_images([Request("a", None)], tmp_path)
    download_images([Request("a", None)], tmp_path)


# ---------------------------------------------------------------- kills, a full disk, Ctrl-C

SCRIPT = """
import json, sys
from pathlib import Path
from productrec.data.download.fetching import DownloadLimits, Request, download_images
requests = [Request(*pair) for pair in json.loads(sys.argv[1])]
limits = DownloadLimits(attempts=2, pause_s=0.01, connections_per_host=4)
download_images(requests, Path(sys.argv[2]), limits=limits, allow_private=True)
"""


def start(requests: list[Request], folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(requests), str(folder)], stderr=subprocess.PIPE)


def test_after_kills_a_rerun_leaves_what_an_undisturbed_run_leaves(server: Server, tmp_path: Path) -> None:
    requests = make_requests(server, 100)
    limits = DownloadLimits(attempts=2, pause_s=0.01)
    expected = download_images(requests, tmp_path / "undisturbed", limits=limits, allow_private=True)
    folder, chance, found = tmp_path / "killed", random.Random(7), []
    for longest_s in (0.02, 0.1, 0.1):
        with start(requests, folder) as process:
            before = len(list(folder.glob("image-*.img")))
            while len(list(folder.glob("image-*.img"))) == before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, longest_s))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        found.append(len(list(folder.glob("image-*.img"))))
    assert 0 < found[0] < found[1] < found[2] < 100  # every run went on, none came to its end
    with open_ledger(folder) as ledger:
        finished = sum(outcome.ok and ledger.is_intact(outcome) for outcome in ledger.outcomes.values())
    assert finished > 0
    server.counts.clear()
    assert download_images(requests, folder, limits=limits, allow_private=True) == expected
    assert sum(count for path, count in server.counts.items() if path.startswith("/slow")) == 100 - finished
    assert read_folder(folder) == read_folder(tmp_path / "undisturbed")


def test_ctrl_c_ends_it_soon_and_keeps_what_is_finished(server: Server, tmp_path: Path) -> None:
    requests = [Request("good", f"{server.url}/ok/1"), *[Request(f"{n}", f"{server.url}/drip?{n}") for n in range(5)]]
    timer: list[float] = []
    before = signal.getsignal(signal.SIGINT)  # shells let what runs in the background ignore it

    def stop(count: int) -> None:
        if (tmp_path / get_file_name("good")).exists() and not timer:
            timer.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="kept"):
        download_images(requests, tmp_path, allow_private=True, on_progress=stop)
    assert time.monotonic() - timer[0] < 1.5
    assert signal.getsignal(signal.SIGINT) is before
    with open_ledger(tmp_path) as ledger:
        assert list(ledger.outcomes) == ["good"] and ledger.is_intact(ledger.outcomes["good"])
    assert not list(tmp_path.glob(".part-*"))


class FullDisk(type(Path())):
    """A path to which nothing can be written once it is open."""

    def open(self, *arguments: object, **more: object) -> io.BufferedWriter:
        return open("/dev/full", "wb")


def test_ctrl_c_is_heeded_while_earlier_files_are_checked(server: Server, tmp_path: Path) -> None:
    requests = [Request("good", f"{server.url}/ok/1")]
    download_images(requests, tmp_path, limits=QUICK, allow_private=True)
    before = read_folder(tmp_path)
    with pytest.raises(Interrupted):
        download_images(requests, tmp_path, on_progress=lambda count: os.kill(os.getpid(), signal.SIGINT))
    assert read_folder(tmp_path) == before


@pytest.mark.parametrize("place", ["write", "flush", "ledger"])
def test_a_full_disk_is_one_clear_error_and_what_stood_stands(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    first = [Request(f"old {row}", f"{server.url}/ok/{row}") for row in range(3)]
    expected = download_images(first, tmp_path, limits=QUICK, allow_private=True)
    before = read_folder(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*arguments: object) -> None:
        raise full

    with monkeypatch.context() as patched:
        if place == "write":
            patched.setattr(download_transfer, "get_part", lambda *arguments: FullDisk(get_part(*arguments)))
        elif place == "flush":
            patched.setattr(download_ledger, "_flush", refuse)
        else:
            patched.setattr(download_ledger.os, "write", refuse)
        requests = first + [Request(f"new {row}", f"{server.url}/slow/{row}") for row in range(20)]
        with pytest.raises(StorageError, match="no space left"):
            download_images(requests, tmp_path, limits=QUICK, allow_private=True)
    after = read_folder(tmp_path)
    assert all(after[name] == content for name, content in before.items())
    assert not list(tmp_path.glob(".part-*"))
    server.counts.clear()
    outcomes = download_images(requests, tmp_path, limits=QUICK, allow_private=True)
    assert outcomes[:3] == expected and all(outcome.ok for outcome in outcomes)
    assert not any(path.startswith("/ok") for path in server.counts)
    for outcome in outcomes:
        path = tmp_path / get_file_name(outcome.image_id)
        check_image(path.read_bytes(), path)


def test_a_disk_that_fails_otherwise_is_a_storage_error_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(download_ledger, "_flush", refuse)
    with pytest.raises(StorageError, match="cannot be read or written"):
        download_images([Request("a", f"{server.url}/ok/1")], tmp_path, limits=QUICK, allow_private=True)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Choose another place"):
        download_images([Request("a", None)], tmp_path / "file")


def test_the_client_is_imported_only_when_something_is_fetched(tmp_path: Path) -> None:
    code = "import sys, productrec.data.download.fetching; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
