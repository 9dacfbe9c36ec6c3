"""Writing a submission of the competition's full size as a user does, beside a few lines of NumPy."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from productrec.recognition.probabilities import write_probabilities
from sections.figures import Row, compute_ratios, compute_spread, print_row, take_turns
from sections.start import find_heavy_imports

IMAGES, CLASSES = 90_834, 2_019
MOST_SECONDS, MOST_GIB = 15.0, 1.5
_BLOCK_ROWS = 4096
_CHECKED_ROWS = 500
# A small process of its own: a child's peak counts from its parent's size, and this one's parent may hold torch.
_LAUNCH = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
seconds = time.perf_counter() - started
if done.returncode:
    sys.exit(done.stderr)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([seconds, peak]))
"""
_BARE = """
import csv, json, sys
from pathlib import Path
import numpy as np
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
ids = json.loads((folder / "ids.json").read_text())
values = np.load(folder / "probabilities.npy", mmap_mode="r")
with out.open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\\n")
    writer.writerow(["id", "predicted"])
    for start in range(0, len(ids), 4096):
        block = -np.asarray(values[start : start + 4096], dtype=np.float32)
        best = np.argpartition(block, 3, axis=1)[:, :3]
        order = np.take_along_axis(best, np.take_along_axis(block, best, axis=1).argsort(axis=1), axis=1)
        writer.writerows((ids[start + row], " ".join(map(str, top))) for row, top in enumerate(order.tolist()))
"""
# Submitting what does not exist stops at once, with everything imported that submitting needs.
_IMPORT = """
import json, sys, time
started = time.perf_counter()
from productrec.cli import main
try:
    main(["submit", sys.argv[2], "--competition", "imaterialist2019"])
except SystemExit:
    pass
print(time.perf_counter() - started)
print(json.dumps(sorted(set(sys.argv[1].split(",")) & set(sys.modules))), file=sys.stderr)
"""


def measure_submit(repeats: int) -> list[Row]:
    """Time ``productrec submit`` and its peak memory on random probabilities of every test image."""
    with tempfile.TemporaryDirectory(prefix="productrec-benchmark-") as name:
        work = Path(name)
        folder, sample = draw_probabilities(work)
        numbers = count()
        peaks: dict[str, list[float]] = {"ours": [], "bare": []}
        last: dict[str, Path] = {}

        def build_turn(which: str, build: Callable[[Path], list[str]]) -> Callable[[], float]:
            def turn() -> float:
                last[which] = work / f"{which}-{next(numbers)}" / "submission.csv"
                last[which].parent.mkdir()
                seconds, peak_bytes = _launch(build(last[which]))
                peaks[which].append(peak_bytes / 2**30)
                return seconds

            return turn

        options = ["--competition", "imaterialist2019", "--sample", str(sample)]
        command = [sys.executable, "-m", "productrec", "submit", str(folder), *options, "--out"]
        seen = take_turns(
            {
                "ours": build_turn("ours", lambda out: [*command, str(out)]),
                "bare": build_turn("bare", lambda out: [sys.executable, "-c", _BARE, str(folder), str(out)]),
            },
            repeats,
        )
        check_csv(last["ours"], folder)
        imports = compute_spread([_time_imports(work / "nothing") for _ in range(repeats)])
        heavy = find_heavy_imports(_IMPORT, [str(work / "nothing")])
    spread, peak = compute_spread(seen["ours"]), compute_spread(peaks["ours"])
    size = f"{IMAGES:,} x {CLASSES:,} float16"
    rows = [
        Row(
            "submit",
            f"`productrec submit`, {size}, checked against a sample",
            spread.show(1, " s"),
            f"< {MOST_SECONDS:.0f} s",
            spread.middle < MOST_SECONDS,
        ),
        Row("submit", "peak memory of it", peak.show(2, " GiB"), f"< {MOST_GIB} GiB", peak.middle < MOST_GIB),
        Row("submit", "time, ours / bare NumPy", compute_ratios(seen["ours"], seen["bare"]).show(2)),
        Row("submit", "peak memory, ours / bare NumPy", compute_ratios(peaks["ours"], peaks["bare"]).show(2)),
        Row("submit", f"imports of it ({', '.join(heavy) or 'nothing heavy'})", imports.show(2, " s")),
    ]
    for row in rows:
        print_row(row)
    return rows


def draw_probabilities(work: Path) -> tuple[Path, Path]:
    """Random class probabilities as an artefact, and a sample submission of the same ids in another order."""
    generator = np.random.default_rng(0)
    ids = [f"{number:032x}.jpg" for number in generator.permutation(IMAGES)]
    folder, sample = work / "predictions", work / "sample_submission.csv"
    with write_probabilities(
        folder,
        ids=ids,
        class_ids=range(CLASSES),
        names=[f"product {number}" for number in range(CLASSES)],
        fallback=[],
        made={},
        inputs={},
        settings={},
    ) as values:
        for start in range(0, IMAGES, _BLOCK_ROWS):
            rows = min(_BLOCK_ROWS, IMAGES - start)
            block = generator.standard_exponential((rows, CLASSES), dtype=np.float32) ** 3  # a few stand out
            values[start : start + rows] = block / block.sum(axis=1, keepdims=True)
    with sample.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "predicted"))
        writer.writerows((image_id, "0 1 2") for image_id in sorted(ids))
    return folder, sample


def check_csv(path: Path, folder: Path) -> None:
    """Refuse a CSV that has not every row, or not the most probable classes in the rows that are looked at."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    predicted = dict(lines)
    if header != ["id", "predicted"] or len(predicted) != IMAGES:
        raise RuntimeError(f"the submission must have {IMAGES} rows; got {len(predicted)} below {header}")
    ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    values = np.load(folder / "probabilities.npy", mmap_mode="r")[:_CHECKED_ROWS].astype(np.float32)
    best = np.argsort(-values, axis=1, kind="stable")[:, :3]
    for image_id, top in zip(ids, best.tolist(), strict=False):
        if predicted[image_id] != " ".join(map(str, top)):
            raise RuntimeError(f"{image_id} must have the classes {top}; got {predicted[image_id]}")


def _launch(command: Sequence[str]) -> tuple[float, float]:
    """Run a command to its end; seconds and the bytes of its largest resident set."""
    done = subprocess.run([sys.executable, "-c", _LAUNCH, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:5])} failed:\n{done.stderr}")
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def _time_imports(nothing: Path) -> float:
    command = [sys.executable, "-c", _IMPORT, "torch", str(nothing)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
