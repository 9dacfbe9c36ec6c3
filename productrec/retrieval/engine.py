"""Engines: rows of embeddings that FAISS searches, exactly or by a structure over them; the one user of FAISS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import faiss as _faiss
import numpy as np

from productrec.errors import ArtifactError

faiss: Any = _faiss  # its stubs know a part of it
Engine: TypeAlias = Any  # a faiss.Index
Kind = Literal["exact", "hnsw", "ivf", "rabitq"]
_QUERIES_AT_A_TIME = 1024  # of a range search, whose answers have no bound
_MOST_ON_GPU = 2048  # neighbours that FAISS finds on a GPU
_PROBED_ROWS = 64  # that a GPU must find as the CPU does
_ADDED_AT_A_TIME = 65_536
_POINTS_A_LIST = 64  # rows that a list's centre is trained on
_SEED = 1234
_LINKS = 16  # of a row in the graph, on each level
_BUILD_WIDTH = 40


class Found(NamedTuple):
    """What a search found: ``similarities`` (Q, K) float32, descending, and ``rows`` (Q, K) int64.

    A place that could not be filled holds row -1 and similarity -inf; these come last.
    """

    similarities: np.ndarray
    rows: np.ndarray


def build_engine(embeddings: np.ndarray) -> Engine:
    """Exact inner-product search over embeddings (M, D)."""
    engine = faiss.IndexFlatIP(embeddings.shape[1])
    for start in range(0, len(embeddings), _ADDED_AT_A_TIME):
        engine.add(np.ascontiguousarray(embeddings[start : start + _ADDED_AT_A_TIME], dtype=np.float32))
    return engine


def write_engine(engine: Engine, path: Path, *, with_rows: bool = True) -> None:
    """Write an engine to a file; ``with_rows``: a graph with the embeddings that it links."""
    faiss.write_index(engine, str(path), 0 if with_rows else faiss.IO_FLAG_SKIP_STORAGE)


def map_rows(path: Path) -> Engine:
    """Exact search over the rows of a file, which stay on the disk until they are touched.

    Raises:
        ArtifactError: FAISS cannot read the file.
    """
    return _read(path, faiss.IO_FLAG_MMAP_IFC)


def read_structure(path: Path, flat: Engine) -> Engine:
    """A structure that `build_structure` made over the rows of ``flat``.

    Raises:
        ArtifactError: FAISS cannot read the file, or it is of other rows.
    """
    structure = _read(path, faiss.IO_FLAG_SKIP_STORAGE)
    if structure.ntotal != flat.ntotal or structure.d != flat.d:
        raise ArtifactError(
            f"{path}: must be of {flat.ntotal} rows of {flat.d} numbers; got {structure.ntotal} of {structure.d}. "
            "Build the index again."
        )
    return _link(structure, flat)


def _link(structure: Engine, flat: Engine) -> Engine:
    # The graph does not keep its rows alive; who searches it does.
    if isinstance(structure, faiss.IndexHNSW):
        structure.storage, structure.own_fields = flat, False
    return structure


def _read(path: Path, flags: int) -> Engine:
    try:
        return faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ArtifactError(f"{path}: cannot be read by FAISS ({reason[:200]}). Build the index again.") from None


def get_rows(flat: Engine) -> np.ndarray:
    """The embeddings (M, D) float32 of an exact engine, as they lie in memory or in the map: to read only."""
    rows: np.ndarray = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    rows.flags.writeable = False
    return rows


def has_kind(kind: Kind) -> bool:
    """Whether the installed FAISS has a kind of search."""
    return kind != "rabitq" or hasattr(faiss, "IndexIVFRaBitQ")


def count_lists(rows: int) -> int:
    """Lists of an inverted file over so many rows: the power of two next above twice the root, 4,096 for 1,000,000."""
    return 1 << max(0, int(np.ceil(np.log2(2 * np.sqrt(rows)))))


def build_structure(kind: Kind, flat: Engine) -> Engine:
    """A structure that finds most of the nearest rows of an exact engine without looking at all of them.

    The same rows give the same inverted file, byte for byte.

    Args:
        kind: ``ivf``: inverted lists with product quantisation (4 bits for each two numbers, by FAISS's fast scan);
            ``rabitq``: inverted lists with a bit a number (RaBitQ, Gao and Long 2024); ``hnsw``: a graph (Malkov and
            Yashunin 2018).
        flat: M rows of D numbers, which the structure does not copy.
    """
    rows, dim = get_rows(flat), flat.d
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = _BUILD_WIDTH
        for start in range(0, len(rows), _ADDED_AT_A_TIME):
            graph.add(rows[start : start + _ADDED_AT_A_TIME])
        return graph
    lists = count_lists(len(rows))
    code = f"PQ{count_codes(dim)}x4fs" if kind == "ivf" else "RaBitQ"
    structure = faiss.index_factory(dim, f"IVF{lists},{code}", faiss.METRIC_INNER_PRODUCT)
    structure.cp.seed, structure.cp.min_points_per_centroid = _SEED, 1
    structure.cp.max_points_per_centroid = _POINTS_A_LIST
    if kind == "ivf":
        structure.pq.cp.seed, structure.pq.cp.min_points_per_centroid = _SEED, 1
    structure.train(rows[draw_training_rows(len(rows))])
    for start in range(0, len(rows), _ADDED_AT_A_TIME):
        structure.add(rows[start : start + _ADDED_AT_A_TIME])
    return structure


def draw_training_rows(rows: int) -> np.ndarray:
    """The rows that lists and codes are trained on, ascending: drawn with a fixed seed, three of four at most."""
    count = min(3 * rows // 4, count_lists(rows) * _POINTS_A_LIST)
    return np.sort(np.random.default_rng(_SEED).choice(rows, count, replace=False))


def count_codes(dim: int) -> int:
    """Codes of 4 bits a row: one for each two numbers; one a number where their count is odd."""
    return dim // 2 if dim % 2 == 0 else dim


def _get_search(engine: faiss.Index) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """FAISS's own search. What `faiss.contrib.torch_utils` puts in its place, where some library has imported it,
    takes no parameters.
    """
    search: Callable[..., tuple[np.ndarray, np.ndarray]] = getattr(engine, "search_numpy", engine.search)
    return search


def search_flat(flat: Engine, queries: np.ndarray, k: int, *, alive: np.ndarray | None = None) -> Found:
    """The ``k`` most similar rows, exactly; ``alive`` (M,) bool: those that may be found."""
    if alive is None:
        return Found(*flat.search(queries, k))
    bits = np.packbits(alive, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    similarities, rows = _get_search(flat)(queries, k, params=faiss.SearchParameters(sel=selector))
    similarities[rows < 0] = -np.inf
    return Found(similarities, rows)


def list_candidates(structure: Engine, queries: np.ndarray, count: int, effort: int) -> np.ndarray:
    """Rows (Q, count) int64 that an inverted file takes to be nearest, -1 where its ``effort`` lists hold fewer."""
    parameters = faiss.SearchParametersIVF(nprobe=effort)
    rows: np.ndarray = _get_search(structure)(queries, count, params=parameters)[1]
    return rows


def compare_rows(flat: Engine, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Similarity (Q, N) float32 of each query (Q, D) to rows (Q, N) int64 of its own; -inf where a row is -1."""
    similarities = np.empty(candidates.shape, np.float32)
    flat.compute_distance_subset(
        len(queries),
        faiss.swig_ptr(queries),
        candidates.shape[1],
        faiss.swig_ptr(similarities),
        faiss.swig_ptr(candidates),
    )
    similarities[candidates < 0] = -np.inf
    return similarities


def refine(flat: Engine, queries: np.ndarray, candidates: np.ndarray, k: int) -> Found:
    """The ``k`` most similar of each query's candidates (Q, at least k), by their exact similarities."""
    similarities = compare_rows(flat, queries, candidates)
    if k < candidates.shape[1]:
        kept = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        similarities, candidates = np.take_along_axis(similarities, kept, 1), np.take_along_axis(candidates, kept, 1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    return Found(np.take_along_axis(similarities, order, 1), np.take_along_axis(candidates, order, 1))


def search_graph(graph: Engine, queries: np.ndarray, k: int, effort: int) -> Found:
    """The ``k`` rows that a graph finds with a list of ``effort`` (at least k) open candidates."""
    parameters = faiss.SearchParametersHNSW(efSearch=max(effort, k))
    similarities, rows = _get_search(graph)(queries, k, params=parameters)
    similarities[rows < 0] = -np.inf
    return Found(similarities, rows)


def is_graph(structure: Engine) -> bool:
    """Whether a structure is a graph, which may look at any row."""
    return isinstance(structure, faiss.IndexHNSW)


def move_to_gpu(engine: Engine) -> Engine:
    """The exact engine on the first GPU; as it is where FAISS finds none or the GPU fails the probe.

    The probe: the copy is made, and finds some of the engine's own rows with the similarity that the CPU computes.
    """
    if not count_gpus():
        return engine
    try:
        moved = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, engine)
        if engine.ntotal:
            probe = np.array(get_rows(engine)[:: max(1, engine.ntotal // _PROBED_ROWS)][:_PROBED_ROWS])
            similarities, _ = moved.search(probe, 1)
            wanted, _ = engine.search(probe, 1)
            if not np.allclose(similarities, wanted, rtol=1e-3, atol=1e-3):
                return engine
    except (RuntimeError, AssertionError):
        return engine
    return moved


def count_gpus() -> int:
    """GPUs that FAISS can search on."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def fits_gpu(k: int) -> bool:
    """Whether a GPU finds as many neighbours."""
    return k <= _MOST_ON_GPU


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Search and build with so many threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def search_rows(
    queries: np.ndarray, gallery: np.ndarray, k: int, *, own_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` most similar gallery rows of each query, its own row left out by number, not by similarity.

    Args:
        queries: (Q, D) float32, unit rows.
        gallery: (M, D) float32, unit rows.
        k: how many; all there are, where those are fewer.
        own_rows: (Q,) each query's row in the gallery; None where no query is in it.

    Returns:
        Rows (Q, K) int64 and similarities (Q, K) float32, descending.
    """
    engine = move_to_gpu(build_engine(gallery))
    wanted = np.ascontiguousarray(queries, dtype=np.float32)
    if own_rows is None:
        similarities, rows = engine.search(wanted, min(k, len(gallery)))
        return rows, similarities
    similarities, rows = engine.search(wanted, min(k + 1, len(gallery)))
    return leave_out_own(rows, similarities, own_rows)


def leave_out_own(rows: np.ndarray, similarities: np.ndarray, own_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours (Q, K + 1) without each query's own row (Q,): (Q, K).

    Among more than K + 1 equal rows a query's own may be missing; then its last neighbour goes.
    """
    is_own = rows == own_rows[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    shape = (len(rows), rows.shape[1] - 1)
    return rows[~is_own].reshape(shape), similarities[~is_own].reshape(shape)


def search_close_pairs(embeddings: np.ndarray, least_similarity: float, *, most: int) -> np.ndarray:
    """Pairs of rows at least as similar as ``least_similarity``, the most similar first.

    Args:
        embeddings: (N, D) float32, unit rows.
        least_similarity: below 1.
        most: pairs at most, and twice as many at most in memory.

    Returns:
        (P, 2) int64, the lower row first.
    """
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    engine = build_engine(rows)
    pairs, similarities = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    for start in range(0, len(rows), _QUERIES_AT_A_TIME):
        limits, near, neighbours = engine.range_search(rows[start : start + _QUERIES_AT_A_TIME], least_similarity)
        queries = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64))
        upper = neighbours > queries
        pairs = np.concatenate([pairs, np.stack([queries[upper], neighbours[upper]], axis=1)])
        similarities = np.concatenate([similarities, near[upper]])
        if len(pairs) > most:
            order = np.argsort(-similarities, kind="stable")[:most]
            pairs, similarities = pairs[order], similarities[order]
    return pairs[np.argsort(-similarities, kind="stable")].astype(np.int64)
