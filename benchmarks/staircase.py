"""What each step after the embedding is worth, on images that no fit has seen: a winner's staircase, with intervals.

For each data set and seed a recipe is trained on all training images and once a fold; the classifier is fitted on
training images out of fold, for the competition's top-3 error, and answers for the images that are asked about:
grocery's validation images, the hidden labels of drawn competitions. No checkpoint is chosen by these. Omniglot's
classes are parted by alphabets: one half is trained on, and of the other, which training never saw, some drawings of
each class are the gallery.

What each run knows is kept in WORK/evidence, a small file a run: the same command goes on where it was stopped, and
--table fits and asks anew without training.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from sections.arguments import parse_count
from sections.figures import describe_machine
from sections.kept_evidence import collect, list_asked, load_evidence_file, save_evidence
from sections.stair_cases import CASES, Case, prepare_case
from sections.stair_steps import METRIC_K, Steps, climb, climb_reranked, climb_unseen

from productrec.metrics.wilson import compute_wilson_interval
from productrec.recipe import Recipe
from productrec.settings.text import flatten, parse_override

_ROOT = Path(__file__).resolve().parents[1]
_OMNIGLOT = "omniglot"
_SHOWN = (1, 5)  # drawings of each unseen class in the gallery
_DRAWS = 10_000


def main() -> None:
    """Train what is missing, then print the tables."""
    options = _parse_arguments()
    evidence = options.work / "evidence"
    if not options.table:
        _train_missing(options, evidence)
    print(f"command: python benchmarks/staircase.py {' '.join(sys.argv[1:])}")
    print(f"machine: {describe_machine()}\n")
    pairs: list[Steps] = []
    for name in options.cases:
        seeds = [steps for seed in range(options.seeds) if (steps := _climb(name, seed, options.folds, evidence))]
        pairs += [steps for several in seeds for steps in several.values() if name != _OMNIGLOT]
        for kind in seeds[0] if seeds else ():
            _print_case(f"{name}{kind}", [several[kind] for several in seeds])
    if pairs:
        _print_sum(pairs)
    if options.rerank:
        _print_reranked(options, evidence)


def _train_missing(options: argparse.Namespace, evidence: Path) -> None:
    changes = {"device": options.device, "train.workers": 0}
    for override in options.set:
        changes |= flatten(parse_override(override))
    missing = [
        (name, seed)
        for seed in range(options.seeds)
        for name in options.cases
        if any(not path.exists() for path in _list_files(name, seed, options.folds, evidence))
    ]
    spawn = get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawn, initializer=_begin_process) as pool:
        prepare = partial(_prepare, options.work, options.data, options.folds, changes)
        drawn = [task for task in missing if task[0] != _OMNIGLOT]
        cases = list(pool.map(prepare, drawn))
        waiting = []
        for case in cases:
            for run, recipe in case.list_runs(options.folds).items():
                path = evidence / case.key / f"{run}.npz"
                if not path.exists():
                    waiting.append(pool.submit(_learn, case, run, recipe, path))
        for name, seed in missing:
            if name == _OMNIGLOT:
                waiting.append(pool.submit(_learn_drawings, options.work, options.data, seed, changes, evidence))
        for number, done in enumerate(as_completed(waiting), 1):
            print(f"{number} of {len(waiting)}: {done.result()}", file=sys.stderr, flush=True)


def _begin_process() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from productrec.console import silence

    torch.set_num_threads(1)
    silence()


def _prepare(work: Path, data: Path, folds: int, changes: dict[str, Any], task: tuple[str, int]) -> Case:
    """A case with its image table."""
    from productrec.pipeline.play import ingest_recipe

    case = prepare_case(task[0], task[1], work, data=data, folds=folds, changes=changes)
    ingest_recipe(case.recipe)
    return case


def _learn(case: Case, name: str, recipe: Recipe, path: Path) -> str:
    """Train one run, keep what it knows, remove it."""
    from productrec.stages.embed import run_embed
    from productrec.stages.train import run_train

    begun = time.perf_counter()
    fold = recipe.train.fold
    run_train(recipe, resume=True)
    trained = time.perf_counter() - begun
    requests = [request for pair in list_asked(recipe, fold, case.asked).values() for request in pair]
    run_embed(recipe.run_folder, recipe, list(dict.fromkeys(requests)))
    save_evidence(path, collect(recipe.run_folder, recipe, fold, case.asked, case.hidden))
    shutil.rmtree(recipe.run_folder)
    return f"{case.key} {name}: {trained:.0f} s trained, {time.perf_counter() - begun:.0f} s in all"


def _learn_drawings(work: Path, data: Path, seed: int, changes: dict[str, Any], evidence: Path) -> str:
    """Train on half of Omniglot's alphabets and keep the embeddings of the other half."""
    from sections.fine_tune import (
        FineTuning,
        build_fine_tuning,
        embed_fine_tuned,
        save_drawing_pipeline,
        write_source,
    )
    from sections.halves import halve, load_omniglot

    begun = time.perf_counter()
    place = work / f"{_OMNIGLOT}-{seed}"
    pictures = load_omniglot(data / "omniglot_background.zip", place / "pictures")
    write_source(place / "source", pictures, halve(pictures, seed, 0), is_labelled=True)
    augmentation = save_drawing_pipeline(place / "drawings.yaml")
    fixed = {
        "name": "drawings",
        "seed": seed,
        "runs": place / "runs",
        "data.source": place / "source",
        "data.images": pictures.root.resolve(),
        "data.table": place / "table",
        "train.validate_every": 1000,
    }
    budget = FineTuning("tf_efficientnet_lite0", 6, 64, 64, 1e-4)
    recipe = build_fine_tuning("multi_similarity", budget, fixed=fixed | changes, augmentation=str(augmentation))
    embeddings, labels = embed_fine_tuned(recipe)
    (path,) = _list_files(_OMNIGLOT, seed, 0, evidence)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, embeddings=embeddings.astype(np.float16), labels=labels)
    return f"{_OMNIGLOT} {seed}: {time.perf_counter() - begun:.0f} s in all"


def _list_files(name: str, seed: int, folds: int, evidence: Path) -> list[Path]:
    if name == _OMNIGLOT:
        return [evidence / f"{_OMNIGLOT}-{seed}" / "unseen.npz"]
    key = Case(name, seed, Recipe(name="any"), "").key
    return [evidence / key / f"{run}.npz" for run in ("whole", *(f"fold-{fold}" for fold in range(folds)))]


def _climb(name: str, seed: int, folds: int, evidence: Path) -> dict[str, Steps] | None:
    """The steps of a data set and seed, by what else names them; None where a run is missing."""
    files = _list_files(name, seed, folds, evidence)
    if any(not path.exists() for path in files):
        return None
    if name == _OMNIGLOT:
        with np.load(files[0], allow_pickle=False) as arrays:
            embeddings = arrays["embeddings"].astype(np.float32)
            embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
            labels = arrays["labels"]
        return {
            f", {shown} shown of each unseen class": climb_unseen(embeddings, labels, shown=shown, seed=seed)
            for shown in _SHOWN
        }
    whole, *parts = [load_evidence_file(path) for path in files]
    return {"": climb(whole, parts)}


def _print_case(title: str, seeds: Sequence[Steps]) -> None:
    """A line a step: mean over seeds, and the 95 % interval over images of all of them."""
    print(f"**{title}** ({len(seeds)} seeds, {len(next(iter(seeds[0].ranks.values()))):,} images asked about)\n")
    print("| step | top-1 % | 95 % interval | by seed | top-3 error % |")
    print("|---|---|---|---|---|")
    for step in seeds[0].ranks:
        right = [steps.ranks[step] == 0 for steps in seeds]
        errors = np.mean([(steps.ranks[step] >= METRIC_K).mean() for steps in seeds])
        share = float(np.mean([one.mean() for one in right]))
        low, high = compute_wilson_interval(share, min(len(one) for one in right))
        by_seed = ", ".join(f"{100 * one.mean():.1f}" for one in right)
        print(f"| {step} | {100 * share:.1f} | {100 * low:.1f} to {100 * high:.1f} | {by_seed} | {100 * errors:.1f} |")
    for number, steps in enumerate(seeds):
        for views, told in steps.told.items():
            print(f"\nseed {number}, {views} views: {told}", end="")
    print("\n")


def _print_sum(pairs: Sequence[Steps]) -> None:
    """In how many pairs of data and seed the answer is below its best part, and what it gains over each."""
    generator = np.random.default_rng(0)
    for final in ("plain", "views"):
        below, beyond, over_head, over_nearest, over_best = 0, 0, [], [], []
        for steps in pairs:
            names = [name for name in steps.ranks if (":" in name) == (final == "views")]
            right = {name.rpartition(" ")[2]: steps.ranks[name] == 0 for name in names}
            answer = right.pop("fused")
            best = max(right.values(), key=lambda one: one.mean())
            difference = answer.astype(float) - best
            over_best.append(difference.mean())
            over_head.append((answer.astype(float) - (steps.ranks["head"] == 0)).mean())
            over_nearest.append((answer.astype(float) - (steps.ranks["nearest"] == 0)).mean())
            below += int(difference.mean() < 0)
            drawn = difference[generator.integers(0, len(difference), (_DRAWS // 10, len(difference)))].mean(axis=1)
            beyond += int((drawn < 0).mean() >= 0.95)
        gains = [f"{100 * np.mean(one):+.2f}" for one in (over_best, over_head, over_nearest)]
        print(
            f"{final}: the answer is below its best part in {below} of {len(pairs)} pairs of data and seed, "
            f"in {beyond} of them in at least 95 % of bootstraps; mean gain over the best part {gains[0]}, "
            f"over the plain head {gains[1]}, over the plain nearest neighbour {gains[2]} points."
        )


def _print_reranked(options: argparse.Namespace, evidence: Path) -> None:
    """What each re-ranking changes, fitted as the answer without it, over all pairs of data and seed, by views."""
    gains: dict[tuple[str, str], list[float]] = {}
    kept: dict[str, list[tuple[str, float]]] = {"plain": [], "views": []}
    for name in options.cases:
        for seed in range(options.seeds):
            files = [] if name == _OMNIGLOT else _list_files(name, seed, options.folds, evidence)
            if not files or any(not path.exists() for path in files):
                continue
            whole, *parts = [load_evidence_file(path) for path in files]
            for views in whole.views:
                found, where = climb_reranked(whole, parts, views), "plain" if views == "plain" else "views"
                before = (found.ranks["none"] == 0).mean()
                for method, ranks in found.ranks.items():
                    gains.setdefault((method, where), []).append(float((ranks == 0).mean() - before))
                kept[where].append((found.kept, gains[found.kept, where][-1]))
    print(
        "\n| re-ranking, always | top-1 gain, plain | better, worse of pairs | gain, views | better, worse of pairs |"
    )
    print("|---|---|---|---|---|")
    for method in dict.fromkeys(method for method, _ in gains):
        cells = []
        for where in ("plain", "views"):
            seen = np.array(gains[method, where])
            error = seen.std(ddof=1) / np.sqrt(len(seen))
            cells += [f"{100 * seen.mean():+.2f} ± {100 * error:.2f}", f"{(seen > 0).sum()}, {(seen < 0).sum()}"]
        print(f"| {method} | {' | '.join(cells)} |")
    for where, chosen in kept.items():
        taken = [(name, gain) for name, gain in chosen if name != "none"]
        told = ", ".join(f"{name} {100 * gain:+.1f}" for name, gain in taken) or "none"
        print(f"\n{where}: kept by the gate in {len(taken)} of {len(chosen)} pairs: {told}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*CASES, _OMNIGLOT]
    parser.add_argument("work", type=Path, help="folder of all that is made on the way")
    parser.add_argument(
        "--case", dest="cases", action="append", choices=known, help="data set, may be repeated; default: all"
    )
    parser.add_argument("--seeds", type=parse_count, default=3, help="of each data set (3)")
    parser.add_argument("--folds", type=parse_count, default=5, help="of the training images (5)")
    parser.add_argument("--jobs", type=parse_count, default=1, help="trainings at once, a thread each (1)")
    parser.add_argument("--device", default="cpu", help="as a recipe's device (cpu)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipes")
    parser.add_argument("--rerank", action="store_true", help="also fit with each re-ranking in turn: minutes")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data", help="where the data sets lie")
    options = parser.parse_args()
    options.cases = options.cases or known
    return options


if __name__ == "__main__":
    main()
