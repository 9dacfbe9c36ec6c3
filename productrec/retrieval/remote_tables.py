"""How a catalogue lies in a server: a collection of its rows, one of its classes, and what is told of the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.embedding_set import IMAGE
from productrec.retrieval.milvus import ABOUT_BYTES, TEXT_BYTES, Address, MilvusKind, Server

FORMAT = 1
ABOUT_CODE = 0  # no class has it
_WHOLE = ("row", "class_code", "image_id", "path", "embedding")
_TEXT_ROOM = 1024  # bytes of a row beside its embedding, to size requests


@dataclass(frozen=True)
class About:
    """What is told of a catalogue in a server.

    ``weights_digest``, ``views``, ``side_px``, ``dim``: how its embeddings were made; ``preset``: of these views;
    ``fingerprint``: of the index that a classifier was fitted with; ``kind``, ``lists``, ``effort``: of the search;
    ``recall``, ``error``: recall@10 measured on its own rows; ``base``: rows that were copied; ``change``: another one
    after each change; ``modality``, ``tower``: what was embedded, and by which part of the network.
    """

    weights_digest: str
    views: list[str]
    preset: str
    side_px: int | None
    dim: int
    fingerprint: str
    kind: MilvusKind
    lists: int
    effort: int
    recall: float | None
    error: float | None
    base: int
    change: str
    modality: str = IMAGE
    tower: str = IMAGE
    format_version: int = FORMAT


class Tables(NamedTuple):
    """The collections of one copy; an alias with the catalogue's name stands for the rows of the one that is used."""

    rows: str
    classes: str


class Block(NamedTuple):
    """Some rows: ``rows`` (N,) int64, ``codes`` (N,) int64 of their classes, ids, paths, ``embeddings`` (N, D)."""

    rows: np.ndarray
    codes: np.ndarray
    ids: list[str]
    paths: list[str]
    embeddings: np.ndarray


class RemoteClass(NamedTuple):
    """A class: its key, its name where it was grown, and whether it was taken out."""

    key: str
    name: str
    is_removed: bool


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """Whole numbers (N,) int64 of 1 and more that stand for texts: 63 bits of their BLAKE2b.

    Two of 10 million texts share one once in 180,000 times; a copy tells.
    """
    digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts]
    numbers = np.frombuffer(b"".join(digests), "<u8") >> np.uint64(1)
    return np.asarray(np.maximum(numbers, 1), np.int64)


def name_tables(name: str, stamp: str) -> Tables:
    """The collections of a copy."""
    return Tables(f"{name}__rows_{stamp}", f"{name}__classes_{stamp}")


def find_tables(server: Server, name: str) -> Tables | None:
    """The collections of a catalogue; None where there is none of that name."""
    rows = server.resolve(name)
    return None if rows is None else Tables(rows, rows.replace("__rows_", "__classes_"))


def drop_others(server: Server, name: str, kept: Tables | None) -> None:
    """Remove what killed copies of a catalogue, and the one before, have left."""
    for collection in server.list_collections(f"{name}__"):
        if kept is None or collection not in kept:
            server.drop(collection)


def create_tables(server: Server, tables: Tables, *, dim: int, kind: MilvusKind, lists: int) -> None:
    """Make the empty collections."""
    server.create(
        tables.rows,
        {"image_id": TEXT_BYTES, "path": TEXT_BYTES},
        ["row", "class_code"],
        ["is_grown"],
        dim=dim,
        kind=kind,
        lists=lists,
    )
    # Milvus asks every collection for vectors.
    texts = {"class_key": ABOUT_BYTES, "name": TEXT_BYTES}
    server.create(tables.classes, texts, ["class_code"], ["is_removed"], dim=2, kind="flat", lists=1)


def check_texts(where: Address, texts: Iterable[str]) -> None:
    """Refuse texts that a server cannot keep.

    Raises:
        ArtifactError: one is too long, or no valid Unicode.
    """
    for text in texts:
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise ArtifactError(f"{where}: names must be valid Unicode; got {text!r}. Rename the file.") from None
        if size > TEXT_BYTES:
            raise ArtifactError(f"{where}: names must have at most {TEXT_BYTES:,} bytes; got {text[:60]!r}...")


def write_rows(server: Server, tables: Tables, block: Block, *, is_grown: np.ndarray) -> None:
    """Write rows; the same rows again change nothing."""
    embeddings = np.ascontiguousarray(block.embeddings, dtype=np.float32)
    told = zip(block.rows.tolist(), block.codes.tolist(), block.ids, block.paths, is_grown.tolist(), strict=True)
    records = [
        dict(zip(("row", "class_code", "image_id", "path", "is_grown"), one, strict=True), embedding=vector)
        for one, vector in zip(told, embeddings, strict=True)
    ]
    server.upsert(tables.rows, records)


def scan_rows(server: Server, tables: Tables, dim: int, *, where: str = "") -> Iterator[Block]:
    """The rows of a catalogue, a block at a time."""
    for records in server.scan(tables.rows, _WHOLE, row_bytes=4 * dim + _TEXT_ROOM, where=where):
        yield gather(records, dim)


def gather(records: list[dict[str, Any]], dim: int) -> Block:
    """Records as arrays."""
    return Block(
        np.array([one["row"] for one in records], np.int64),
        np.array([one["class_code"] for one in records], np.int64),
        [one["image_id"] for one in records],
        [one["path"] for one in records],
        np.array([one["embedding"] for one in records], np.float32).reshape(len(records), dim),
    )


def write_classes(server: Server, tables: Tables, classes: Iterable[RemoteClass]) -> None:
    """Write classes over those of the same key."""
    told = list(classes)
    codes = hash_texts(one.key for one in told).tolist()
    server.upsert(
        tables.classes,
        [
            {
                "class_code": code,
                "class_key": one.key,
                "name": one.name,
                "is_removed": one.is_removed,
                "embedding": np.ones(2, np.float32),
            }
            for code, one in zip(codes, told, strict=True)
        ],
    )


def read_classes(server: Server, tables: Tables) -> dict[int, RemoteClass]:
    """The classes by their codes, in the order of their keys."""
    fields = ("class_code", "class_key", "name", "is_removed")
    where = f"class_code != {ABOUT_CODE}"
    found = [one for block in server.scan(tables.classes, fields, row_bytes=_TEXT_ROOM, where=where) for one in block]
    found.sort(key=lambda one: one["class_key"])
    return {
        int(one["class_code"]): RemoteClass(one["class_key"], one["name"], bool(one["is_removed"])) for one in found
    }


def write_about(server: Server, tables: Tables, about: About) -> None:
    """Write what is told of a catalogue; from then on it is complete."""
    text = json.dumps(asdict(about))
    vector = np.ones(2, np.float32)
    server.upsert(
        tables.classes,
        [{"class_code": ABOUT_CODE, "class_key": text, "name": "", "is_removed": False, "embedding": vector}],
    )


def read_about(server: Server, tables: Tables, where: Address) -> About:
    """What is told of a catalogue.

    Raises:
        ArtifactError: nothing, since its copy is not complete, or by a newer productrec.
    """
    found = server.get(tables.classes, [ABOUT_CODE], ["class_key"])
    if not found:
        raise ArtifactError(f"{where}: is half a copy. Copy the index there again.")
    told = json.loads(found[0]["class_key"])
    if int(told["format_version"]) > FORMAT:
        raise ArtifactError(
            f"{where}: format version must be at most {FORMAT}; got {told['format_version']}. Update productrec."
        )
    return About(**told)
