"""Kills ingest and training with -9 at random moments, runs them again, and compares with an undisturbed run.

Every file that is left must be equal, byte for byte, but for what says when it was written; every logged figure too.
The kill goes to the whole process group, loader processes included, at a moment drawn evenly over the time that the
undisturbed run took; of a training every third then waits for a checkpoint that is being written, and every third for
an epoch's line in metrics.jsonl, which stands between validation and the save.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_ROOT = Path(__file__).resolve().parents[1]
_JOBS = ("pack", "download", "train")
_MOST_SECONDS = 3600
# When something was done, and how long it took, may differ.
_TIMED = ("train.log",)
_AIMS = {"train": ("anywhere", "save", "epoch")}
_TINY = ("train.epochs=6", "train.side_px=64", "train.cut_mix=0.5", "train.ema_decay=0.9", "train.validate_every=1")


def main() -> None:
    """Play the jobs that were asked for; exit with 1 if any left a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "jobs", nargs="*", metavar="JOB", help="pack, download, train (all); key=value: settings of training"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "grocery")
    options = parser.parse_args()
    settings = [text for text in options.jobs if "=" in text]
    jobs = [text for text in options.jobs if text not in settings] or list(_JOBS)
    if not options.data.is_dir() or set(jobs) - set(_JOBS):
        parser.error(f"{options.data} must be a competition's folder, and jobs must be of {', '.join(_JOBS)}")
    print(f"command: python benchmarks/kills.py {' '.join(sys.argv[1:])}".rstrip(), flush=True)
    failed = [job for job in jobs if not _play(job, options.data.resolve(), options.kills, options.seed, settings)]
    sys.exit(1 if failed else 0)


def _play(job: str, data: Path, kills: int, seed: int, settings: list[str]) -> bool:
    generator = random.Random(f"{seed} {job}")
    with tempfile.TemporaryDirectory() as temporary, _serve(data / "images", job) as port:
        folder = Path(temporary)
        source = _copy_lists(data, folder / "source", port)
        table = folder / "table"
        if job == "train":  # one table for both runs
            _finish(_list_ingest(source, data, table / "data" / "grocery"), table)
        command = [
            *_productrec(),
            "train",
            str(_ROOT / "pipelines" / "grocery_scratch.yaml"),
            *_TINY,
            *settings,
            "--resume",
        ]
        command += [f"data.table={table}/data/grocery", f"data.images={data}/images"]
        if job != "train":
            command = _list_ingest(source, data, Path("data/grocery"))
            command += ["--pack"] if job == "pack" else ["--download", "--allow-private"]
        expected, place = folder / "undisturbed", folder / "killed"
        started = time.monotonic()
        _finish(command, expected)
        seconds = time.monotonic() - started
        wanted = dict(_digest_tree(expected))
        hits, finished, differing = 0, 0, set[str]()
        while hits < kills or not finished:
            place.mkdir(exist_ok=True)
            aims = _AIMS.get(job, ("anywhere",))
            aim = aims[hits % len(aims)]
            if hits < kills and _kill(command, place, generator.uniform(0.3, seconds), aim, generator.uniform(0, 0.05)):
                hits += 1
                continue
            _finish(command, place)
            seen = dict(_digest_tree(place))
            differing |= {path for path in wanted.keys() | seen.keys() if wanted.get(path) != seen.get(path)}
            finished += 1
            shutil.rmtree(place)
    verdict = "every file equal" if not differing else f"differing: {', '.join(sorted(differing)[:5])}"
    print(
        f"{job}: undisturbed {seconds:.1f} s; killed {hits} times, finished {finished} times; "
        f"{len(wanted)} files; {verdict}",
        flush=True,
    )
    return not differing


def _productrec() -> list[str]:
    return [sys.executable, "-m", "productrec"]


def _list_ingest(source: Path, data: Path, out: Path) -> list[str]:
    return [*_productrec(), "ingest", str(source), "--images", str(data / "images"), "--out", str(out)]


def _finish(command: list[str], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")


def _kill(command: list[str], place: Path, seconds: float, aim: str, after: float) -> bool:
    """Start a command, kill its process group after a while and what is aimed at; whether it was still running."""
    running = subprocess.Popen(
        command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        running.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        before = _look(place, aim)
        while aim != "anywhere" and running.poll() is None and _look(place, aim) in (before, 0):
            time.sleep(0.002)
        if aim != "anywhere":
            time.sleep(after)
        if running.poll() is not None:
            return False
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return True
    return False


def _look(place: Path, aim: str) -> int:
    """Something that changes when the moment has come, and is not 0 then."""
    if aim == "save":
        return sum(path.stat().st_ino for path in place.glob("runs/*/checkpoints/.*.tmp-*") if path.exists())
    return sum(path.stat().st_size for path in place.glob("runs/*/metrics.jsonl"))


def _copy_lists(data: Path, source: Path, port: int) -> Path:
    """The competition's lists, with their URLs on the server that runs."""
    source.mkdir()
    for path in data.glob("*.json"):
        document = json.loads(path.read_text())
        for entry in document.get("images", []) if isinstance(document, dict) else []:
            entry["url"] = f"http://127.0.0.1:{port}/{entry['id']}"
        (source / path.name).write_text(json.dumps(document))
    (source / "train_noisy.json").unlink(missing_ok=True)
    shutil.copy(data / "sample_submission.csv", source)
    return source


@contextmanager
def _serve(folder: Path, job: str) -> Iterator[int]:
    """A server of the images on loopback; port 0 where the job needs none."""
    if job != "download":
        yield 0
        return
    code = (
        "import functools, http.server as h\n"
        "class Quiet(h.SimpleHTTPRequestHandler):\n    def log_message(self, *a): pass\n"
        "h.ThreadingHTTPServer.handle_error = lambda *a: None\n"  # a killed client breaks its pipes
        f"s = h.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory={str(folder)!r}))\n"
        "print(s.server_port, flush=True)\ns.serve_forever()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def _digest_tree(folder: Path) -> Iterator[tuple[str, str]]:
    """Digest of every file but those that tell times; of a manifest without the times of the files it was made from.

    A state counts by its content: pickled, equal values may be written once or twice.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _TIMED:
            data = path.read_bytes().replace(str(folder).encode(), b"PLACE")
            if path.name == "state.pt":
                data = "\n".join(_flatten(torch.load(path, weights_only=True))).encode()
            if path.name == "metrics.jsonl":
                lines = [json.loads(line) for line in data.splitlines()]
                data = json.dumps([{name: one[name] for name in one if name != "seconds"} for one in lines]).encode()
            if path.name == "manifest.json":
                manifest = json.loads(data)
                manifest["inputs"].pop("files", None)
                manifest["files"].pop("state.pt", None)
                data = json.dumps(manifest).encode()
            yield path.relative_to(folder).as_posix(), hashlib.sha256(data).hexdigest()


def _flatten(value: Any, place: str = "") -> Iterator[str]:
    """A line for every tensor and every plain value of a state."""
    if isinstance(value, dict | list | tuple):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flatten(below, f"{place}.{name}")
    elif isinstance(value, torch.Tensor):
        digest = hashlib.sha256(value.numpy().tobytes()).hexdigest()
        yield f"{place} {value.dtype} {tuple(value.shape)} {digest}"
    else:
        yield f"{place} {value!r}"


if __name__ == "__main__":
    main()
