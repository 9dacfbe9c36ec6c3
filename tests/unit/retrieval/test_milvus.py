"""Addresses of servers, and what is said where there is none, or no pymilvus."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from productrec.errors import ArtifactError, ProductrecError, RecipeError, StorageError
from productrec.retrieval import milvus
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.copying import copy_to_server
from productrec.retrieval.milvus import is_address, parse_address
from productrec.retrieval.remote_catalogue import RemoteCatalogue
from tests.milvus_server import start_server
from tests.unit.retrieval.test_kinds_of_index import draw_classes, gather
from tests.unit.retrieval.test_living_catalogue import build, check


def test_an_address_is_read_and_told_again():
    for text, whole in (
        ("http://127.0.0.1:19531/mine", "http://127.0.0.1:19531/mine"),
        ("http://shelf/mine/", "http://shelf:19530/mine"),
        ("https://[::1]:443", "https://[::1]:443"),
    ):
        assert is_address(text) and str(parse_address(text)) == whole
    assert not is_address("runs/mine")


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http://host:port/a",
        "http://host:99999/a",
        "http://host/a/b",
        "http://host/a-b",
        "http://host/1",
        "a:1",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(RecipeError, match="must be http://HOST:PORT or http://HOST:PORT/NAME"):
        parse_address(text)
    with pytest.raises(RecipeError, match="no user or password"):
        parse_address("http://me:secret@host/a")


def test_without_pymilvus_the_extra_is_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(RecipeError, match=r"needs pymilvus, .* Install it: pip install 'productrec\[milvus\]'"):
        RemoteCatalogue("http://127.0.0.1:1/mine")


def test_pymilvus_is_not_imported_before_a_server_is_asked():
    code = "import sys, productrec.retrieval.milvus; sys.exit('pymilvus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_of_grpc_is_told_by_its_details():
    class Terminated(Exception):
        def details(self):
            return "Deadline Exceeded\nmore of it"

    assert milvus._describe(Terminated("<_InactiveRpcError of RPC that terminated with:\n\tstatus = 4")) == (
        "Deadline Exceeded"
    )
    assert milvus._describe(ValueError("a\nb")) == "a"


def test_an_address_where_no_milvus_answers_is_refused_in_one_line():
    pytest.importorskip("pymilvus")

    def answer_otherwise():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=answer_otherwise)
    thread.start()
    try:
        for port in (1, listening.getsockname()[1]):
            with pytest.raises(StorageError, match="no Milvus server answers here") as caught:
                RemoteCatalogue(f"http://127.0.0.1:{port}/mine")
            assert "\n" not in str(caught.value)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@pytest.mark.xdist_group("milvus")
def test_a_server_that_dies_is_told_in_one_line_and_has_lost_nothing_when_it_is_back(tmp_path, milvus_python):
    embeddings, keys = build(tmp_path / "plain")
    with start_server(milvus_python, tmp_path / "server") as (uri, process):
        address = parse_address(f"{uri}/mine")
        remote, _ = copy_to_server(Catalogue(tmp_path / "plain"), address)
        with pytest.raises(ArtifactError, match="must end in the name of a catalogue"):
            RemoteCatalogue(uri)
        process.kill()
        process.wait()
        for ask in (
            lambda: remote.search(gather(draw_classes(2)), 3),
            lambda: remote.refresh(),
            lambda: remote.remove(["class 0"]),
            lambda: remote.list_ids(),
            lambda: len(remote),
        ):
            with pytest.raises(StorageError, match=f"{uri}: cannot .* see that it runs") as caught:
                ask()
            assert isinstance(caught.value, ProductrecError) and "\n" not in str(caught.value)
    with start_server(milvus_python, tmp_path / "server", int(uri.rpartition(":")[2])):
        deadline = time.monotonic() + 30
        while True:  # gRPC waits some seconds before it tries an address again that has failed
            try:
                reopened = RemoteCatalogue(address)
                break
            except StorageError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        check(reopened, embeddings, keys)
        check(remote, embeddings, keys)
