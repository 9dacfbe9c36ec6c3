"""The server on real sockets before a run that is none: limits, slow and hostile clients, errors, and its end."""

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from productrec.assembly.asking import Answer
from productrec.data.decode import OversizedError
from productrec.errors import DataError, RecipeError
from productrec.runtime import StopRequest
from productrec.serving.connections import Connections, fit_connections
from productrec.serving.limits import Limits
from productrec.serving.server import check_host, serve_run


class Run:
    """Answers each photo with its first byte; waits where it is told to, and fails where the photo says so."""

    folder, weights_digest, class_names = "run", "digest", ["a", "b"]

    def __init__(self):
        self.go_on = threading.Event()
        self.go_on.set()
        self.entered = threading.Semaphore(0)
        self.decode_large = threading.Event()
        self.stall = lambda: None

    @property
    def way(self):
        self.stall()  # within the server's loop, where health is asked for
        return "by its first byte"

    def recognise(self, photos):
        return []

    def prepare(self, data, *, name, box, nearest, most_pixels):
        if not data.startswith(b"ok"):
            raise DataError(f"{name}: is no picture")
        if data == b"ok large":
            if most_pixels < Limits.most_pixels:
                raise OversizedError(f"{name}: is large")
            assert self.decode_large.wait(30)
        return name, data

    def recognise_prepared(self, photos):
        self.entered.release()
        assert self.go_on.wait(30)
        if any(data == b"ok fail" for _, data in photos):
            raise RuntimeError("secret of the house")
        return [Answer(name, key="k", name=data.decode()) for name, data in photos]


@contextmanager
def serving(run=None, **limits):
    """A server in a thread: its port, and what stops it."""
    stop, bound, ready = StopRequest(), [], threading.Event()
    result = []

    def work():
        tell = lambda port: (bound.append(port), ready.set())  # noqa: E731
        result.append(serve_run(run or Run(), host="127.0.0.1", port=0, limits=Limits(**limits), stop=stop, tell=tell))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield bound[0], stop, thread, result
    finally:
        stop.wanted = True
        thread.join(30)
        assert not thread.is_alive()


def ask(port, body=b"ok", method="POST", path="/recognise", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        given = {"Content-Type": "image/jpeg"} | {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body=body, headers=given)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def send(port, data):
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(data)
    return client


def read_all(client):
    data = b""
    try:
        while chunk := client.recv(1 << 16):
            data += chunk
    except ConnectionResetError:
        pass
    client.close()
    return data


HEAD = b"POST /recognise HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def port():
    with serving(most_bytes=1000, timeout_s=0.6, most_files=3) as (port, *_):
        yield port


def test_health_and_an_answer(port):
    told = {"status": "ok", "run": "run", "classes": 2, "weights": "digest", "way": "by its first byte"}
    assert ask(port, None, "GET", "/health") == (200, told)
    status, answer = ask(port, b"ok then")
    assert status == 200 and answer["answers"][0]["class"] == "ok then"


def test_what_is_no_photo(port):
    assert ask(port, b"no") == (422, {"answers": [{"photo": "photo 1", "reason": "photo 1: is no picture"}]})


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"path": "/recognise?nearest=x"}, 400, "nearest: must be"),
        ({"path": "/nowhere"}, 404, "GET /health"),
        ({"method": "GET", "body": None}, 405, "POST /recognise"),
        ({"Content_Type": "text/plain"}, 415, "Content-Type: must be image"),
        ({"Content_Encoding": "gzip"}, 415, "Content-Encoding"),
        ({"body": b"ok" * 501}, 413, "at most 1,000 bytes"),
        ({"body": iter([b"ok" * 300] * 4)}, 413, "at most 1,000 bytes"),  # in chunks: its size is not said before
        ({"Content_Type": "multipart/form-data; boundary=b"}, 400, "must hold the boundary"),
    ],
)
def test_refusals(port, given, status, words):
    seen, answer = ask(port, **{"body": b"ok"} | given)
    assert seen == status and words in answer["error"]
    assert ask(port)[0] == 200


def test_a_body_that_is_too_large_is_refused_before_it_has_come(port):
    client = send(port, HEAD + b"Content-Length: 99999999999\r\n\r\n")
    assert read_all(client).startswith(b"HTTP/1.1 413 ")


def test_a_slow_body_is_cut_off(port):
    client = send(port, HEAD + b"Content-Length: 500\r\n\r\nok")
    answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"within 0.6 seconds" in answer


@pytest.mark.parametrize("said", [b"", HEAD[:30]])
def test_a_head_that_does_not_come_is_cut_off(port, said):
    client = send(port, said)
    started = time.monotonic()
    assert read_all(client) == b""
    assert time.monotonic() - started < 20


def test_drops_of_a_head_do_not_keep_a_connection(port):
    client = send(port, HEAD)
    with pytest.raises(OSError, match="."):
        for _ in range(600):  # a minute
            client.sendall(b"A: b\r\n")
            time.sleep(0.1)
    client.close()


def test_answers_that_are_not_read_keep_no_connection(port):
    client = send(port, b"")
    client.settimeout(0.5)
    asked, deadline = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 1000, time.monotonic() + 60
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while time.monotonic() < deadline:
            with suppress(TimeoutError):  # the server reads no more
                client.sendall(asked)
    client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /recognise HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /recognise HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\r\n".join([HEAD.rstrip(), *[b"X%d: y" % n for n in range(5000)]]) + b"\r\n\r\n",
        b"POST /recognise?" + b"a=b&" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_request(port, said):
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    with suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(said)
    answer = read_all(client)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b"Traceback" not in answer and b"site-packages" not in answer
    assert ask(port)[0] == 200


def test_what_waits_is_bounded():
    run = Run()
    run.go_on.clear()
    with serving(run, most_waiting=2, most_held_bytes=100) as (port, *_):
        answers = []
        clients = [threading.Thread(target=lambda: answers.append(ask(port))) for _ in range(2)]
        for client in clients:
            client.start()
        assert run.entered.acquire(timeout=30)
        deadline = time.monotonic() + 30
        while (seen := ask(port, b"no"))[0] != 503 and time.monotonic() < deadline:
            time.sleep(0.01)  # the second is on its way
        assert seen[0] == 503 and "too many photos are waiting" in seen[1]["error"]
        assert ask(port, None, "GET", "/health")[0] == 200
        assert ask(port, b"ok" * 60)[0] == 503  # bytes
        run.go_on.set()
        for client in clients:
            client.join(30)
        assert [status for status, _ in answers] == [200, 200]
        assert ask(port)[0] == 200  # given back


def test_an_error_of_the_run_is_told_without_its_words(capfd):
    with serving() as (port, *_):
        status, answer = ask(port, b"ok fail")
        assert status == 500 and answer == {"error": "the run cannot answer now; whoever started the server sees why."}
        assert ask(port)[0] == 200
    assert "RuntimeError: secret of the house" in capfd.readouterr().err


def test_idle_connections_starve_nobody():
    with serving(connections=20) as (port, *_):
        idle = [send(port, b"GET") for _ in range(100)]
        assert ask(port)[0] == 200
        for client in idle[:70]:  # what makes room is closed, also where many came at once
            assert read_all(client) == b""
        for client in idle[70:]:
            client.close()


def test_a_burst_of_connections_is_closed_again():
    """The server is kept from going on while they come, so that it takes them all at once."""
    run = Run()
    with serving(run, connections=20, timeout_s=20) as (port, *_):
        burst = []
        run.stall = lambda: burst.extend(send(port, b"GET") for _ in range(100))
        assert ask(port, None, "GET", "/health")[0] == 200
        for client in burst[:70]:
            assert read_all(client) == b""
        for client in burst[70:]:
            client.close()


def test_where_all_connections_are_busy_a_new_one_is_refused():
    run = Run()
    run.go_on.clear()
    with serving(run, connections=1) as (port, *_):
        answers = []
        client = threading.Thread(target=lambda: answers.append(ask(port)))
        client.start()
        assert run.entered.acquire(timeout=30)
        status, answer = ask(port)
        assert status == 503 and "too many connections" in answer["error"]
        run.go_on.set()
        client.join(30)
        assert answers[0][0] == 200


def test_bodies_that_do_not_come_starve_nobody():
    with serving(connections=20, timeout_s=20) as (port, *_):
        slow = []
        for _ in range(30):
            slow.append(send(port, HEAD + b"Content-Length: 500\r\nExpect: 100-continue\r\n\r\n"))
            assert slow[-1].recv(100).startswith(b"HTTP/1.1 100 ")  # its body is waited for
        assert ask(port)[0] == 200
        slow[29].sendall(b"ok" + b"k" * 498)
        assert slow[29].recv(15) == b"HTTP/1.1 200 OK"  # it has not been coming for long
        assert read_all(slow[0]).startswith(b"HTTP/1.1 503 ")
        for client in slow:
            client.close()


def test_bytes_that_wait_for_the_rest_of_their_body_starve_nobody():
    with serving(most_held_bytes=1000, most_bytes=900, timeout_s=20) as (port, *_):
        slow = [send(port, HEAD + b"Content-Length: 500\r\n\r\nok" + b"k" * 400)]
        deadline = time.monotonic() + 30
        while ask(port, b"ok" * 250)[0] != 200:  # the slow one's bytes have come, or are on their way
            assert time.monotonic() < deadline
        slow.append(send(port, HEAD + b"Content-Length: 900\r\n\r\nok" + b"k" * 600))
        assert read_all(slow[0]).startswith(b"HTTP/1.1 503 ")  # it has been coming for longest
        assert ask(port, b"ok" * 250)[0] == 200 and read_all(slow[1]).startswith(b"HTTP/1.1 503 ")


def test_a_body_that_finds_no_room_among_those_that_are_answered_is_refused():
    run = Run()
    run.go_on.clear()
    with serving(run, most_held_bytes=1000, most_bytes=900) as (port, *_):
        answers = []
        client = threading.Thread(target=lambda: answers.append(ask(port, b"ok" * 400)))
        client.start()
        assert run.entered.acquire(timeout=30)
        other = send(port, HEAD + b"Content-Length: 100\r\n\r\nok")
        assert ask(port, b"ok" * 200)[0] == 503
        run.go_on.set()
        other.sendall(b"k" * 98)  # nobody gained by dropping it
        assert other.recv(15) == b"HTTP/1.1 200 OK"
        client.join(30)
        other.close()
        assert answers[0][0] == 200


def test_large_photos_hold_up_no_small_one():
    run = Run()
    with serving(run) as (port, *_):
        answers = []
        clients = [threading.Thread(target=lambda: answers.append(ask(port, b"ok large"))) for _ in range(10)]
        for client in clients:
            client.start()
        for _ in range(10):
            assert ask(port)[0] == 200
        assert not answers
        run.decode_large.set()
        for client in clients:
            client.join(30)
        assert [status for status, _ in answers] == [200] * 10


def test_an_answer_that_does_not_come_is_no_longer_waited_for():
    run = Run()
    run.go_on.clear()
    with serving(run, answer_s=0.3) as (port, *_):
        status, answer = ask(port)
        assert status == 503 and "not there within 0.3 seconds" in answer["error"]
        run.go_on.set()
        deadline = time.monotonic() + 30
        while ask(port)[0] != 200:
            assert time.monotonic() < deadline


def test_there_are_no_more_connections_than_open_files(monkeypatch, capfd):
    resource = pytest.importorskip("resource")
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (512, 4096))
    assert fit_connections(200) == 200 and not asked
    assert fit_connections(512) == 512 and asked == [(812, 4096)] and not capfd.readouterr().err
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 500))
    assert fit_connections(512) == 200 and asked[-1] == (500, 500)
    assert "200 connections at the same time, not 512" in capfd.readouterr().err


def test_too_many_open_files_are_told_in_a_line_and_not_again_for_each(capfd):
    """As asyncio tells of each connection that it could not take."""
    run, full = Run(), {"message": "accept", "exception": OSError(24, "Too many open files")}
    with serving(run) as (port, *_):
        run.stall = lambda: asyncio.get_running_loop().call_exception_handler(full)
        for _ in range(5):
            assert ask(port, None, "GET", "/health")[0] == 200
    said = capfd.readouterr().err
    assert said.count("Too many open files") == 1 and "Traceback" not in said


def test_what_is_in_flight_is_finished_and_nobody_is_let_in_any_more():
    run = Run()
    run.go_on.clear()
    with serving(run) as (port, stop, thread, result):
        answers = []
        client = threading.Thread(target=lambda: answers.append(ask(port)))
        client.start()
        assert run.entered.acquire(timeout=30)
        stop.wanted = True
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("still lets in")
        run.go_on.set()
        client.join(30)
        thread.join(30)
        assert answers[0][0] == 200 and result == [1]


def test_a_run_that_hangs_does_not_hold_up_the_end():
    run = Run()
    run.go_on.clear()
    with serving(run, finish_s=0.3) as (port, stop, thread, _):
        client = send(port, HEAD + b"Content-Length: 2\r\n\r\nok")
        assert run.entered.acquire(timeout=30)
        stop.wanted = True
        thread.join(20)
        assert not thread.is_alive()
        run.go_on.set()
        client.close()


def test_other_addresses_are_refused_unless_wanted():
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.org", ""):
        with pytest.raises(RecipeError, match="--host: must be this machine's own address.*--allow-remote"):
            check_host(host, allow_remote=False)
        check_host(host, allow_remote=True)
    for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost"):
        check_host(host, allow_remote=False)


def test_a_port_that_is_taken():
    with serving() as (port, *_), pytest.raises(RecipeError, match="cannot be listened at .* Name another with --port"):
        serve_run(Run(), host="127.0.0.1", port=port, limits=Limits(), stop=StopRequest(), tell=lambda port: None)


def test_connections_forget_those_that_left():
    class Server:
        connections = ()

        def __call__(self):
            return asyncio.Protocol()

    async def run():
        connections = Connections(Server(), most=2, idle_s=10, drop_slowest=lambda: None)
        connections(), connections()
        await asyncio.sleep(1.1)  # both have left: nothing is there to be closed
        for _ in range(2):
            assert type(connections()) is asyncio.Protocol

    asyncio.run(run())
