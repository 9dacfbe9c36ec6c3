"""Where the time of `productrec train` goes: how long until its first step, and what loading costs beside the steps.

The first step is compared with importing torch, timm and albumentations, each in a fresh process, in turns. Loading: a
whole training (checkpoints included, validation not) beside its loader alone and its steps alone. On a CPU torch gets
all cores but one and the loader that one, in all three, or they would fight over them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sections.figures import (
    Row,
    compute_ratios,
    compute_spread,
    describe_machine,
    print_markdown,
    print_row,
    take_turns,
)

from productrec.runtime import count_cores, prepare_process

if TYPE_CHECKING:
    from productrec.recipe import Recipe

_ROOT = Path(__file__).resolve().parents[1]
_MOST_SECONDS, _LEAST_RATIO = 3.0, 0.95
_EPOCHS = 4
_IMPORTS = "import torch, timm, albumentations"
_TELL = "\nimport time; print(time.time(), flush=True)"
_FIRST_STEP = """
import os, sys, time
from productrec.cli import main
from productrec.training.step.trainer import Trainer
run_step = Trainer.run_step
def run_and_end(self, images, labels):
    float(run_step(self, images, labels)["loss"])
    print(time.time(), flush=True)
    os._exit(0)
Trainer.run_step = run_and_end
main(sys.argv[1:])
"""


def main() -> None:
    """Measure both and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the recipe to change")
    parser.add_argument("--recipe", type=Path, default=_ROOT / "pipelines" / "grocery_scratch.yaml")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "grocery")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    prepare_process()
    print(f"command: python benchmarks/train_time.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        print_markdown(_measure(options, Path(name)))


def _measure(options: argparse.Namespace, work: Path) -> list[Row]:
    import torch

    from productrec.pipeline.play import ingest_recipe
    from productrec.recipe import load_recipe
    from productrec.runtime import choose_device, keep_freed_memory

    device = choose_device(options.device)
    keep_freed_memory(device)  # as training does
    fixed = {
        "data.source": options.data.resolve(),
        "data.table": work / "table",
        "runs": work / "runs",
        "device": device,
        "train.epochs": _EPOCHS,
        "train.validate_every": _EPOCHS,
        "train.cut_mix": 0,  # a mixed batch has one term less
    }
    if device.type == "cpu":
        fixed["train.workers"] = 1
        torch.set_num_threads(max(1, count_cores() - 1))
    settings = [*(f"{key}={value}" for key, value in fixed.items()), *options.overrides]
    recipe = load_recipe(options.recipe, settings)
    ingest_recipe(recipe)
    command = ["train", str(options.recipe), *settings]
    return [*_measure_first_step(command, options.repeats), *_measure_loading(recipe, command, options.repeats)]


def _measure_first_step(command: list[str], repeats: int) -> list[Row]:
    turns: dict[str, Callable[[], float]] = {
        "train": partial(_time_until_told, [sys.executable, "-c", _FIRST_STEP, *command]),
        "imports": partial(_time_until_told, [sys.executable, "-c", _IMPORTS + _TELL]),
    }
    take_turns(turns, 1)  # byte code and file cache
    seen = take_turns(turns, repeats)
    more = compute_spread([one - other for one, other in zip(seen["train"], seen["imports"], strict=True)])
    rows = [
        Row("first step", f"`{_IMPORTS}`", compute_spread(seen["imports"]).show(1, " s")),
        Row("first step", "`productrec train` up to its first step", compute_spread(seen["train"]).show(1, " s")),
        Row("first step", "beyond the imports", more.show(1, " s"), "<= 3 s", more.middle <= _MOST_SECONDS),
    ]
    for row in rows:
        print_row(row)
    return rows


def _measure_loading(recipe: Recipe, command: list[str], repeats: int) -> list[Row]:
    import torch
    from sections.rates import measure_loader_rate, measure_step_rate

    from productrec.data.table import load_table
    from productrec.runtime import choose_device, choose_dtype

    device = choose_device(recipe.device)
    dtype = choose_dtype(recipe.train.precision, device)
    class_count = load_table(recipe.table).select(recipe.train.splits)["label"].nunique()
    turns: dict[str, Callable[[], float]] = {
        "whole": partial(_measure_whole, recipe, command),
        "loader": partial(measure_loader_rate, recipe, device, most_seconds=10),
        "steps": partial(measure_step_rate, recipe, class_count, device, dtype),
    }
    seen = take_turns(turns, repeats)
    slower = [min(pair) for pair in zip(seen["loader"], seen["steps"], strict=True)]
    ratio = compute_ratios(seen["whole"], slower)
    setting = f"{recipe.model.backbone}, {recipe.train.side_px} px, batch {recipe.train.batch_size}, {device.type}"
    if device.type == "cpu":
        setting += f", {torch.get_num_threads()} threads, {recipe.train.workers} loader"
    rows = [Row("loading", f"{name}, images a second", compute_spread(rates).show(0)) for name, rates in seen.items()]
    rows.append(
        Row("loading", f"whole / slower of both ({setting})", ratio.show(3), ">= 0.95", ratio.middle >= _LEAST_RATIO)
    )
    for row in rows:
        print_row(row)
    return rows


def _measure_whole(recipe: Recipe, command: list[str]) -> float:
    """Training images a second, between the ends of the first epoch and of the last one without validation."""
    from productrec.training.run.run_folder import load_epochs

    shutil.rmtree(recipe.run_folder, ignore_errors=True)
    _run([sys.executable, "-m", "productrec", *command])
    seconds = [epoch["seconds"] for epoch in load_epochs(recipe.run_folder)]
    steps = _count_steps(recipe)
    return (_EPOCHS - 2) * steps * recipe.train.batch_size / (seconds[_EPOCHS - 2] - seconds[0])


def _count_steps(recipe: Recipe) -> int:
    import numpy as np

    from productrec.data.samplers import EpochSampler
    from productrec.data.table import load_table

    rows = load_table(recipe.table).select(recipe.train.splits)
    labels = np.unique(rows["label"].to_numpy(dtype=np.int64), return_inverse=True)[1]
    size, each = recipe.train.batch_size, recipe.train.images_per_class
    return len(EpochSampler(labels, batch_size=size, images_per_class=each if recipe.uses_pk_sampler else None, seed=0))


def _time_until_told(command: list[str]) -> float:
    """Seconds until a command prints the time; its loader processes may take a while to end."""
    started = time.time()
    return float(_run(command).splitlines()[-1]) - started


def _run(command: list[str]) -> str:
    import torch

    environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
