"""Benchmark of a catalogue in a Milvus server: the vectors of benchmarks/search.py, by flat, HNSW and IVF_SQ8.

Each kind has a server of its own, started here on loopback by `milvus-lite server` of PYTHON (of an environment of its
own: `uv venv FOLDER`, then `uv pip install --python FOLDER/bin/python milvus-lite pymilvus`), or all share the one at
--address, whose memory is then not measured. Copied is as `productrec index copy` does, which reads all back; files are
searched beside. Milvus Lite runs in one process of Python, so that its times say little of a cluster.

Recall@10 is against exact search of the files, of queries that are none of the rows; queries a second are of requests
of --batch queries, one after the other, with everything that a catalogue does; ratios are of turns that alternate.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from search import draw_vectors, gather_vectors
from sections.figures import compute_ratios, compute_spread, describe_machine, take_turns

from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.choice import RECALL_K
from productrec.retrieval.copying import copy_to_server
from productrec.retrieval.index import save_index
from productrec.retrieval.milvus import Address, MilvusKind, parse_address
from productrec.retrieval.remote_catalogue import RemoteCatalogue

_KINDS: tuple[MilvusKind, ...] = ("flat", "hnsw", "ivf_sq8")
_ROWS_A_CLASS = 20
_START_SECONDS = 120


def main() -> None:
    """Copy, ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--python", type=Path, help="of an environment with milvus-lite")
    server.add_argument("--address", help="http://HOST:PORT of a server; productrec_benchmark_KIND are replaced")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--batch", type=int, default=10, help="queries a request")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=_KINDS, default=list(_KINDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"command: python benchmarks/milvus.py {' '.join(sys.argv[1:])}")
    print(f"machine: {describe_machine()}")
    print(f"{options.rows:,} x {options.dim} clustered unit vectors, {options.queries:,} queries, k {RECALL_K}\n")
    rows, queries = draw_vectors(options.rows, options.dim, options.queries, options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = [row // _ROWS_A_CLASS for row in range(len(rows))]
        keys = {label: f"class {label}" for label in sorted(set(labels))}
        save_index(folder / "plain", gather_vectors(rows), labels, inputs={}, settings={}, keys=keys, kind="exact")
        files = Catalogue(folder / "plain")
        truth = files.get_ids(files.search(gather_vectors(queries), RECALL_K)[0].ravel())
        print(
            "| kind | effort | written, s | index built, read back, tuned, s | server's memory before, after, MB | "
            "recall@10 | queries/s | times files |"
        )
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for kind in options.kinds:
            _measure(kind, files, queries, truth, folder, options)


def _measure(
    kind: MilvusKind, files: Catalogue, queries: np.ndarray, truth: list[str], folder: Path, options: argparse.Namespace
) -> None:
    with contextlib.ExitStack() as stack:
        process = None
        if options.python is None:
            uri = parse_address(options.address).uri
        else:
            uri, process = stack.enter_context(_start_server(options.python, folder / kind))
        before = _read_memory(process)
        moments, moved, started = [0.0], [0], time.perf_counter()

        def tell(count: int) -> None:
            moved[0] += count
            if moved[0] <= len(files):
                moments[0] = time.perf_counter() - started

        remote, _ = copy_to_server(files, Address(uri, f"productrec_benchmark_{kind}"), kind=kind, on_rows=tell)
        copied = time.perf_counter() - started
        after = _read_memory(process)
        parts = [queries[start : start + options.batch] for start in range(0, len(queries), options.batch)]
        found = [remote.get_ids(remote.search(gather_vectors(part), RECALL_K)[0].ravel()) for part in parts]
        flat = [image_id for part in found for image_id in part]
        wanted, got = (np.array(ids).reshape(-1, RECALL_K) for ids in (truth, flat))
        recall = np.mean([len(np.intersect1d(*pair)) / RECALL_K for pair in zip(wanted, got, strict=True)])

        def time_search(catalogue: Catalogue | RemoteCatalogue) -> Callable[[], float]:
            def turn() -> float:
                begun = time.perf_counter()
                for part in parts:
                    catalogue.get_classes(catalogue.search(gather_vectors(part), RECALL_K)[0])
                return len(queries) / (time.perf_counter() - begun)

            return turn

        rates = take_turns({"server": time_search(remote), "files": time_search(files)}, options.repeats)
        print(
            f"| {kind} | {remote.about.effort} | {moments[0]:.1f} | {copied - moments[0]:.1f} | {before} to {after} | "
            f"{recall:.4f} | {compute_spread(rates['server']).show(1)} | "
            f"{compute_ratios(rates['server'], rates['files']).show(4)} |",
            flush=True,
        )


@contextlib.contextmanager
def _start_server(python: Path, folder: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python), "-I", "-m", "milvus_lite", "server", "--data-dir", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server does not start: {' '.join(command)}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def _read_memory(process: subprocess.Popen | None) -> str:
    if process is None:
        return "?"
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return f"{next(int(line.split()[1]) for line in lines if line.startswith('VmRSS')) // 1024:,}"


if __name__ == "__main__":
    main()
