"""Commands on runs: train, sweep, run, which plays all of a recipe, evaluate and centres."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import repeat, tell_next
from productrec.cli.options import (
    AllowCode,
    Jobs,
    Overrides,
    RecipePath,
    parse_numbers,
)
from productrec.cli.submissions import tell_submitted


def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Stop each model after so long, with a usable checkpoint.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=0, help="Train once a fold, each left out in turn; needs a table with folds.")
    ] = 0,
    seeds: Annotated[int, typer.Option(min=0, help="Train once a seed, from the recipe's own on.")] = 0,
    only: Annotated[str | None, typer.Option(help="With --folds or --seeds: the numbers to train now, as 0,2.")] = None,
    jobs: Jobs = None,
    nproc: Annotated[int, typer.Option(min=1, help="Processes that train together, one a GPU.")] = 1,
    max_restarts: Annotated[int, typer.Option(min=0, help="How often they start again after one has died.")] = 0,
    allow_code: AllowCode = False,
) -> None:
    """Train a recipe's model (or each of its members) on its image table.

    With --folds K or --seeds N it is trained K or N times; --only trains some of them here and others elsewhere. Where
    all folds are finished, each training image is predicted by the run that did not see it, and how head, neighbours
    and prototypes become one answer is fitted on that.
    """
    if folds and seeds:
        raise typer.BadParameter("goes without --folds", param_hint="--seeds")
    if only is not None and not folds and not seeds:
        raise typer.BadParameter("goes with --folds or --seeds", param_hint="--only")
    if nproc > 1 and jobs is not None and jobs > 1:
        raise typer.BadParameter(
            "must be 1 with --nproc, whose processes train one model together", param_hint="--jobs"
        )
    from productrec.launch import STARTED
    from productrec.pipeline.select import check_overrides
    from productrec.recipe import load_recipe

    started = float(os.environ.get(STARTED, time.time()))  # set where several processes are launched
    loaded = load_recipe(recipe, overrides or [])
    check_overrides(overrides or [], command="train", run_folders=False)
    if nproc > 1:
        from productrec.launch import launch_ranks

        raise typer.Exit(launch_ranks(sys.argv[1:], nproc=nproc, max_restarts=max_restarts))
    from productrec.artifacts import MANIFEST_NAME
    from productrec.pipeline.play import train_recipe
    from productrec.training.ranks.group import is_first_process
    from productrec.training.run.endings import Ending

    if max_minutes is not None:  # importing took some of it
        max_minutes -= (time.time() - started) / 60
    if folds or seeds:
        from productrec.pipeline.spread import train_spread

        numbers = None if only is None else parse_numbers(only)
        spread = train_spread(
            loaded,
            folds=folds,
            seeds=seeds,
            only=numbers,
            resume=resume,
            max_minutes=max_minutes,
            jobs=jobs,
            allow_code=allow_code,
        )
        folder, names = spread.run_folder, list(spread.resolve_members())
        is_done, diverged = all((folder / name / MANIFEST_NAME).exists() for name in names), False
        spreading = ["--folds", folds] if folds else ["--seeds", seeds]
    else:
        trained = train_recipe(loaded, resume=resume, max_minutes=max_minutes, jobs=jobs, allow_code=allow_code)
        folder, spreading = loaded.run_folder, []
        is_done = all(one.ending is not Ending.OUT_OF_TIME for one in trained)
        diverged = any(one.warning for one in trained)
    if diverged or not is_first_process():  # a training that diverged ends with what to change
        return
    if is_done:
        tell_next("train", run=folder)
        return
    code = ["--allow-code"] if allow_code else []
    same = ["productrec", "train", recipe, *(overrides or []), *spreading, *code]
    tell_next("train, not finished", command=[*same, "--resume"])


def sweep(
    context: typer.Context,
    recipe: RecipePath,
    space: Annotated[Path, typer.Argument(metavar="SPACE", help="YAML file of the settings to search.")],
    overrides: Overrides = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all; default 20, or no end where there are --minutes.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with a trial of its own.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep; default runs/NAME.sweep.")] = None,
    allow_code: AllowCode = False,
) -> None:
    """Search settings of a recipe: train it with many, give up hopeless ones early, write the best as best.yaml.

    SPACE holds a line a setting: a list of values, or a range.

    \b
    loss.metric: [soft_triple, multi_similarity]
    train.learning_rate: {low: 1e-4, high: 1e-2, log: true}
    train.images_per_class: {low: 4, high: 16, step: 4}

    Trials are compared by train.keep_best_by on the validation images. Weights of a trial that has ended and is not
    the best are deleted; its metrics.jsonl and recipe.yaml stay. The same command goes on with a sweep that was
    stopped; several commands on one folder work together.
    """
    from productrec.recipe import load_recipe
    from productrec.sweep.search import report, run_sweep

    loaded = load_recipe(recipe, overrides or [])
    swept = run_sweep(loaded, space, trials=trials, minutes=minutes, workers=workers, out=out, allow_code=allow_code)
    report(swept, loaded.train.keep_best_by)
    if swept.best is None or any(row.state == "stopped" for row in swept.rows):
        tell_next("sweep, none finished", command=repeat(context))
    else:
        tell_next("sweep", recipe=swept.folder / "best.yaml")


def evaluate(
    context: typer.Context,
    target: Annotated[
        Path, typer.Argument(metavar="RUN|EMBEDDINGS", help="Run, recipe, embedding set, or .npz of arrays.")
    ],
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="Whose images ask: train, val or test.", show_default="val")] = None,
    views: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET", help="Views of the images, as `predict --views` has them.", show_default="plain"
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="Who asks whom: auto, self (each all others), roles, or gallery.")
    ] = "auto",
    k: Annotated[str, typer.Option(help="K of Recall@K.")] = "1,2,4,8,10,100,1000",
    map_k: Annotated[str, typer.Option(help="K of MAP@K; large ones take time.")] = "10",
    bootstrap: Annotated[int, typer.Option(min=0, help="Draws for the intervals; 0 for none.")] = 1000,
    clustering: Annotated[bool, typer.Option(help="NMI and AMI with k-means.")] = True,
    labels: Annotated[Path | None, typer.Option(help=".npy of labels, beside one of embeddings.")] = None,
    json: Annotated[Path | None, typer.Option(help="File to write the figures to.")] = None,
    titles: Annotated[
        bool, typer.Option("--titles", help="Whether images and titles find each other, of a run with a text tower.")
    ] = False,
) -> None:
    """Recall@K, MAP@R and other exact figures of embeddings, with intervals."""
    from dataclasses import asdict

    from productrec.artifacts import write_json
    from productrec.assembly.evaluation import PROTOCOLS, Wanted
    from productrec.data.table import SPLITS
    from productrec.pipeline.targets import evaluate_target
    from productrec.stages.evaluate import report

    if protocol != "auto" and protocol not in PROTOCOLS:
        raise typer.BadParameter(f"must be auto, {', '.join(PROTOCOLS)}; got {protocol!r}", param_hint="--protocol")
    if split is not None and split not in SPLITS:
        raise typer.BadParameter(f"must be {', '.join(SPLITS)}; got {split!r}", param_hint="--split")
    if titles:
        from productrec.pipeline.titles import evaluate_titles
        from productrec.stages.evaluate_titles import report_titles

        found = evaluate_titles(target, overrides or [], split=split or "val", draws=bootstrap)
        for name, figures in found.items():
            report_titles(figures, f"{name}, {split or 'val'}")
        if json is not None:
            write_json(json, {name: asdict(figures) for name, figures in found.items()})
        tell_next("evaluate, titles", run=target)
        return
    wanted = Wanted(parse_numbers(k), parse_numbers(map_k), bootstrap, clustering)
    evaluations = evaluate_target(
        target,
        overrides or [],
        split=split,
        views=views,
        protocol=protocol,  # type: ignore[arg-type]
        wanted=wanted,
        labels=labels,
    )
    for name, evaluation in evaluations.items():
        report(evaluation, name)
    if json is not None:
        write_json(json, {name: asdict(evaluation) for name, evaluation in evaluations.items()})
        return
    if target.suffix in (".npz", ".npy"):
        tell_next("evaluate, arrays", command=repeat(context, "--json", str(target.with_suffix(".figures.json"))))
        return
    asked = target.resolve().parents[2] if (target / "embeddings.npy").is_file() else target
    tell_next("evaluate", run=asked)


def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    replace_table: Annotated[
        bool, typer.Option("--replace-table", help="Ingest a source that has changed again, over its image table.")
    ] = False,
    jobs: Jobs = None,
    allow_code: AllowCode = False,
) -> None:
    """Play a recipe from the source folder to the CSV; what is finished and unchanged is skipped."""
    from productrec.pipeline.play import run_recipe
    from productrec.pipeline.select import select_runs
    from productrec.pipeline.titles import has_classes
    from productrec.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    written = run_recipe(loaded, replace_table=replace_table, jobs=jobs, allow_code=allow_code)
    if written is None:
        folder, own = next(iter(select_runs(loaded).runs.items()))
        tell_next("predict, nothing to submit" if has_classes(folder, own) else "predict, titles alone", run=folder)
    else:
        tell_submitted(written.path, loaded.competition)


def centres(
    run: Annotated[Path, typer.Argument(help="Run folder, after predict.")],
    distance: Annotated[float, typer.Option(help="Centres of a class this near to each other become one.")] = 0.2,
) -> None:
    """Merge the learned centres of a run that came together; accuracy by centres before and after."""
    from productrec.stages.centres import report, run_centres

    report(run_centres(run, distance=distance))
    tell_next("centres", run=run)


COMMANDS = (train, sweep, run, evaluate, centres)
