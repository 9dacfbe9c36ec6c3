"""Milvus: rows and classes of catalogues in the collections of a server, reached by its address; one user of pymilvus.

Only what is old and plain of the protocol is used: INT64, BOOL, VARCHAR and FLOAT_VECTOR fields, filters over whole
numbers, aliases.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from productrec.errors import ArtifactError, RecipeError, StorageError, describe_error

MilvusKind = Literal["flat", "hnsw", "ivf_sq8"]
MOST_NEIGHBOURS = 16_384  # that Milvus finds, and rows that it gives at once
TEXT_BYTES = 8_192  # of an image id, a key, a path
ABOUT_BYTES = 65_535
_INSTALL = "Install it: pip install 'productrec[milvus]'"
_PORT = 19530
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CONNECT_SECONDS = 10.0
_RECONNECT_MS = 2_000
_SECONDS = 120.0  # of a request
_BUILD_SECONDS = 6 * 3600.0
_POLL_SECONDS = 0.5
_MESSAGE_BYTES = 16 << 20
_NOT_FOUND = (4, 100, 1600)  # a collection (as old and new servers say it), an alias
_NOT_LOADED = (101,)
_LINKS, _BUILD_WIDTH = 16, 100


class Address(NamedTuple):
    """A server, and the name of a catalogue in it, None where none is named."""

    uri: str
    name: str | None

    def __str__(self) -> str:
        return self.uri if self.name is None else f"{self.uri}/{self.name}"


def is_address(text: str) -> bool:
    """Whether a text names a server, not a folder."""
    return text.startswith(("http://", "https://"))


def parse_address(text: str) -> Address:
    """Read ``http://HOST:PORT[/NAME]``; the port is 19530 where none is given.

    Raises:
        RecipeError: it is no such address.
    """
    expected = "must be http://HOST:PORT or http://HOST:PORT/NAME, NAME of letters, digits and _"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        host, port = None, _PORT
    name = parts.path.strip("/") if host else ""
    if not is_address(text) or not host or parts.query or parts.fragment or (name and not _NAME.fullmatch(name)):
        raise RecipeError(f"address: {expected}; got {text!r}.")
    if parts.username or parts.password:
        raise RecipeError("address: must hold no user or password, since it is kept and printed. Set MILVUS_TOKEN.")
    return Address(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}", name or None)


def _load_pymilvus(where: str) -> Any:
    try:
        import pymilvus
    except ImportError:
        raise RecipeError(f"{where}: a catalogue by address needs pymilvus, which is not there. {_INSTALL}") from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints the traceback of every error that it raises
    return pymilvus


def _describe(error: Exception) -> str:
    message = getattr(error, "message", "")  # of its own errors, without their number
    details = getattr(error, "details", None)  # of gRPC's, whose text begins with the name of a type
    if not message and callable(details):
        message = details() or ""
    return str(message).splitlines()[0][:200] if message else describe_error(error)


class Server:
    """A Milvus server: collections of rows, by name; every failure is one `ProductrecError`."""

    def __init__(self, uri: str) -> None:
        """Connect; ``MILVUS_TOKEN`` in the environment is handed over.

        Raises:
            RecipeError: pymilvus is not installed.
            StorageError: nothing answers there, or not as Milvus does.
        """
        self.uri = uri
        self._library = _load_pymilvus(uri)
        token = os.environ.get("MILVUS_TOKEN", "")
        try:
            # A connection of its own: a shared one may be one that failed, and waits long before it tries again.
            options = {"grpc.use_local_subchannel_pool": 1, "grpc.max_reconnect_backoff_ms": _RECONNECT_MS}
            connect = self._library.MilvusClient
            self._client = connect(uri, token=token, timeout=_CONNECT_SECONDS, dedicated=True, grpc_options=options)
            self.version = str(self._client.get_server_version(timeout=_CONNECT_SECONDS))
        except Exception as error:  # pymilvus lets errors of several libraries through
            raise StorageError(
                f"{uri}: no Milvus server answers here ({_describe(error)}). Start it, or name its address."
            ) from None

    @contextmanager
    def _explain(self, doing: str) -> Iterator[None]:
        """Turn what the library raises into one line."""
        try:
            yield
        except self._library.MilvusException as error:
            if error.code in _NOT_FOUND:
                raise ArtifactError(
                    f"{self.uri}: cannot {doing}; there is no such collection. It was dropped, or never copied here."
                ) from None
            raise self._refuse(doing, error) from None
        except (OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise self._refuse(doing, error) from None
        except Exception as error:
            if type(error).__module__.split(".")[0] != "grpc":
                raise
            raise self._refuse(doing, error) from None

    def _refuse(self, doing: str, error: Exception) -> StorageError:
        return StorageError(
            f"{self.uri}: cannot {doing} ({_describe(error)}). The server says that it is Milvus {self.version}; "
            "see that it runs, and run the command again."
        )

    def resolve(self, name: str) -> str | None:
        """The collection that an alias stands for; None where there is no such alias.

        Raises:
            ArtifactError: it is the name of a collection itself, which productrec did not make.
        """
        with self._explain(f"look for {name}"):
            try:
                return str(self._client.describe_alias(name, timeout=_SECONDS)["collection_name"])
            except self._library.MilvusException:
                if self._client.has_collection(name, timeout=_SECONDS):
                    raise ArtifactError(
                        f"{self.uri}/{name}: must be a catalogue that productrec copied there; got a collection of "
                        "something else. Take another name."
                    ) from None
                return None

    def list_collections(self, start: str) -> list[str]:
        """Collections whose names start so."""
        with self._explain("list collections"):
            return [name for name in self._client.list_collections(timeout=_SECONDS) if name.startswith(start)]

    def create(
        self,
        name: str,
        texts: Mapping[str, int],
        numbers: Sequence[str],
        marks: Sequence[str],
        *,
        dim: int,
        kind: MilvusKind,
        lists: int,
    ) -> None:
        """Make a collection, to be searched by inner product once it was finished.

        Args:
            name: of it.
            texts: bytes at most of each field of text.
            numbers: fields of whole numbers, the primary key first.
            marks: fields that are true or false.
            dim: D of the field ``embedding``.
            kind: of its index.
            lists: of ``ivf_sq8``.
        """
        kinds = self._library.DataType
        schema = self._library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for place, field in enumerate(numbers):
            schema.add_field(field, kinds.INT64, is_primary=not place)
        for field in marks:
            schema.add_field(field, kinds.BOOL)
        for field, most in texts.items():
            schema.add_field(field, kinds.VARCHAR, max_length=most)
        schema.add_field("embedding", kinds.FLOAT_VECTOR, dim=dim)
        build = {"flat": {}, "hnsw": {"M": _LINKS, "efConstruction": _BUILD_WIDTH}, "ivf_sq8": {"nlist": lists}}[kind]
        index = self._library.MilvusClient.prepare_index_params()
        # As JSON under one key: what every version of the protocol reads.
        index.add_index("embedding", index_type=kind.upper(), metric_type="IP", params={"params": build})
        with self._explain(f"make the collection {name}"):
            self._client.create_collection(name, schema=schema, consistency_level="Strong", timeout=_SECONDS)
            self._client.create_index(name, index, timeout=_SECONDS, sync=False)  # `finish` waits for it

    def upsert(self, name: str, records: Sequence[dict[str, Any]]) -> None:
        """Write records over those of the same primary key, in requests that a server takes."""
        if not records:
            return
        size = sum(np.asarray(value).nbytes for value in records[0].values()) + 64
        step = max(1, min(MOST_NEIGHBOURS, _MESSAGE_BYTES // size))
        for start in range(0, len(records), step):
            part = list(records[start : start + step])
            with self._explain(f"write to {name}"):
                done = self._client.upsert(name, part, timeout=_SECONDS)
            if int(done["upsert_count"]) != len(part):
                raise StorageError(f"{self.uri}: {name} must take {len(part)} rows; got {done['upsert_count']}.")

    def count(self, name: str, where: str = "") -> int:
        """Rows, those of a filter alone where one is given."""
        found = self._read(
            name, lambda: self._client.query(name, filter=where, output_fields=["count(*)"], timeout=_SECONDS)
        )
        return int(found[0]["count(*)"])

    def get(self, name: str, keys: Sequence[int], fields: Sequence[str]) -> list[dict[str, Any]]:
        """Records of primary keys, those that are there, in no order."""
        out: list[dict[str, Any]] = []
        for start in range(0, len(keys), MOST_NEIGHBOURS // 4):
            part = [int(key) for key in keys[start : start + MOST_NEIGHBOURS // 4]]
            out += self._get(name, part, fields)
        return out

    def _get(self, name: str, keys: list[int], fields: Sequence[str]) -> list[dict[str, Any]]:
        ask = self._client.get
        found = self._read(name, lambda: ask(name, ids=keys, output_fields=[*fields], timeout=_SECONDS))
        return [dict(one) for one in found]

    def _read(self, name: str, ask: Callable[[], Any]) -> Any:
        """What a request gives; a collection that the server has put away, as at a restart, is taken out again."""
        with self._explain(f"read {name}"):
            try:
                return ask()
            except self._library.MilvusException as error:
                if error.code not in _NOT_LOADED:
                    raise
                self._client.load_collection(name, timeout=_BUILD_SECONDS)
                return ask()

    def search(
        self, name: str, queries: np.ndarray, k: int, fields: Sequence[str], *, where: str, effort: Mapping[str, int]
    ) -> list[list[tuple[float, dict[str, Any]]]]:
        """Similarity and fields of the ``k`` records nearest to each query (Q, D), descending; fewer may be found."""
        found = self._read(
            name,
            lambda: self._client.search(
                name,
                data=list(queries),
                limit=k,
                filter=where,
                output_fields=[*fields],
                search_params={"metric_type": "IP", "params": dict(effort)},
                anns_field="embedding",
                timeout=_SECONDS,
            ),
        )
        return [[(float(hit["distance"]), dict(hit["entity"])) for hit in hits] for hits in found]

    def scan(
        self, name: str, fields: Sequence[str], *, row_bytes: int, where: str = ""
    ) -> Iterator[list[dict[str, Any]]]:
        """All records, a block at a time, each once."""
        size = max(1, min(MOST_NEIGHBOURS // 4, _MESSAGE_BYTES // row_bytes))
        cursor = self._read(
            name,
            lambda: self._client.query_iterator(
                name, batch_size=size, filter=where, output_fields=[*fields], timeout=_SECONDS
            ),
        )
        try:
            while True:
                with self._explain(f"read {name}"):
                    block = cursor.next()
                if not block:
                    return
                yield [dict(one) for one in block]
        finally:
            cursor.close()

    def delete(self, name: str, where: str) -> None:
        """Take out the records of a filter."""
        with self._explain(f"remove from {name}"):
            self._client.delete(name, filter=where, timeout=_SECONDS)

    def finish(self, name: str, on_wait: Callable[[int], None] = lambda pending: None) -> None:
        """Let the server keep what was written and build its index; ``on_wait`` is told how many rows wait for it."""
        with self._explain(f"build the index of {name}"):
            self._client.flush(name, timeout=_BUILD_SECONDS)
            deadline = time.monotonic() + _BUILD_SECONDS
            while pending := int(self._client.describe_index(name, "embedding").get("pending_index_rows") or 0):
                if time.monotonic() > deadline:
                    raise StorageError(f"{self.uri}: the index of {name} is not built; {pending:,} rows wait for it.")
                on_wait(pending)
                time.sleep(_POLL_SECONDS)
            self._client.load_collection(name, timeout=_BUILD_SECONDS)

    def point(self, alias: str, name: str) -> None:
        """Let an alias stand for a collection, from now on and at once."""
        with self._explain(f"name {name} {alias}"):
            if self.resolve(alias) is None:
                self._client.create_alias(name, alias, timeout=_SECONDS)
            else:
                self._client.alter_alias(name, alias, timeout=_SECONDS)

    def drop(self, name: str) -> None:
        """Remove a collection."""
        with self._explain(f"drop {name}"):
            self._client.drop_collection(name, timeout=_SECONDS)
