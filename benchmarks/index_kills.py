"""Kills `productrec index grow`, `remove`, `compact` and `renew` with -9 at random moments, and looks at what is left.

After each kill every photo that was told to be kept must be there, a piece of photos must be whole or not there, a
removal, folding or renewal must be whole or not there, and the index must load. The run that a catalogue is carried
over from must not change. Once the command has come to its end, ids, classes and embeddings must be those of an
undisturbed run. A third of the kills falls anywhere in the time that the undisturbed command took, a third waits for a
change that is being written, a third for one that was just finished.
"""

from __future__ import annotations

import argparse
import contextlib
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
from typing import NamedTuple

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
    "train.workers=0",
    "train.precision=float32",
    "device=cpu",
)
_PIECE = 4
_KEPT = re.compile(r"kept (\d+) photos")
_AIMS = ("anywhere", "writing", "written")
_REMOVED = 5  # classes, of the products that were grown


class _Job(NamedTuple):
    """A command that is killed: what it says once its change is there, and whose index it changes.

    ``done_again``: its exit code where it has nothing left to do.
    """

    name: str
    command: list[str]
    told: str
    run: str = "tiny"
    done_again: int = 0


_Rows = dict[str, tuple[str, np.ndarray]]  # class and embedding of every image that can be found, by image id


def main() -> None:
    """Play all kills; exit with 1 if anything was lost or left half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of index grow")
    parser.add_argument("--other-kills", type=int, help="of each other command (a quarter as many)")
    parser.add_argument("--products", type=int, default=30, help="to grow by, four photos each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"command: python benchmarks/index_kills.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}\n", flush=True)
    if options.products <= _REMOVED:
        parser.error(f"--products must be above {_REMOVED}, which are removed")
    others = options.kills // 4 if options.other_kills is None else options.other_kills
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        products = _prepare(place, options.products)
        grow = ["index", "grow", "runs/tiny", "new", "--piece", str(_PIECE)]
        remove = ["index", "remove", "runs/tiny", *products[:_REMOVED]]
        good = _play(place, _Job("grow", grow, "photos more"), options.kills, options.seed)
        _go_on_from_undisturbed(place)
        good &= _play(place, _Job("remove", remove, "classes removed", done_again=3), others, options.seed)
        _go_on_from_undisturbed(place)
        renew = ["index", "renew", "runs/tiny", "runs/next", "--tolerance", "1"]
        job = _Job("renew", renew, "answers for the catalogue now", run="next", done_again=4)
        good &= _play(place, job, others, options.seed)
        compact = ["index", "compact", "runs/tiny"]
        good &= _play(place, _Job("compact", compact, "segments folded"), others, options.seed)
    sys.exit(0 if good else 1)


def _go_on_from_undisturbed(place: Path) -> None:
    shutil.rmtree(place / "start")
    shutil.copytree(place / "undisturbed", place / "start")


def _prepare(place: Path, products: int) -> list[str]:
    """Two trained runs in ``start``, and photos of products that they never saw in ``start/new``; names of these."""
    start = place / "start"
    draw_competition(start / "shop", skus=6, train_images=8, val_images=3, test_images=3, max_side_px=48, seed=3)
    draw_competition(
        place / "later", skus=products, train_images=4, val_images=1, test_images=1, max_side_px=48, seed=77
    )
    for image in json.loads((place / "later/train.json").read_text())["images"]:
        target = start / "new" / f"product {image['class']}"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "later/images" / image["id"], target)
    for epochs, name in enumerate(("tiny", "next"), start=1):
        recipe = {"name": name, "competition": "imaterialist2019", "data": {"source": "shop", "table": "data/tiny"}}
        (start / f"{name}.yaml").write_text(json.dumps(recipe))
        _finish(["run", f"{name}.yaml", *_TINY, f"train.epochs={epochs}"], start)
    return sorted(path.name for path in (start / "new").iterdir())


def _play(place: Path, job: _Job, kills: int, seed: int) -> bool:
    generator = random.Random(f"{seed} {job.name}")
    undisturbed, killed = place / "undisturbed", place / "killed"
    for folder in (undisturbed, killed):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "start", undisturbed)
    started = time.monotonic()
    _finish(job.command, undisturbed)
    seconds = time.monotonic() - started
    wanted, before = _read(undisturbed, job.run), _read(place / "start", job.run)
    hits, finished, there, faults = 0, 0, 0, list[str]()
    while hits < kills or killed.exists():
        if not killed.exists():
            shutil.copytree(place / "start", killed)
            kept = 0
        aim = _AIMS[hits % len(_AIMS)]
        if hits < kills:
            was_killed, said = _kill(job, killed, generator.uniform(0.1, seconds), aim)
            kept += sum(int(count) for count in _KEPT.findall(said))
            hits += was_killed
            seen = _read(killed, job.run)
            there += was_killed and _equal(seen, wanted)
            faults += _examine_pieces(seen, wanted, before, kept) if job.name == "grow" else []
            faults += _examine_whole(seen, wanted, before, job.told in said) if job.name != "grow" else []
            if job.run != "tiny" and not _equal(_read(killed, "tiny"), _read(place / "start", "tiny")):
                faults.append("the run that is carried over has changed")
            if was_killed and not (job.done_again and _equal(seen, wanted)):
                continue
        _finish(job.command, killed, job.done_again)
        if not _equal(_read(killed, job.run), wanted):
            faults.append("the end differs from the undisturbed run's")
        finished += 1
        shutil.rmtree(killed)
    verdict = "nothing lost, nothing half there" if not faults else f"faults: {faults[:3]}"
    print(
        f"{job.name}: undisturbed {seconds:.1f} s; killed {hits} times ({there} of them with all there already), "
        f"finished {finished} times; {len(before)} rows before, {len(wanted)} after; {verdict}",
        flush=True,
    )
    return not faults


def _examine_pieces(seen: _Rows, wanted: _Rows, before: _Rows, kept: int) -> list[str]:
    """Faults of a catalogue that grows by pieces, of which ``kept`` photos were told to be there."""
    faults = [f"{name} differs" for name in seen if name not in wanted or _differ(seen[name], wanted[name])]
    if not before.keys() <= seen.keys():
        faults.append("rows of the base are gone")
    if len(seen) - len(before) < min(kept, len(wanted) - len(before)):
        faults.append(f"{kept} photos were told to be kept, {len(seen) - len(before)} are there")
    if (len(seen) - len(before)) % _PIECE:
        faults.append("a piece is half there")
    return faults


def _examine_whole(seen: _Rows, wanted: _Rows, before: _Rows, is_told: bool) -> list[str]:
    """Faults of a catalogue that changes at once."""
    if not (_equal(seen, wanted) or (_equal(seen, before) and not is_told)):
        return ["a change that was told is not there" if is_told else "a change is half there"]
    return []


def _read(place: Path, run: str) -> _Rows:
    catalogue = Catalogue(place / "runs" / run / "index/plain")
    rows = catalogue.list_alive()
    keys = [catalogue.keys[position] for position in catalogue.get_classes(rows).tolist()]
    return dict(zip(catalogue.list_ids(), zip(keys, catalogue.get_embeddings(rows), strict=True), strict=True))


def _equal(one: _Rows, other: _Rows) -> bool:
    return one.keys() == other.keys() and not any(_differ(one[name], other[name]) for name in one)


def _differ(one: tuple[str, np.ndarray], other: tuple[str, np.ndarray]) -> bool:
    return one[0] != other[0] or not np.allclose(one[1], other[1], atol=1e-5)


def _finish(command: list[str], place: Path, done_again: int = 0) -> None:
    called = [sys.executable, "-m", "productrec", *command]
    done = subprocess.run(called, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode not in (0, done_again):
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")


def _kill(job: _Job, place: Path, seconds: float, aim: str) -> tuple[bool, str]:
    """Start a command and kill it; whether it was still running, and what it had said."""
    log, indexes = place / "log", place / "runs" / job.run / "index"
    before = set(_list(indexes))
    with log.open("w") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "productrec", *job.command], cwd=place, stderr=file, start_new_session=True
        )
    deadline = time.monotonic() + seconds
    while running.poll() is None:
        now = set(_list(indexes)) - before
        if aim == "anywhere" and time.monotonic() > deadline:
            break
        if aim == "writing" and any(".tmp-" in name for name in now):
            break
        if aim == "written" and any(".tmp-" not in name and not name.endswith(".lock") for name in now):
            break
        time.sleep(0.0005)
    was_running = running.poll() is None
    if was_running:
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return was_running, log.read_text()


def _list(indexes: Path) -> list[str]:
    """Changes of a run's indexes, also those of a renewal that is being made."""
    names = list[str]()
    for folder in indexes.glob("*.grown"), indexes.glob(".*.renewing"):
        for changed in folder:
            with contextlib.suppress(FileNotFoundError):
                names += [f"{changed.name}/{name}" for name in os.listdir(changed)]
    return names


if __name__ == "__main__":
    main()
