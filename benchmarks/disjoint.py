"""How well each metric loss separates classes that it has never seen.

Classes are parted in halves: grocery's within each coarse class, Omniglot's by alphabets. A method trains on one half;
then every image of the other half asks all the others of it. Seeds part the classes anew.

The screen (the default) trains a recipe's neck on cached features of a pretrained network with every metric loss at its
defaults, two losses of pytorch-metric-learning, cross-entropy, and without labels; learning rates are chosen on classes
held out of the half that is trained on. --finetune trains whole networks as `productrec train` does, with equal
budgets, and keeps the last checkpoint: nothing is ever chosen by unseen classes.

Each row is written into WORK/rows.jsonl as soon as it is measured: the same command goes on where it was stopped.
Omniglot's drawings, tables, features and runs lie in WORK too; a run's folder is removed once its row is written.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from sections.arguments import parse_count
from sections.cached_features import load_features
from sections.figures import describe_machine
from sections.fine_tune import (
    UNLABELLED,
    FineTuning,
    build_fine_tuning,
    check_methods,
    describe_method,
    embed_fine_tuned,
    list_fine_tuned,
    save_drawing_pipeline,
    write_source,
)
from sections.halves import Halves, Pictures, halve, load_grocery, load_omniglot
from sections.kept_rows import KeptRows, Row, Task, describe_rows
from sections.screen import UNTRAINED, Budget, embed_trained, embed_untrained, list_methods
from sections.unseen_figures import measure_unseen

from productrec.artifacts import compute_digest
from productrec.console import silence
from productrec.errors import TrainingError
from productrec.runtime import keep_freed_memory

_ROOT = Path(__file__).resolve().parents[1]
_BACKBONE = "tf_efficientnet_lite0"
_SIDES_PX = {"grocery": 224, "omniglot": 112}  # of the screen: about the pictures' own
_BESIDE = "multi_similarity"
_QUICK_GROUPS = 6

Measure = Callable[[Task, Halves], tuple[dict[str, float], str]]


def main() -> None:
    """Measure what is not written down yet, then print the tables."""
    options = _parse_arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory(torch.device("cpu"))
    options.work.mkdir(parents=True, exist_ok=True)
    rows = KeptRows(options.work / "rows.jsonl")
    if options.table:
        print(describe_rows(rows.load().values(), beside=_BESIDE))
        return
    wanted: list[Task] = []
    for dataset in options.datasets:
        tasks = list(_list_tasks(dataset, options))
        wanted += tasks
        done = rows.load()
        missing = [task for task in tasks if task.key not in done]
        if missing:
            _measure_missing(dataset, missing, rows, options)
    print(f"command: python benchmarks/disjoint.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; {options.threads} threads\n")
    done = rows.load()
    print(describe_rows([done[task.key] for task in wanted], beside=_BESIDE))


def _list_tasks(dataset: str, options: argparse.Namespace) -> Iterator[Task]:
    """Seed by seed, so that a stopped run has whole seeds."""
    if options.finetune:
        kind, methods, side_px = "fine-tuned", options.finetune, options.side
        budget = asdict(_get_fine_tuning(options))
    else:
        kind, methods = "screen", [*UNTRAINED, *list_methods()]
        side_px = options.side or _SIDES_PX[dataset]
        budget = asdict(_get_budget(options)) | {"backbone": _BACKBONE, "side_px": side_px, "views": options.views}
    budget = {name: list(value) if isinstance(value, tuple) else value for name, value in budget.items()}
    if options.quick:
        budget["groups"] = _QUICK_GROUPS
    for seed in range(options.seeds):
        for fold in range(options.folds):
            for method in methods:
                if any(text in method for text in options.only.split(",")):
                    yield Task(kind, dataset, method, seed, fold, budget)


def _measure_missing(dataset: str, missing: list[Task], rows: KeptRows, options: argparse.Namespace) -> None:
    pictures = _load_pictures(dataset, options)
    measure = _prepare_fine_tuning(pictures, options) if options.finetune else _prepare_screen(pictures, options)
    for task in missing:
        started = time.perf_counter()
        try:
            figures, note = measure(task, halve(pictures, task.seed, task.fold))
        except TrainingError as error:  # a result too, unlike a stop or a full disk
            figures, note = {}, f"fails: {error}"
        row = Row(task, figures, round(time.perf_counter() - started, 1), note)
        rows.add(row)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        where = f"{task.kind}, {dataset}, seed {task.seed}, fold {task.fold}, {task.method}"
        print(f"{where}: {shown}{' ' if shown and note else ''}{note} ({row.seconds} s)", file=sys.stderr, flush=True)


def _prepare_screen(pictures: Pictures, options: argparse.Namespace) -> Measure:
    features = load_features(
        pictures,
        options.work / "features",
        backbone=_BACKBONE,
        side_px=options.side or _SIDES_PX[pictures.name],
        views=options.views,
        augmentation=_get_augmentation(pictures, options.work) or "product",
    )
    methods, budget = list_methods(), _get_budget(options)

    def measure(task: Task, halves: Halves) -> tuple[dict[str, float], str]:
        unseen = pictures.labels[halves.test]
        if task.method in UNTRAINED:
            return measure_unseen(embed_untrained(task.method, features[0], halves), unseen), ""
        method = methods[task.method]
        embeddings, rate = embed_trained(method, features, pictures.labels, halves, budget, task.seed)
        return measure_unseen(embeddings, unseen), f"rate {rate:g}"

    return measure


def _prepare_fine_tuning(pictures: Pictures, options: argparse.Namespace) -> Measure:
    work: Path = options.work.resolve()
    budget = _get_fine_tuning(options)
    augmentation = _get_augmentation(pictures, work)

    def measure(task: Task, halves: Halves) -> tuple[dict[str, float], str]:
        if task.method in UNTRAINED:
            sized = load_features(
                pictures,
                work / "features",
                backbone=_BACKBONE,
                side_px=budget.side_px,
                views=1,
                augmentation="none",
            )
            embeddings = embed_untrained(task.method, sized[0], halves)
            return measure_unseen(embeddings, pictures.labels[halves.test]), "not trained"
        kept = "images" if task.method == UNLABELLED else "classes"
        state = f"{pictures.name}-{compute_digest(pictures.paths)[:8]}-{task.seed}-{task.fold}-{kept}"
        source = work / "sources" / state
        write_source(source, pictures, halves, is_labelled=task.method != UNLABELLED)
        fixed: dict[str, Any] = {
            "name": f"{task.method}-{compute_digest(task.key)[:12]}",
            "seed": task.seed,
            "runs": work / "runs",
            "data.source": source,
            "data.images": pictures.root.resolve(),
            "data.table": work / "tables" / state,
        }
        recipe = build_fine_tuning(task.method, budget, fixed=fixed, augmentation=augmentation)
        figures = measure_unseen(*embed_fine_tuned(recipe))
        if not options.keep_runs:
            shutil.rmtree(recipe.run_folder)
        return figures, describe_method(task.method, budget)

    return measure


def _load_pictures(dataset: str, options: argparse.Namespace) -> Pictures:
    if dataset == "grocery":
        pictures = load_grocery(options.data / "grocery")
    else:
        pictures = load_omniglot(options.data / "omniglot_background.zip", options.work / "omniglot")
    return pictures.take_groups(_QUICK_GROUPS) if options.quick else pictures


def _get_augmentation(pictures: Pictures, work: Path) -> str | None:
    """A pipeline's file for drawings, which must not be mirrored or cut; None for photographs."""
    if pictures.name == "grocery":
        return None
    return str(save_drawing_pipeline(work / "drawings.yaml"))


def _get_budget(options: argparse.Namespace) -> Budget:
    return Budget(options.steps, options.batch, options.rates)


def _get_fine_tuning(options: argparse.Namespace) -> FineTuning:
    settings = tuple(sorted(options.set))
    return FineTuning(_BACKBONE, options.epochs, options.side, options.batch, options.rate, settings)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of rows.jsonl and of all that is made on the way")
    parser.add_argument("--datasets", type=_split, default=["grocery", "omniglot"], help="grocery, omniglot or both")
    parser.add_argument("--seeds", type=parse_count, default=3, help="ways to part the classes, and weights (3)")
    parser.add_argument("--folds", type=int, choices=(1, 2), default=1, help="2: train on each half in turn (1)")
    parser.add_argument("--only", default="", help="methods whose name holds this text, or one of several: a,b")
    parser.add_argument("--threads", type=parse_count, default=1, help="torch's threads (1)")
    parser.add_argument("--batch", type=parse_count, default=64, help="images a step (64)")
    parser.add_argument("--side", type=parse_count, help="side in pixels (fine-tuned: 128; else 224, drawings 112)")
    parser.add_argument("--steps", type=parse_count, default=300, help="screen: steps of each training (300)")
    parser.add_argument("--views", type=parse_count, default=3, help="screen: cached views of an image (3)")
    parser.add_argument(
        "--rates", type=_parse_rates, default=(1e-4, 3e-4, 1e-3, 3e-3), help="screen: learning rates to choose from"
    )
    parser.add_argument(
        "--finetune",
        type=_split,
        metavar="METHOD,...",
        help=f"train whole networks: {', '.join([*UNTRAINED, *list_fine_tuned()])}",
    )
    parser.add_argument("--epochs", type=parse_count, default=20, help="fine-tuning: passes over the images (20)")
    parser.add_argument("--rate", type=float, default=1e-4, help="fine-tuning: the backbone's learning rate (0.0001)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="fine-tuning: any setting")
    parser.add_argument("--keep-runs", action="store_true", help="fine-tuning: leave the run folders")
    parser.add_argument("--table", action="store_true", help="print the tables of all rows there are, and end")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few classes, steps and pixels, one seed")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data", help="where the data sets lie")
    options = parser.parse_args()
    wrong = set(options.datasets) - set(_SIDES_PX)
    if wrong:
        parser.error(f"--datasets: must be some of {', '.join(_SIDES_PX)}; got {', '.join(sorted(wrong))}")
    problem = check_methods(options.finetune or [], [*UNTRAINED, *list_fine_tuned()])
    if problem:
        parser.error(f"--finetune: {problem}")
    if options.quick:
        options.seeds, options.steps, options.views, options.rates = 1, 20, 2, (1e-3, 3e-3)
        options.side, options.epochs, options.batch = 64, 1, 16
        silence()
    elif options.finetune and options.side is None:
        options.side = 128
    return options


def _split(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _parse_rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        rates = ()
    if not rates or min(rates) <= 0:
        raise argparse.ArgumentTypeError(f"must be numbers above 0 with commas between; got {text!r}")
    return rates


if __name__ == "__main__":
    main()
