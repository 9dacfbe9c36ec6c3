"""What the metric term, its batches and weight are worth beside cross-entropy, from pretrained weights: seen classes.

Every row is the same small fine-tuning of EfficientNet-Lite0 on the grocery images with another loss or sampler; the
first has cross-entropy alone on shuffled batches, and the others are compared with it seed by seed. Figures are of the
last epoch on the validation images: head alone, nearest neighbour among them, and head and vote fused. Runs use one
thread each and are written down one by one: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_BASE = {
    "name": "base",
    "competition": "imaterialist2019",
    "model": {"backbone": "tf_efficientnet_lite0", "pretrained": True, "embedding_dim": 256},
    "train": {
        "side_px": 128,
        "batch_size": 32,
        "freeze_stages": 3,
        "learning_rate": 1e-3,
        "head_rate_factor": 5.0,
        "ema_decay": 0.98,
        "validate_raw": False,
        "augmentation": "light",
        "precision": "float32",
        "workers": 0,
    },
    "predict": {"checkpoint": "last", "gallery_tta": "plain", "batch_size": 32},
}
_FIGURES = {
    "head": "head alone, top-1",
    "fused": "fused, top-1",
    "fused_error": "fused, top-3 error",
    "recall@1": "R@1",
}


@dataclass(frozen=True)
class Row:
    """A loss and its batches: ``settings`` away from the base."""

    name: str
    settings: dict[str, Any]


def _mix(weight: float, sampler: str, metric: str = "multi_similarity") -> dict[str, Any]:
    return {"loss.metric": metric, "loss.metric_weight": weight, "train.sampler": sampler}


ROWS = (
    Row("cross-entropy alone, shuffled", {"loss.metric": "none", "train.sampler": "shuffle"}),
    Row("cross-entropy alone, PK", {"loss.metric": "none", "train.sampler": "pk"}),
    Row("Multi-Similarity 0.5, PK", _mix(0.5, "pk")),
    Row("Multi-Similarity 0.5, mixed (the default)", _mix(0.5, "mixed")),
    Row("Multi-Similarity 0.5, shuffled", _mix(0.5, "shuffle")),
    Row("SoftTriple 0.5, shuffled (its default)", _mix(0.5, "shuffle", "soft_triple")),
    Row("SoftTriple 0.1, shuffled", _mix(0.1, "shuffle", "soft_triple")),
    Row("Multi-Similarity 0.1, PK", _mix(0.1, "pk")),
    Row("Multi-Similarity 0.1, mixed", _mix(0.1, "mixed")),
    Row("Multi-Similarity 1, mixed", _mix(1.0, "mixed")),
    Row("Multi-Similarity 0.5, mixed, neck without batch norm", _mix(0.5, "mixed") | {"model.neck": "linear"}),
    Row(
        "Multi-Similarity 0.5, mixed, memory of 1,024",
        _mix(0.5, "mixed") | {"loss.memory.rows": 1024, "loss.memory.start_step": 100},
    ),
)


def main() -> None:
    """Run what is not written down yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the table, the runs and runs.jsonl")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "grocery")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"--data: {options.data} must be a competition's folder")
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = _load(out, options.epochs)
    wanted = [(row, seed, options.epochs, out) for seed in range(options.seeds) for row in ROWS]
    missing = [] if options.table else [task for task in wanted if (task[0].name, task[1]) not in done]
    if missing:
        _ingest(options.data.resolve(), out / "table")
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_settle) as pool:
        for line in pool.imap(_train, missing):
            with (out / "runs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{line['row']}, seed {line['seed']}: {line['fused']:.3f}", file=sys.stderr, flush=True)
    print(f"command: python benchmarks/two_heads.py {' '.join(sys.argv[1:])}\n")
    _print_table(_load(out, options.epochs))


def _ingest(source: Path, table: Path) -> None:
    """The competition without its test images, which nothing here looks at."""
    from productrec.recipe import build_recipe
    from productrec.stages.ingest import run_ingest

    if (table / "manifest.json").exists():
        return
    known = table.parent / "source"
    known.mkdir(exist_ok=True)
    for name in ("train.json", "val.json", "product_tree.json"):
        shutil.copyfile(source / name, known / name)
    if not (known / "images").exists():
        (known / "images").symlink_to(source / "images")
    data = build_recipe({"name": "ingest", "data": {"pack": True, "max_side_px": 192}}).data
    run_ingest(known, table, data=data, sample=None, replace=False)


def _settle() -> None:
    import cv2
    import torch

    os.nice(10)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _train(task: tuple[Row, int, int, Path]) -> dict[str, Any]:
    from productrec.console import silence
    from productrec.pipeline.predict import predict_runs
    from productrec.pipeline.select import select_runs
    from productrec.recipe import build_recipe, change_recipe
    from productrec.stages.train import run_train
    from productrec.training.run.run_folder import load_epochs

    row, seed, epochs, out = task
    silence()
    fixed = {"name": f"{os.getpid()}", "seed": seed, "runs": str(out / "runs"), "data.table": str(out / "table")}
    fixed |= {"train.epochs": epochs, "train.validate_every": epochs}
    recipe = change_recipe(build_recipe(_BASE), fixed | row.settings, row.name)
    shutil.rmtree(recipe.run_folder, ignore_errors=True)
    started = time.perf_counter()
    run_train(recipe)
    seconds = time.perf_counter() - started
    last = load_epochs(recipe.run_folder)[-1]
    (ways,) = predict_runs(select_runs(recipe)).validation.values()
    shutil.rmtree(recipe.run_folder)
    return {
        "row": row.name,
        "seed": seed,
        "epochs": epochs,
        "seconds": seconds,
        "head": last["top_1_accuracy"],
        "fused": ways["fused"].top_1_accuracy,
        "fused_error": ways["fused"].top_3_error,
        "recall@1": last["recall@1"],
    }


def _load(out: Path, epochs: int) -> dict[tuple[str, int], dict[str, Any]]:
    path = out / "runs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    runs = [json.loads(line) for line in lines]
    return {(run["row"], run["seed"]): run for run in runs if run["epochs"] == epochs}


def _print_table(runs: dict[tuple[str, int], dict[str, Any]]) -> None:
    """A row a loss: mean over seeds, and the gain over the first row by seed."""
    print(f"| loss and batches | {' | '.join(_FIGURES.values())} | fused, gain by seed | minutes |")
    print("|---|" + "---|" * (len(_FIGURES) + 2))
    for row in ROWS:
        seeds = sorted(seed for name, seed in runs if name == row.name)
        if not seeds:
            continue
        own = [runs[(row.name, seed)] for seed in seeds]
        means = [f"{100 * statistics.mean(run[figure] for run in own):.1f}" for figure in _FIGURES]
        gains = [
            f"{100 * (runs[(row.name, seed)]['fused'] - runs[(ROWS[0].name, seed)]['fused']):+.1f}"
            for seed in seeds
            if (ROWS[0].name, seed) in runs
        ]
        minutes = statistics.median(run["seconds"] for run in own) / 60
        print(f"| {row.name} | {' | '.join(means)} | {', '.join(gains)} | {minutes:.1f} |")


if __name__ == "__main__":
    main()
