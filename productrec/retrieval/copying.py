"""Copying: a catalogue goes from files to a server and back; what arrived is read back and compared."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from productrec.artifacts import load_manifest
from productrec.errors import ArtifactError
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.catalogue_state import Beside
from productrec.retrieval.choice import RECALL_K, Wanted
from productrec.retrieval.embedding_set import EmbeddingSet
from productrec.retrieval.engine import count_lists, leave_out_own
from productrec.retrieval.index import INDEX_KIND, save_index
from productrec.retrieval.milvus import Address, MilvusKind, Server
from productrec.retrieval.remote_catalogue import RemoteCatalogue
from productrec.retrieval.remote_tables import (
    About,
    Block,
    RemoteClass,
    Tables,
    check_texts,
    create_tables,
    drop_others,
    find_tables,
    hash_texts,
    name_tables,
    scan_rows,
    write_about,
    write_classes,
    write_rows,
)
from productrec.retrieval.streamed import Contents, NearestSoFar

_BLOCK = 4_096
_SAMPLE = 400
_SEED = 7
_ROWS_A_SEGMENT = 1_000_000  # that a server indexes together, about
_EFFORTS = {"flat": (0,), "hnsw": (16, 32, 64, 128, 256, 512), "ivf_sq8": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)}
Progress = Callable[[int], None]


def copy_to_server(
    catalogue: Catalogue,
    address: Address,
    *,
    kind: MilvusKind = "flat",
    recall: float = 0.97,
    on_rows: Progress = lambda count: None,
) -> tuple[RemoteCatalogue, Contents]:
    """Copy a catalogue of files, and let the address stand for the copy once all of it was read back and is the same.

    Until then the address stands for what it stood for before. What a killed copy has left is removed by the next one
    of the same name; one process at a time copies to a name.

    Args:
        catalogue: M rows that can be found.
        address: with a name.
        kind: of the server's index.
        recall: share of the ten nearest that an approximate index must find of rows of the gallery.
        on_rows: told of rows as they are written, then as they are read back: 2 M in all.

    Returns:
        The catalogue in the server, and what was compared.

    Raises:
        ArtifactError: the catalogue is empty, a name cannot be kept, or what was read back differs, and how.
        StorageError: the server does not answer.
    """
    assert address.name is not None
    if not len(catalogue):
        raise ArtifactError(f"{catalogue.folder}: a gallery must hold at least one image; all were removed.")
    alive = catalogue.list_alive()
    _check_unlike(address, catalogue, alive)
    server = Server(address.uri)
    earlier = find_tables(server, address.name)
    drop_others(server, address.name, earlier)
    tables = name_tables(address.name, secrets.token_hex(6))
    lists = count_lists(min(len(alive), _ROWS_A_SEGMENT))
    create_tables(server, tables, dim=catalogue.dim, kind=kind, lists=lists)
    written = _write(server, tables, catalogue, alive, on_rows)
    server.finish(tables.rows)
    server.finish(tables.classes)
    notes, manifest = catalogue.describe_made(), load_manifest(catalogue.folder, kind=INDEX_KIND)
    about = About(
        weights_digest=catalogue.weights_digest,
        views=list(notes["views"]),
        preset=catalogue.folder.name,
        side_px=notes["side_px"],
        dim=catalogue.dim,
        fingerprint=manifest.inputs.get("index", manifest.fingerprint),  # of the first, where this is a copy
        kind=kind,
        lists=lists,
        effort=0,
        recall=None,
        error=None,
        base=len(alive),
        change=secrets.token_hex(8),
        modality=notes["modality"],
        tower=notes["tower"],
    )
    sample = np.sort(np.random.default_rng(_SEED).choice(alive, min(_SAMPLE, len(alive)), replace=False))
    queries, own = catalogue.get_embeddings(sample), hash_texts(catalogue.get_ids(sample))
    nearest = NearestSoFar(queries, RECALL_K + 1)
    keys = dict(zip(hash_texts(catalogue.keys).tolist(), catalogue.keys, strict=True))
    arrived = Contents()
    for block in scan_rows(server, tables, catalogue.dim):
        nearest.add(block.rows, block.embeddings)
        arrived = arrived.add(block.ids, [keys.get(code, "") for code in block.codes.tolist()], block.embeddings)
        on_rows(len(block.ids))
    compare(written, arrived, str(catalogue.folder), str(address))
    write_about(server, tables, about)
    about = _tune(RemoteCatalogue(address, tables), about, nearest, queries, own, recall)
    write_about(server, tables, about)
    server.point(address.name, tables.rows)
    drop_others(server, address.name, tables)
    return RemoteCatalogue(address), arrived


def _check_unlike(address: Address, catalogue: Catalogue, alive: np.ndarray) -> None:
    """Refuse names that a server cannot keep or tell apart."""
    keys = [*catalogue.keys, *catalogue.names.values()]
    check_texts(address, keys)
    numbers = []
    for rows in _split(alive):
        ids = catalogue.get_ids(rows)
        check_texts(address, ids)
        numbers.append(hash_texts(ids))
    for what, hashes in (("image ids", np.concatenate(numbers)), ("class keys", hash_texts(catalogue.keys))):
        if len(np.unique(hashes)) < len(hashes):
            raise ArtifactError(f"{address}: {what} must have digests of their own; two share 63 bits. Rename one.")


def _write(server: Server, tables: Tables, catalogue: Catalogue, alive: np.ndarray, on_rows: Progress) -> Contents:
    names, removed = catalogue.names, catalogue.removed
    classes = (RemoteClass(key, names.get(key, ""), key in removed) for key in catalogue.keys)
    write_classes(server, tables, classes)
    grown = catalogue.get_grown_rows()
    paths = dict(zip(grown.ids, grown.paths, strict=True))
    contents = Contents()
    for rows in _split(alive):
        ids, embeddings = catalogue.get_ids(rows), catalogue.get_embeddings(rows)
        keys = [catalogue.keys[place] for place in catalogue.get_classes(rows).tolist()]
        block = Block(hash_texts(ids), hash_texts(keys), ids, [paths.get(one, "") for one in ids], embeddings)
        write_rows(server, tables, block, is_grown=np.array([one in paths for one in ids]))
        contents = contents.add(ids, keys, embeddings)
        on_rows(len(ids))
    return contents


def _tune(
    remote: RemoteCatalogue, about: About, nearest: NearestSoFar, queries: np.ndarray, own: np.ndarray, target: float
) -> About:
    """The least effort with which the server finds a share ``target`` of what exact search finds; else the most."""
    truth, _ = leave_out_own(nearest.rows, nearest.similarities, own)
    if not truth.shape[1]:
        return about
    k = nearest.rows.shape[1]
    names, made = [str(row) for row in own], {"modality": about.modality, "tower": about.tower}
    asked = EmbeddingSet(names, queries, None, [], [], about.weights_digest, {}, "", about.side_px, **made)
    least = 1 - (1 - target) / 2 if about.kind == "hnsw" else target  # see `productrec.retrieval.choice.tune_effort`
    efforts = [effort for effort in _EFFORTS[about.kind] if about.kind != "ivf_sq8" or effort < about.lists]
    if about.kind == "ivf_sq8":
        efforts.append(about.lists)
    for effort in efforts:
        rows, similarities = remote.search(asked, k, effort=effort)
        found, _ = leave_out_own(rows, similarities, own)
        shares = np.array([len(np.intersect1d(*pair)) / truth.shape[1] for pair in zip(truth, found, strict=True)])
        recall, error = float(shares.mean()), float(shares.std() / np.sqrt(len(shares)))
        about = replace(about, effort=effort, recall=round(recall, 4), error=round(error, 4))
        if recall - error >= least:
            break
    return about


def copy_to_files(
    remote: RemoteCatalogue,
    folder: Path,
    *,
    kind: Wanted = "auto",
    recall: float = 0.97,
    on_rows: Progress = lambda count: None,
) -> tuple[Catalogue, Contents]:
    """Copy a catalogue of a server into files; they are whole or not there.

    Args:
        remote: M rows that can be found.
        folder: an index of the same network, which gets all of it as a new base, or one that is not there yet.
        kind: of index, see `save_index`.
        recall: of an approximate one.
        on_rows: told of rows as they are read, then as the files are read back: 2 M in all.

    Returns:
        The catalogue, and what was compared.

    Raises:
        ArtifactError: the catalogue is empty, the index there is of another network or holds images that the server
            does not, or what was written differs from what was read, and how.
        StorageError: the server or the disk refuses.
    """
    about = remote.about
    blocks = list(remote.scan())
    rows, told = sum(len(block.ids) for block in blocks), len(remote)
    if rows != told:
        raise ArtifactError(f"{remote.address}: must give the {told:,} rows that it counts; gave {rows:,}. Try again.")
    on_rows(rows)
    ids = [image_id for block in blocks for image_id in block.ids]
    embeddings = np.concatenate([np.empty((0, about.dim), np.float32), *(block.embeddings for block in blocks)])
    classes = np.concatenate([np.empty(0, np.int64), *(remote.get_positions(block.codes) for block in blocks)])
    order = np.array(sorted(range(rows), key=ids.__getitem__), np.int64)
    ids, embeddings, classes = [ids[row] for row in order.tolist()], embeddings[order], classes[order]
    made = {"modality": about.modality, "tower": about.tower}
    gallery = EmbeddingSet(ids, embeddings, None, [], about.views, about.weights_digest, {}, "", about.side_px, **made)
    keys, grown = remote.keys, remote.get_grown_rows()
    read = Contents().add(ids, [keys[place] for place in classes.tolist()], embeddings)
    beside = Beside(dict(zip(grown.ids, grown.paths, strict=True)), remote.names, sorted(remote.removed))
    if folder.exists():
        catalogue = Catalogue(folder)
        catalogue.take_over(gallery, classes, keys, beside, kind=kind, recall=recall)
    else:
        save_index(
            folder,
            gallery,
            classes.tolist(),
            inputs={"index": about.fingerprint},
            settings={"search": kind, "recall": recall},
            keys=dict(enumerate(keys)),
            kind=kind,
            recall=recall,
            beside=beside.to_files(),
        )
        catalogue = Catalogue(folder)
    arrived = Contents()
    for block_rows in _split(catalogue.list_alive()):
        names = [catalogue.keys[place] for place in catalogue.get_classes(block_rows).tolist()]
        arrived = arrived.add(catalogue.get_ids(block_rows), names, catalogue.get_embeddings(block_rows))
        on_rows(len(block_rows))
    compare(read, arrived, str(remote.address), str(folder))
    return catalogue, arrived


def _split(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def compare(wanted: Contents, got: Contents, source: str, target: str) -> None:
    """Refuse a copy that is not what was copied.

    Raises:
        ArtifactError: with what differs.
    """
    if got.rows != wanted.rows:
        raise ArtifactError(f"{target}: must hold the {wanted.rows:,} rows of {source}; got {got.rows:,}. Copy again.")
    if got.digest != wanted.digest:
        raise ArtifactError(
            f"{target}: must hold the ids, keys and embeddings of {source}, digest {wanted.digest:032x}; got "
            f"{got.digest:032x}. Copy again."
        )
