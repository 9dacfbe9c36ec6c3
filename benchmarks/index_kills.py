"""Kills `productrec index grow` and `index compact` with -9 at random moments, and looks at what is left.

After each kill every photo that was told to be kept must be there, a piece of photos must be whole or not there, and
the index must load. Once the command has come to its end, ids, classes and embeddings must be those of an undisturbed
run. A third of the kills falls anywhere in the time that the undisturbed command took, a third waits for a change that
is being written, a third for one that was just finished.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sections.figures import describe_machine

from productrec.demo.drawn.competition import draw_competition
from productrec.retrieval.catalogue import Catalogue

_TINY = (
    "model.backbone=mobilenetv3_small_050",
    "model.pretrained=false",
    "model.embedding_dim=16",
    "train.side_px=32",
    "train.batch_size=16",
    "train.epochs=1",
    "train.workers=0",
    "train.precision=float32",
    "device=cpu",
)
_PIECE = 4
_KEPT = re.compile(r"kept (\d+) photos")
_AIMS = ("anywhere", "writing", "written")


def main() -> None:
    """Play all kills; exit with 1 if anything was lost or left half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of index grow; a quarter as many of index compact")
    parser.add_argument("--products", type=int, default=30, help="to grow by, four photos each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"command: python benchmarks/index_kills.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _prepare(place, options.products)
        grow = ["index", "grow", "runs/tiny", "new", "--piece", str(_PIECE)]
        good = _play(place, "grow", grow, options.kills, options.seed)
        shutil.rmtree(place / "start")
        shutil.copytree(place / "undisturbed", place / "start")
        good &= _play(place, "compact", ["index", "compact", "runs/tiny"], options.kills // 4, options.seed)
    sys.exit(0 if good else 1)


def _prepare(place: Path, products: int) -> None:
    """A trained run in ``start``, and photos of products that it never saw in ``start/new``."""
    start = place / "start"
    draw_competition(start / "shop", skus=6, train_images=8, val_images=3, test_images=3, max_side_px=48, seed=3)
    draw_competition(
        place / "later", skus=products, train_images=4, val_images=1, test_images=1, max_side_px=48, seed=77
    )
    for image in json.loads((place / "later/train.json").read_text())["images"]:
        target = start / "new" / f"product {image['class']}"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "later/images" / image["id"], target)
    recipe = {"name": "tiny", "competition": "imaterialist2019", "data": {"source": "shop", "table": "data/tiny"}}
    (start / "tiny.yaml").write_text(json.dumps(recipe))
    _finish(["run", "tiny.yaml", *_TINY], start)


def _play(place: Path, job: str, command: list[str], kills: int, seed: int) -> bool:
    generator = random.Random(f"{seed} {job}")
    undisturbed, killed = place / "undisturbed", place / "killed"
    shutil.rmtree(undisturbed, ignore_errors=True)
    shutil.copytree(place / "start", undisturbed)
    started = time.monotonic()
    _finish(command, undisturbed)
    seconds = time.monotonic() - started
    wanted = _read(undisturbed)
    before = _read(place / "start")
    hits, finished, faults = 0, 0, list[str]()
    while hits < kills or not finished:
        if not killed.exists():
            shutil.copytree(place / "start", killed)
            told = 0
        aim = _AIMS[hits % len(_AIMS)]
        if hits < kills:
            was_killed, kept = _kill(command, killed, generator.uniform(0.1, seconds), aim)
            told += kept
            hits += was_killed
            faults += _examine(killed, wanted, before, told if job == "grow" else len(wanted))
            if was_killed:
                continue
        _finish(command, killed)
        seen = _read(killed)
        if seen.keys() != wanted.keys() or any(_differ(seen[name], wanted[name]) for name in wanted):
            faults.append("the end differs from the undisturbed run's")
        finished += 1
        shutil.rmtree(killed)
    verdict = "nothing lost, nothing half there" if not faults else f"faults: {faults[:3]}"
    print(
        f"{job}: undisturbed {seconds:.1f} s; killed {hits} times, finished {finished} times; {len(wanted)} rows; "
        f"{verdict}",
        flush=True,
    )
    return not faults


def _examine(
    place: Path, wanted: dict[str, tuple[str, np.ndarray]], before: dict[str, tuple[str, np.ndarray]], told: int
) -> list[str]:
    seen = _read(place)
    faults = [f"{name} differs" for name in seen if name not in wanted or _differ(seen[name], wanted[name])]
    if not before.keys() <= seen.keys():
        faults.append("rows of the base are gone")
    if len(seen) - len(before) < min(told, len(wanted) - len(before)):
        faults.append(f"{told} photos were told to be kept, {len(seen) - len(before)} are there")
    if (len(seen) - len(before)) % _PIECE:
        faults.append("a piece is half there")
    return faults


def _read(place: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Class and embedding of every image that can be found, by image id."""
    catalogue = Catalogue(place / "runs/tiny/index/plain")
    rows = catalogue.list_alive()
    keys = [catalogue.keys[position] for position in catalogue.get_classes(rows).tolist()]
    return dict(zip(catalogue.list_ids(), zip(keys, catalogue.get_embeddings(rows), strict=True), strict=True))


def _differ(one: tuple[str, np.ndarray], other: tuple[str, np.ndarray]) -> bool:
    return one[0] != other[0] or not np.allclose(one[1], other[1], atol=1e-5)


def _finish(command: list[str], place: Path) -> None:
    called = [sys.executable, "-m", "productrec", *command]
    done = subprocess.run(called, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")


def _kill(command: list[str], place: Path, seconds: float, aim: str) -> tuple[bool, int]:
    """Start a command and kill it; whether it was still running, and how many photos it had told to be kept."""
    log = place / "log"
    with log.open("w") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "productrec", *command], cwd=place, stderr=file, start_new_session=True
        )
    grown = place / "runs/tiny/index/plain.grown"
    before = set(_list(grown))
    deadline = time.monotonic() + seconds
    while running.poll() is None:
        now = set(_list(grown)) - before
        is_writing = any(".tmp-" in name for name in now)
        if aim == "anywhere" and time.monotonic() > deadline:
            break
        if aim == "writing" and is_writing:
            break
        if aim == "written" and any(".tmp-" not in name and name != ".lock" for name in now):
            break
        time.sleep(0.0005)
    was_running = running.poll() is None
    if was_running:
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = sum(int(count) for count in _KEPT.findall(log.read_text()))
    return was_running, kept


def _list(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    main()
