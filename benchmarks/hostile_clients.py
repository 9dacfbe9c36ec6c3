"""Hostile and slow clients at ``productrec serve``, beside a good one that asks all the time.

A server with a time-out of --timeout seconds runs in a process of its own. Each kind of client comes in the numbers
that the table tells: bodies that are no photos, bombs in pixels and in scans, forms that are none, wrong lengths,
chunks without end, heads and bodies that trickle, bodies that stall, answers that are not read, requests in a row
without waiting, 1,000 connections at once. Each must get a status or be closed within the time-out (and what it takes
to answer). The good client asks for a photo over and over; its answers other than 200 and its longest wait are told.
Exit code 1: the server has died, or left a client without an answer, or the good client had none during a kind.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib.util
import io
import random
import re
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sections.figures import describe_machine
from serve import read_memory, read_photos, serve_run, train_run

_ROOT = Path(__file__).resolve().parents[1]
_BODY_S = 30.0  # for an answer, beyond the time-out
_PIECE = 1 << 16
_HEAD = b"POST /recognise HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\n"
_PHOTO = _HEAD % b"application/octet-stream"
_FORM = _HEAD % b"multipart/form-data; boundary=b"
_CHUNKED = _PHOTO + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass
class Client:
    """What one sends: at once, then ``drops`` again and again until it is closed; ``reads``: whether it reads."""

    said: bytes
    drops: bytes = b""
    pause_s: float = 0.0
    reads: bool = True
    closes: bool = False


@dataclass
class Good:
    """How the good client fared."""

    statuses: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0


def main() -> None:
    """Let every kind of client come; print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder that is served (none: a drawn one)")
    parser.add_argument("--timeout", type=float, default=3.0, help="of the server, seconds (3)")
    parser.add_argument("--only", nargs="+", help="kinds that hold one of these words")
    parser.add_argument(
        "--bad-images",
        type=Path,
        default=_ROOT.parent / "shared" / "tools" / "make_bad_images.py",
        help="script that draws damaged pictures; left out where it does not exist",
    )
    options = parser.parse_args()
    print(f"command: python benchmarks/hostile_clients.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}\n", flush=True)
    print("| clients | how many | what they got | longest, s | good: answers, longest s | server, MB |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="productrec-benchmark-") as name:
        run = options.run or train_run(Path(name), quick=True)
        photo = read_photos(Path(name) / "none", Path(name), 1)[0]
        good_all = True
        with serve_run(run, "--timeout", f"{options.timeout:g}") as (process, port):
            for kind, clients in _list_kinds(photo, options.bad_images):
                if options.only and not any(word in kind for word in options.only):
                    continue
                with _ask_all_the_time(port, photo) as good:
                    got, longest = asyncio.run(_attack(port, clients, options.timeout))
                    time.sleep(0.5)
                if process.poll() is not None:
                    print(f"| {kind} | {len(clients)} | the server has died: {process.poll()} | | | |")
                    sys.exit(1)
                told = ", ".join(f"{what}: {count:,}" for what, count in sorted(got.items()))
                fared = ", ".join(f"{what}: {count:,}" for what, count in sorted(good.statuses.items()))
                cells = [kind, f"{len(clients):,}", told, f"{longest:.1f}", f"{fared}; {good.longest_s:.1f}"]
                print(f"| {' | '.join([*cells, f'{read_memory(process.pid):,.0f}'])} |", flush=True)
                good_all &= "nothing" not in got and good.statuses["200"] > 0
    sys.exit(0 if good_all else 1)


def _list_kinds(photo: bytes, bad_images: Path) -> Iterator[tuple[str, list[Client]]]:
    """Kinds of clients, and those of each."""
    noise = random.Random(0).randbytes
    if bad_images.is_file():
        yield "damaged pictures", [_post(data) for data in _draw_bad(bad_images)]
    yield "truncated photos", [_post(photo[: len(photo) * part // 20]) for part in range(20)] * 5
    yield "bombs of pixels", [_post(data) for data in _draw_bombs()] * 10
    yield "bombs of scans", [_post(_draw_scans(times)) for times in (90, 20_000, 200_000)] * 4
    yield "the largest photos", [_post(_draw_large())] * 40
    bodies = [b"", b"--b", noise(100_000), b"--b\r\n" * 100_000, b"--b\r\n" + b"A: b\r\n" * 500_000 + b"--b--"]
    yield "forms that are none", [_post(body, _FORM) for body in bodies] * 10
    lengths = [b"99999999999", b"-5", b"5, 6", b"0x10", b"1e3", b"", b"9" * 5000]
    yield "wrong lengths", [Client(_PHOTO + b"Content-Length: %b\r\n\r\n" % length + photo) for length in lengths] * 10
    short = _PHOTO + b"Content-Length: %d\r\n\r\n" % (len(photo) + 10) + photo
    yield "bodies shorter than they say, and closed", [Client(short, closes=True)] * 100
    yield "bodies longer than they say", [Client(_PHOTO + b"Content-Length: 100\r\n\r\n" + photo)] * 100
    yield "chunks without end", [Client(_CHUNKED, b"%x\r\n%b\r\n" % (_PIECE, noise(_PIECE)))] * 20
    yield "chunks of two bytes without end", [Client(_CHUNKED, b"2\r\nab\r\n" * 10_000)] * 20
    yield "an endless extension of a chunk", [Client(_CHUNKED + b"1;", b"a" * _PIECE)] * 20
    yield "endless trailers", [Client(_CHUNKED + b"0\r\n", b"A: b\r\n" * 10_000)] * 20
    yield "damaged chunks", [Client(_CHUNKED + b"zz\r\nab\r\n0\r\n\r\n")] * 100
    yield "noise", [Client(noise(size)) for size in range(1, 5000, 50)]
    yield "heads that trickle", [Client(_PHOTO, b"A: b\r\n", 0.2)] * 600
    yield "bodies that trickle", [Client(_PHOTO + b"Content-Length: 9999\r\n\r\n", b"a", 0.2)] * 600
    stalling = _PHOTO + b"Content-Length: 16000000\r\n\r\n" + bytes(15_000_000)
    yield "large bodies that stall", [Client(stalling)] * 30
    yield "1,000 connections that say nothing", [Client(b"")] * 1000
    yield "1,000 connections that ask", [_post(photo)] * 1000
    ask = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "requests in a row, answers not read", [Client(ask, ask * 1000, reads=False)] * 10
    yield "requests in a row", [Client(ask, ask * 100)] * 10


def _post(body: bytes, head: bytes = _PHOTO) -> Client:
    return Client(head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def _attack(port: int, clients: Sequence[Client], timeout_s: float) -> tuple[Counter[str], float]:
    """What each got: a status, ``closed``, or ``nothing`` where neither came; and the longest that one had to wait."""
    seen = await asyncio.gather(*(_play(port, client, timeout_s + _BODY_S) for client in clients))
    return Counter(what for what, _ in seen), max(seconds for _, seconds in seen)


async def _play(port: int, client: Client, most_s: float) -> tuple[str, float]:
    started = time.monotonic()
    answer = b""
    try:
        async with asyncio.timeout(most_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            sending = asyncio.create_task(_send(writer, client))
            with suppress(OSError):
                while client.reads and not client.closes and (part := await reader.read(_PIECE)):
                    answer = answer or part
                    if not client.drops and answer:
                        break
            if not client.reads or client.closes:
                await asyncio.wait([sending])
            sending.cancel()
            writer.close()
    except TimeoutError:
        return ("nothing" if not answer else answer[9:12].decode("latin-1")), time.monotonic() - started
    except OSError:
        pass
    return answer[9:12].decode("latin-1") or "closed", time.monotonic() - started


async def _send(writer: asyncio.StreamWriter, client: Client) -> None:
    with suppress(OSError):
        writer.write(client.said)
        await writer.drain()
        while client.drops:
            await asyncio.sleep(client.pause_s)
            writer.write(client.drops)
            await writer.drain()


@contextmanager
def _ask_all_the_time(port: int, photo: bytes) -> Iterator[Good]:
    good, stop = Good(), threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            started = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            try:
                connection.request("POST", "/recognise", photo, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
                good.statuses[str(response.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                good.statuses[type(error).__name__] += 1
            connection.close()
            good.longest_s = max(good.longest_s, time.monotonic() - started)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield good
    finally:
        stop.set()
        thread.join()


def _draw_bad(script: Path) -> Iterable[bytes]:
    spec = importlib.util.spec_from_file_location("make_bad_images", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
            module.main([folder])
            return [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    finally:
        sys.dont_write_bytecode = written


def _draw_bombs() -> list[bytes]:
    from PIL import Image

    bombs = []
    for size, form in (((8000, 8000), "PNG"), ((29_000, 29_000), "PNG"), ((8000, 8000), "GIF"), ((8000, 8000), "TIFF")):
        with io.BytesIO() as file:
            Image.new("1" if form != "GIF" else "P", size).save(file, form)
            bombs.append(file.getvalue())
    return bombs


def _draw_large() -> bytes:
    """A photo of nearly as many pixels as are allowed, in few bytes."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("RGB", (7000, 7000), (90, 120, 30)).save(file, "JPEG", progressive=True)
        return file.getvalue()


def _draw_scans(times: int) -> bytes:
    """A JPEG of 49 million pixels that goes over them again and again."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("L", (7000, 7000), 128).save(file, "JPEG", progressive=True)
        data = file.getvalue()
    last = [found.start() for found in re.finditer(b"\xff\xda", data)][-1]
    return data[:-2] + data[last:-2] * times + data[-2:]


if __name__ == "__main__":
    main()
