"""Search in a server: every answer is full and its similarities are exact, whatever the server's index leaves out."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from productrec.retrieval.milvus import MOST_NEIGHBOURS, MilvusKind, Server
from productrec.retrieval.remote_tables import About, Tables, scan_rows
from productrec.retrieval.streamed import NearestSoFar

_HITS_AT_A_TIME = 50_000
_MOST_QUERIES = 1_024
_LEAST_WIDTH = 512


class RemoteFound(NamedTuple):
    """``rows`` (Q, K) int64, ``similarities`` (Q, K), and class code and image id of each row."""

    rows: np.ndarray
    similarities: np.ndarray
    told: dict[int, tuple[int, str]]


def search_remote(
    server: Server,
    tables: Tables,
    about: About,
    known: Collection[int],
    queries: np.ndarray,
    k: int,
    *,
    effort: int,
) -> RemoteFound:
    """The ``k`` most similar rows of each query; all that can be found, where those are fewer.

    Args:
        server: that is asked.
        tables: of the catalogue.
        about: the catalogue.
        known: codes of the classes whose rows may be found.
        queries: (Q, D) float32.
        k: neighbours, at most `MOST_NEIGHBOURS`.
        effort: how hard to look.
    """
    step = max(1, min(_MOST_QUERIES, _HITS_AT_A_TIME // max(1, k)))
    empty = RemoteFound(np.empty((0, k), np.int64), np.empty((0, k), np.float32), {})
    if not k:
        return RemoteFound(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32), {})
    search = _Search(server, tables, about, known)
    parts = [search.search(queries[start : start + step], k, effort) for start in range(0, len(queries), step)]
    count = min((part.rows.shape[1] for part in parts), default=k)
    return RemoteFound(
        np.concatenate([empty.rows[:, :count], *(part.rows[:, :count] for part in parts)]),
        np.concatenate([empty.similarities[:, :count], *(part.similarities[:, :count] for part in parts)]),
        {row: one for part in parts for row, one in part.told.items()},
    )


class _Search(NamedTuple):
    server: Server
    tables: Tables
    about: About
    known: Collection[int]

    def search(self, queries: np.ndarray, k: int, effort: int) -> RemoteFound:
        strange: set[int] = set()
        while True:
            where = f"class_code not in {sorted(strange)}" if strange else ""
            rows, similarities, told = self._ask(queries, k, where, effort)
            more = {code for code, _ in told.values()} - set(self.known)
            if not more:
                break
            strange |= more  # of classes that another process has added since
        if (rows < 0).any():  # an approximate index found too few, or there are no more
            k = min(k, self.server.count(self.tables.rows, where))
            rows, similarities = rows[:, :k], similarities[:, :k]
            for look in (self._look_everywhere, self._compare_all):
                short = np.flatnonzero((rows < 0).any(axis=1))
                if len(short):
                    rows[short], similarities[short], others = look(queries[short], k, where)
                    told |= others
            k = int((rows >= 0).sum(axis=1).min()) if k else 0  # another process may have removed some
        return RemoteFound(rows[:, :k], similarities[:, :k], told)

    def _ask(self, queries: np.ndarray, k: int, where: str, effort: int) -> RemoteFound:
        """What the server finds; row -1 and similarity -inf where that is too little."""
        is_rounded = self.about.kind == "ivf_sq8"
        fields = ["row", "class_code", "image_id", *(["embedding"] if is_rounded else [])]
        count = min(MOST_NEIGHBOURS, 2 * k) if is_rounded else k
        parameters = _describe_effort(self.about.kind, count, effort)
        found = self.server.search(self.tables.rows, queries, count, fields, where=where, effort=parameters)
        rows = np.full((len(queries), k), -1, np.int64)
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        told: dict[int, tuple[int, str]] = {}
        for place, hits in enumerate(found):
            near = np.array([similarity for similarity, _ in hits], np.float32)
            if is_rounded and hits:
                near = np.array([record["embedding"] for _, record in hits], np.float32) @ queries[place]
            order = np.argsort(-near, kind="stable")[:k]
            best = [hits[one][1] for one in order.tolist()]
            rows[place, : len(best)] = [one["row"] for one in best]
            similarities[place, : len(best)] = near[order]
            told |= {one["row"]: (one["class_code"], one["image_id"]) for one in best}
        return RemoteFound(rows, similarities, told)

    def _look_everywhere(self, queries: np.ndarray, k: int, where: str) -> RemoteFound:
        lists = self.about.lists
        return self._ask(queries, k, where, lists if self.about.kind == "ivf_sq8" else max(4 * k, _LEAST_WIDTH))

    def _compare_all(self, queries: np.ndarray, k: int, where: str) -> RemoteFound:
        """The same by reading every row, for queries that the server's index leaves short."""
        nearest = NearestSoFar(queries, k)
        told: dict[int, tuple[int, str]] = {}
        for block in scan_rows(self.server, self.tables, self.about.dim, where=where):
            nearest.add(block.rows, block.embeddings)
            told |= dict(zip(block.rows.tolist(), zip(block.codes.tolist(), block.ids, strict=True), strict=True))
            told = {row: told[row] for row in np.unique(nearest.rows).tolist()}
        padding = ((0, 0), (0, k - nearest.rows.shape[1]))
        rows = np.pad(nearest.rows, padding, constant_values=-1)
        return RemoteFound(rows, np.pad(nearest.similarities, padding, constant_values=-np.inf), told)


def _describe_effort(kind: MilvusKind, k: int, effort: int) -> dict[str, int]:
    match kind:
        case "flat":
            return {}
        case "hnsw":
            return {"ef": min(max(k, effort), 2 * MOST_NEIGHBOURS)}
        case "ivf_sq8":
            return {"nprobe": effort}
