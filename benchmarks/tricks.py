"""Each trick of training on and off, under one small fixed budget: what it gains on validation images, and how surely.

Every row differs from the defaults in one thing. What is on by default is switched off, what is off is switched on; a
gain is always that of having it. Figures are of the last epoch (of the soup itself where there is one), so that no row
chooses its best moment. Runs use one thread each and are written down one by one: the same command goes on where it was
stopped.
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from productrec.recipe import Recipe

_ROOT = Path(__file__).resolve().parents[1]
_FIGURES = ("top_1_accuracy", "top_3_error", "recall@1")
_BASE = {
    "name": "base",
    "competition": "imaterialist2019",
    "model": {"backbone": "regnetx_002", "pretrained": False, "embedding_dim": 256},
    "train": {"side_px": 96, "learning_rate": 3e-3, "workers": 0},
}


@dataclass(frozen=True)
class Trick:
    """One thing to switch: ``settings`` away from the defaults, which have it where ``is_default``."""

    name: str
    settings: dict[str, Any]
    is_default: bool = False


TRICKS = (
    Trick("metric term (Multi-Similarity) on PK batches", {"loss.metric": "none"}, True),
    Trick("label smoothing 0.1", {"loss.label_smoothing": 0.0}, True),
    Trick("GeM pooling", {"model.pooling": "average"}, True),
    Trick("warm-up of an epoch", {"train.warmup_epochs": 0.0}, True),
    Trick("clipping at 5", {"train.gradient_clip": 0.0}, True),
    Trick("augmentation product, against light", {"train.augmentation": "light"}, True),
    Trick("augmentation heavy, against product", {"train.augmentation": "heavy"}),
    Trick("CutMix, half of the batches", {"train.cut_mix": 0.5}),
    Trick("MixUp, half of the batches", {"train.mix_up": 0.5}),
    Trick("weight decay 0.5, against 0.05", {"train.weight_decay": 0.5}),
    Trick("average of weights (EMA 0.98)", {"train.ema_decay": 0.98}),
    Trick("stochastic depth 0.1", {"model.drop_path": 0.1}),
    Trick("dropout 0.2", {"model.dropout": 0.2}),
    Trick("growing squares, from 48 px", {"train.first_side_px": 48}),
    Trick("jigsaw of 3 x 3 with both terms (DCL)", {"train.jigsaw.parts": 3}),
    Trick("shuffled batches, against PK ones", {"train.sampler": "shuffle"}),
    Trick("metric weight 0.1, against 0.5", {"loss.metric_weight": 0.1}),
    Trick("mixed sampler", {"train.sampler": "mixed"}),
    Trick("square-root sampler", {"train.sampler": "square_root"}),
    Trick("near classes, half of a batch", {"train.hard_classes": 0.5, "train.mine_every": 4}),
    Trick("one category, half of a batch", {"train.category_share": 0.5}),
    Trick("memory of 1,024", {"loss.memory.rows": 1024, "loss.memory.start_step": 200}),
    Trick("layer-wise decay 0.8", {"train.layer_decay": 0.8}),
    Trick("flat schedule", {"train.schedule": "flat"}),
    Trick("backbone frozen for the first epoch", {"train.freeze_epochs": 1}),
    Trick("soup of the last 4 epochs", {"train.soup": 4}),
    Trick("LAMB at 1e-2, against AdamW", {"train.optimizer": "lamb", "train.learning_rate": 1e-2}),
    Trick(
        "ArcFace, 3 sub-centres, margins by class size",
        {"loss.metric": {"name": "arc_face", "centres_per_class": 3, "margin_power": 0.25}},
    ),
)
_DEFAULTS = Trick("defaults", {})
# Their labels are of the defaults' run of the same seed; another contract, because the competition's forbids them.
_PSEUDO = Trick("pseudo-labels, from 0.5 on", {"competition": "plain", "train.pseudo_confidence": 0.5})


def main() -> None:
    """Run what is not written down yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the table, the runs and runs.jsonl")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--pseudo", action="store_true", help="pseudo-labels too, which take three times as long")
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose name holds one of these texts")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "grocery")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"--data: {options.data} must be a competition's folder")
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    _ingest(options.data.resolve(), out / "table")
    tricks = (*TRICKS, _PSEUDO) if options.pseudo else TRICKS
    chosen = [_DEFAULTS, *(trick for trick in tricks if any(text in trick.name for text in options.only))]
    wanted = [(trick, seed, options.epochs, out) for seed in range(options.seeds) for trick in chosen]
    wanted.sort(key=lambda task: task[0] is _PSEUDO)  # the longest last
    done = _load(out, options.epochs)
    missing = [task for task in wanted if (task[0].name, task[1]) not in done]
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_settle) as pool:
        for line in pool.imap_unordered(_train, missing):
            with (out / "runs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{line['trick']}, seed {line['seed']}: {line['top_1_accuracy']:.3f}", file=sys.stderr, flush=True)
    print(f"command: python benchmarks/tricks.py {' '.join(sys.argv[1:])}")
    _print_table(_load(out, options.epochs), chosen, options.seeds)


def _ingest(source: Path, table: Path) -> None:
    from productrec.recipe import build_recipe
    from productrec.stages.ingest import run_ingest

    if not (table / "manifest.json").exists():
        data = build_recipe({"name": "ingest", "data": {"pack": True, "max_side_px": 160}}).data
        run_ingest(source, table, data=data, sample=None, replace=False)


def _settle() -> None:
    import cv2
    import torch

    os.nice(10)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _train(task: tuple[Trick, int, int, Path]) -> dict[str, Any]:
    from productrec.artifacts import load_manifest
    from productrec.console import silence
    from productrec.recipe import build_recipe, change_recipe
    from productrec.stages.train import run_train
    from productrec.training.run.run_folder import KIND, load_epochs

    trick, seed, epochs, out = task
    silence()
    fixed = {"seed": seed, "runs": str(out / "runs"), "data.table": str(out / "table")}
    fixed |= {"train.epochs": epochs, "train.validate_every": epochs}
    recipe = change_recipe(build_recipe(_BASE), fixed | trick.settings, trick.name)
    recipe = change_recipe(recipe, {"name": f"{os.getpid()}"}, trick.name)
    shutil.rmtree(recipe.run_folder, ignore_errors=True)
    if trick.name == _PSEUDO.name:
        recipe = change_recipe(recipe, {"train.pseudo_labels": str(_predict(recipe))}, trick.name)
    started = time.perf_counter()
    run_train(recipe)
    soup = load_manifest(recipe.run_folder, kind=KIND).notes.get("soup")  # kept or not
    last = soup or load_epochs(recipe.run_folder)[-1]
    seconds = time.perf_counter() - started
    shutil.rmtree(recipe.run_folder)
    said = {"trick": trick.name, "seed": seed, "epochs": epochs, "seconds": seconds}
    return said | {name: last[name] for name in _FIGURES}


def _predict(recipe: Recipe) -> Path:
    """Class probabilities of the test images by the defaults."""
    from productrec.pipeline.predict import predict_runs
    from productrec.pipeline.select import select_runs
    from productrec.recipe import change_recipe
    from productrec.stages.train import run_train

    first = change_recipe(recipe, {"name": f"{recipe.name}-first"}, "defaults")
    shutil.rmtree(first.run_folder, ignore_errors=True)
    run_train(first)
    return predict_runs(select_runs(first)).folder / "test"


def _load(out: Path, epochs: int) -> dict[tuple[str, int], dict[str, Any]]:
    path = out / "runs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    runs = [json.loads(line) for line in lines]
    return {(run["trick"], run["seed"]): run for run in runs if run["epochs"] == epochs}


def _print_table(runs: dict[tuple[str, int], dict[str, Any]], chosen: list[Trick], seeds: int) -> None:
    base = [runs[(_DEFAULTS.name, seed)] for seed in range(seeds)]
    said = ", ".join(f"{name} {100 * statistics.mean(run[name] for run in base):.1f} %" for name in _FIGURES)
    print(f"defaults: {said}; mean of {seeds} seeds\n")
    print("| trick | top-1, points | by seed | top-3 error | Recall@1 | time |")
    print("|---|---|---|---|---|---|")
    for trick in chosen[1:]:
        own = [runs[(trick.name, seed)] for seed in range(seeds)]
        pairs = list(zip(base, own, strict=True) if trick.is_default else zip(own, base, strict=True))
        gains = {name: [100 * (one[name] - other[name]) for one, other in pairs] for name in _FIGURES}
        means = {name: statistics.mean(values) for name, values in gains.items()}
        seconds = [statistics.median(run["seconds"] for run in group) for group in zip(*pairs, strict=True)]
        by_seed = ", ".join(f"{value:+.1f}" for value in gains["top_1_accuracy"])
        print(
            f"| {trick.name}{' (default)' if trick.is_default else ''} | {means['top_1_accuracy']:+.1f} | {by_seed} | "
            f"{means['top_3_error']:+.1f} | {means['recall@1']:+.1f} | {seconds[0] / seconds[1]:.2f} |"
        )


if __name__ == "__main__":
    main()
