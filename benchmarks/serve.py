"""Benchmark of ``productrec serve``: requests a second and latency under load, beside the bare network.

A server runs in a process of its own; so many clients each ask for one photo after another, as threads of one process
that has to share the machine's cores with the server. First the same photos go through the run without a server, in
turns: the bare forward of a photo that is decoded and cut already, once for each of the run's views, and a photo from
its bytes to its answer. Printed: median and 99th percentile in ms of these and of the requests, requests a
second, and the server's memory after the first 1,000 requests of each number of clients and after the last. With
--alone nothing is served, and the process is bound to one core and one thread where the system can do that. Without
--run a small competition is drawn and trained.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from sections.arguments import parse_count
from sections.figures import Row, describe_machine, print_markdown, print_row

from productrec.runtime import prepare_process

_ROOT = Path(__file__).resolve().parents[1]
_WARM_UP = 20
_FIRST = 1000  # requests after which memory is looked at


def main() -> None:
    """Measure alone, then under load; print the figures and a Markdown table of them."""
    options = _parse_arguments()
    prepare_process()
    if options.alone:
        _take_one_core()
    print(f"command: python benchmarks/serve.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="productrec-benchmark-") as name:
        run = options.run or train_run(Path(name), quick=options.quick)
        photos = read_photos(options.images_of, Path(name), 20 if options.quick else 200)
        rows = _report_alone(run, photos, 60 if options.quick else 1000)
        if not options.alone:
            with serve_run(run) as (process, port):
                _load(port, photos, clients=1, requests=_WARM_UP)
                for clients in options.clients:
                    rows += _report_load(process.pid, port, photos, clients=clients, requests=options.requests)
    for row in rows:
        print_row(row)
    print_markdown(rows)


def _take_one_core() -> None:
    import torch

    torch.set_num_threads(1)
    with suppress(AttributeError, OSError):  # not on every system
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _report_alone(run: Path, photos: Sequence[bytes], count: int) -> list[Row]:
    seen = _measure_alone(run, photos, count)
    rows = [Row("serve", f"{what}, one photo, ms", _show(seconds)) for what, seconds in seen.items()]
    bare, answer = (np.array(seconds) for seconds in seen.values())
    low, middle, high = np.percentile(answer / bare, (5, 50, 95))
    ratio = f"{middle:.2f} ({low:.2f} to {high:.2f} for 90 of 100 photos)"
    return [*rows, Row("serve", "answer's time / that of the bare forward, same photo", ratio)]


def _report_load(pid: int, port: int, photos: Sequence[bytes], *, clients: int, requests: int) -> list[Row]:
    first = min(requests, _FIRST)
    started = time.perf_counter()
    seconds = _load(port, photos, clients=clients, requests=first)
    ended = time.perf_counter()
    before = read_memory(pid)
    resumed = time.perf_counter()
    seconds += _load(port, photos, clients=clients, requests=requests - first)
    rate = requests / (time.perf_counter() - resumed + ended - started)
    after = read_memory(pid)
    what = f"{clients} clients, {requests:,} requests"
    grown = f"{before:,.0f} MB after the first {first:,}, {after:,.0f} MB after the last, {after - before:+,.0f} MB"
    return [
        Row("serve", what, f"{rate:,.1f} requests a second, {_show(seconds)} ms"),
        Row("serve", f"{what}, memory (RSS)", grown),
    ]


def _measure_alone(run: Path, photos: Sequence[bytes], count: int) -> dict[str, list[float]]:
    """Seconds of the forward alone, and from a photo's bytes to its answer, in turns, without a server."""
    import torch

    from productrec.assembly.network import load_network
    from productrec.data.view_presets import get_views, plan_views
    from productrec.pipeline.loaded import LoadedRun
    from productrec.recipe import load_recipe
    from productrec.training.run.checkpoint import load_checkpoint

    loaded = LoadedRun(run, settings=["device=cpu"])
    checkpoint = load_checkpoint(run / "checkpoints" / "best")
    network = load_network(checkpoint)
    settings = load_recipe(run / "recipe.yaml").predict
    _, plan = plan_views(get_views(settings.tta, settings.own_views))
    squares = [[torch.from_numpy(cut)[None] for cut in loaded.prepare(photo, name="").cuts] for photo in photos]

    def look(number: int) -> None:
        with torch.inference_mode():
            for cut, _, _ in plan:
                network(squares[number][cut])

    def answer(number: int) -> None:
        loaded.recognise_prepared([loaded.prepare(photos[number], name="")])

    turns: dict[str, Callable[[int], None]] = {"bare forward": look, "from bytes to answer, without a server": answer}
    seen: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(-_WARM_UP, count):
        for name, act in turns.items():
            started = time.perf_counter()
            act(number % len(photos))
            if number >= 0:
                seen[name].append(time.perf_counter() - started)
    return seen


@contextmanager
def serve_run(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process of a server, and its port."""
    command = [sys.executable, "-m", "productrec", "serve", str(run), "device=cpu", "--port", "0", *options]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"listening at \S+:(\d+)", line):
                break
        else:
            raise RuntimeError(f"the server did not start:\n{said}")
        # Whatever it says later must not fill the pipe, for which it would wait.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield process, int(found[1])
        finally:
            process.terminate()
            process.wait(30)


def _load(port: int, photos: Sequence[bytes], *, clients: int, requests: int) -> list[float]:
    """Seconds of each request of so many clients at once, each with one connection."""
    numbers = iter(range(requests))
    lock = threading.Lock()
    seconds: list[float] = []
    wrong: list[str] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not wrong:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            started = time.perf_counter()
            try:
                connection.request(
                    "POST", "/recognise", photos[number % len(photos)], {"Content-Type": "application/octet-stream"}
                )
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise RuntimeError(f"{response.status}: {body[:200]!r}")
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                wrong.append(f"request {number}: {error}")
                break
            seconds.append(time.perf_counter() - started)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise RuntimeError(wrong[0])
    return seconds


def read_memory(pid: int) -> float:
    """Resident memory of a process in MB; not a number where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def train_run(work: Path, *, quick: bool) -> Path:
    """A run of a drawn competition, trained just long enough to answer."""
    import json

    from productrec.demo.drawn.competition import draw_competition

    draw_competition(work / "source", skus=6 if quick else 40, train_images=8, val_images=2, test_images=1, seed=0)
    data = {"source": str(work / "source"), "table": str(work / "table")}
    recipe = work / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "served", "competition": "imaterialist2019", "data": data}))
    settings = ["device=cpu", "train.workers=0", "train.epochs=1", "train.precision=float32", "model.pretrained=false"]
    if quick:
        settings += ["model.backbone=mobilenetv3_small_050", "train.side_px=32", "train.batch_size=16"]
    command = [sys.executable, "-m", "productrec", "run", str(recipe), *settings]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"training a run to be served: {done.stderr[-2000:]}")
    return work / "runs" / "served"


def read_photos(source: Path, work: Path, count: int) -> list[bytes]:
    """Bytes of the photos of a folder; of drawn ones where it does not exist."""
    from sections.predict import list_images

    paths = list_images(source if (source / "images").is_dir() else None, work, count)
    return [Path(path).read_bytes() for path in paths]


def _show(seconds: Sequence[float]) -> str:
    values = np.array(seconds) * 1e3
    return f"median {np.median(values):.2f}, 99th percentile {np.percentile(values, 99):.2f}"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder that is served (none: a drawn one)")
    parser.add_argument("--clients", type=parse_count, nargs="+", default=[1, 8, 64], help="at once (1 8 64)")
    parser.add_argument("--requests", type=parse_count, default=10_000, help="for each number of clients (10000)")
    parser.add_argument("--alone", action="store_true", help="one photo on one core, without a server")
    parser.add_argument("--quick", action="store_true", help="a smoke run: a tiny network, 200 requests")
    parser.add_argument(
        "--images-of",
        type=Path,
        default=_ROOT.parent / "shared" / "data" / "grocery",
        help="folder that holds images/*.jpg; drawn ones where it does not exist (../shared/data/grocery)",
    )
    options = parser.parse_args()
    if options.quick:
        options.requests = min(options.requests, 200)
    return options


if __name__ == "__main__":
    main()
