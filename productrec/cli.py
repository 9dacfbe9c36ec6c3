"""The command line: parse, call a stage, print, map an error to its exit code.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once.
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from productrec import __version__, competitions_cli
from productrec.data.view_presets import PRESETS
from productrec.errors import ProductrecError, RecipeError
from productrec.recipe.data import DataSettings
from productrec.runtime import prepare_process

app = typer.Typer(
    name="productrec",
    help="Tell near-identical products apart: from a competition's files to a scored submission.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(competitions_cli.app, name="competitions")

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file; pipelines/ has some to run and copy.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="settings to change, for instance loss.metric=soft_triple"),
]

AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Import a loss from outside productrec (package.module:Name), which runs it."),
]


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if traceback:
        os.environ["PRODUCTREC_TRACEBACK"] = "1"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to play in.")] = Path("demo"),
    skus: Annotated[int, typer.Option(help="Products to draw.")] = 40,
    train_images: Annotated[int, typer.Option(help="Training images of a product, on average.")] = 24,
    val_images: Annotated[int, typer.Option(help="Validation images of a product.")] = 5,
    test_images: Annotated[int, typer.Option(help="Test images of a product.")] = 10,
    difficulty: Annotated[float, typer.Option(help="From 0, easy, to 1, hard.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Decides every drawing and every weight.")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the demo's recipe.")
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Draw a competition and play it to the end: a few minutes, nothing needed but this."""
    from productrec.demo.play import run_demo

    run_demo(
        out,
        skus=skus,
        train_images=train_images,
        val_images=val_images,
        test_images=test_images,
        difficulty=difficulty,
        seed=seed,
        overrides=overrides or [],
        allow_code=allow_code,
    )


def _describe(field: str, *names: str) -> Any:
    """An option for a field of `DataSettings`, with its meaning; left out, the setting keeps its default."""
    info = DataSettings.model_fields[field]
    default = info.get_default()
    shown = f"; default {default}" if default not in (None, False, 0) else ""
    return typer.Option(*names, help=f"data.{field}: {info.description}{shown}.", show_default=False)


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="Folder, zip or tar of the competition's files.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the table, for instance data.box_margin=0.2."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the image table; default data/NAME of the source.")
    ] = None,
    format: Annotated[str | None, _describe("format")] = None,
    images: Annotated[Path | None, _describe("images")] = None,
    id_column: Annotated[str | None, _describe("id_column")] = None,
    label_column: Annotated[str | None, _describe("label_column")] = None,
    file_column: Annotated[str | None, _describe("file_column")] = None,
    validation_fraction: Annotated[float | None, _describe("validation_fraction")] = None,
    hold_out: Annotated[str | None, _describe("hold_out")] = None,
    verify: Annotated[bool | None, _describe("verify")] = None,
    dedup: Annotated[str | None, _describe("dedup")] = None,
    folds: Annotated[int | None, _describe("folds")] = None,
    pack: Annotated[bool | None, _describe("pack")] = None,
    max_side_px: Annotated[int | None, _describe("max_side_px", "--max-side")] = None,
    findings: Annotated[Path | None, _describe("findings", "--apply")] = None,
    download: Annotated[bool | None, _describe("download")] = None,
    allow_private: Annotated[bool | None, _describe("allow_private")] = None,
    seed: Annotated[int | None, _describe("seed")] = None,
    sample: Annotated[
        str | None, typer.Option(help="Sample submission, by its name in the source or a path; none: none.")
    ] = None,
    competition: Annotated[
        str | None, typer.Option(help="Contract that the sample submission must fit; default plain, which adapts.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a table of another source.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what is understood, and write nothing.")] = False,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff",
            help="Say what changed from the table (--out) to SOURCE, which may be another table; write nothing. The "
            "exit code is 1 where something did.",
        ),
    ] = False,
) -> None:
    """Read a competition's files into an image table.

    Every setting of `productrec settings data.` may be given as KEY=VALUE; the usual ones are options as well.
    """
    from productrec.competitions.contract import load_contract
    from productrec.pipeline.select import build_data_settings
    from productrec.recipe import name_table

    options = {
        "format": format,
        "images": images,
        "id_column": id_column,
        "label_column": label_column,
        "file_column": file_column,
        "validation_fraction": validation_fraction,
        "hold_out": hold_out,
        "verify": verify,
        "dedup": dedup,
        "folds": folds,
        "pack": pack,
        "max_side_px": max_side_px,
        "findings": findings,
        "download": download,
        "allow_private": allow_private,
        "seed": seed,
    }
    data = build_data_settings({name: value for name, value in options.items() if value is not None}, overrides or [])
    folder = out or data.table or name_table(source)
    contract = load_contract(competition or "plain")
    must_fit = competition is not None
    if explain or diff:
        from productrec.stages import look as ingest_look

        if explain:
            ingest_look.explain_source(source, folder, data=data, contract=contract, sample=sample, must_fit=must_fit)
            return
        differences = ingest_look.compare_source(source, folder, data=data, contract=contract, sample=sample)
        ingest_look.report_differences(differences, folder, source)
        raise typer.Exit(0 if differences.is_empty else 1)
    from productrec.stages.ingest import report, run_ingest

    ingested = run_ingest(
        source,
        folder,
        data=data,
        contract=contract,
        sample=sample,
        replace=replace,
        must_fit=must_fit,
    )
    report(ingested)


@app.command()
def audit(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TABLE|RUN...", help="An image table, or runs (or a recipe) trained on one."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the findings; default the table's name.audit.")] = None,
    duplicates: Annotated[bool, typer.Option(help="Compare all pictures for near-duplicates.")] = True,
    mark: Annotated[
        str | None, typer.Option(help="Action the first suspects get beforehand: drop, relabel or weight.")
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="How many suspects get it.")] = 100,
    shown: Annotated[int, typer.Option(min=0, max=400, help="Suspects drawn on the sheet.")] = 24,
    replace: Annotated[bool, typer.Option("--replace", help="Write over findings that were edited.")] = False,
) -> None:
    """List suspected wrong labels and other oddities, as a table to edit and apply."""
    from productrec.pipeline.targets import audit_targets
    from productrec.stages.audit import report

    overrides = [text for text in targets if "=" in text and not Path(text).exists()]
    named = [Path(text) for text in targets if text not in overrides]
    report(
        audit_targets(
            named,
            overrides,
            out=out,
            duplicates=duplicates,
            mark=mark,
            first=first,
            shown=shown,
            replace=replace,
        )
    )


@app.command()
def preview(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Picture to write, .jpg or .png.")] = Path("preview.jpg"),
    images: Annotated[int, typer.Option(min=1, help="Training images shown.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Augmented squares of each.")] = 6,
) -> None:
    """Draw training images beside what augmentation makes of them."""
    from productrec.console import say
    from productrec.recipe import load_recipe
    from productrec.stages.preview import run_preview

    written = run_preview(load_recipe(recipe, overrides or []), out, images=images, epochs=epochs)
    say(f"preview: {written}")


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Stop each model after so long, with a usable checkpoint.")
    ] = None,
    nproc: Annotated[int, typer.Option(min=1, help="Processes that train together, one a GPU.")] = 1,
    max_restarts: Annotated[int, typer.Option(min=0, help="How often they start again after one has died.")] = 0,
    allow_code: AllowCode = False,
) -> None:
    """Train a recipe's model (or each of its members) on its image table."""
    from productrec.launch import STARTED
    from productrec.pipeline.select import check_overrides
    from productrec.recipe import load_recipe

    started = float(os.environ.get(STARTED, time.time()))  # set where several processes are launched
    loaded = load_recipe(recipe, overrides or [])
    check_overrides(overrides or [], command="train", run_folders=False)
    if nproc > 1:
        from productrec.launch import launch_ranks

        raise typer.Exit(launch_ranks(sys.argv[1:], nproc=nproc, max_restarts=max_restarts))
    from productrec.pipeline.play import train_recipe

    if max_minutes is not None:  # importing took some of it
        max_minutes -= (time.time() - started) / 60
    train_recipe(loaded, resume=resume, max_minutes=max_minutes, allow_code=allow_code)


@app.command()
def predict(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN|RECIPE... [KEY=VALUE]...", help="Run folders, or a recipe.")
    ],
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over several views: the recipe's, or zoom where it has none.")
    ] = False,
    views: Annotated[str | None, typer.Option(help=f"Average over these: {', '.join(PRESETS)}.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the runs in their ensemble, as 2,1,1.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Classify the photos in this folder instead, into the CSV --out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the ensemble of several runs; with --images, the CSV.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --images: write over a CSV that is there.")] = False,
    nproc: Annotated[int, typer.Option(min=1, help="Processes that embed together, one a GPU.")] = 1,
) -> None:
    """Give every test image class probabilities: embed, retrieve, vote, fuse, ensemble.

    With --images the photos of a folder get a line each in a CSV instead; that needs nothing but the run.
    """
    if images is None and replace:
        raise typer.BadParameter("goes with --images", param_hint="--replace")
    if images is not None and out is None:
        raise typer.BadParameter("name the CSV with --out", param_hint="--images")
    if images is not None and nproc > 1:
        raise typer.BadParameter("must be 1 with --images", param_hint="--nproc")
    if nproc > 1:
        from productrec.launch import launch_ranks

        raise typer.Exit(launch_ranks(sys.argv[1:], nproc=nproc))
    from productrec.pipeline.predict import embed_together, predict_runs
    from productrec.pipeline.score_table import print_scores
    from productrec.pipeline.select import load_runs

    overrides = [text for text in runs if "=" in text and not Path(text).exists()]
    targets = [Path(text) for text in runs if text not in overrides]
    if images is not None and out is not None:
        from productrec.stages.photos import report, run_photos

        selected = load_runs(targets, overrides, views=views, some_views=tta, command="photos")
        weighted = selected.weigh(_parse_weights(weights))
        report(run_photos(selected.runs, images, out, weights=weighted, replace=replace))
        return
    selected = load_runs(targets, overrides, out=out, views=views, some_views=tta)
    if embed_together(selected):
        print_scores(predict_runs(selected, weights=_parse_weights(weights)))


@app.command()
def evaluate(
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
) -> None:
    """Recall@K, MAP@R and other exact figures of embeddings, with intervals."""
    from dataclasses import asdict

    from productrec.artifacts import write_json
    from productrec.data.table import SPLITS
    from productrec.data.view_presets import get_views
    from productrec.pipeline.targets import evaluate_target
    from productrec.stages.evaluate import PROTOCOLS, Wanted, report

    if protocol != "auto" and protocol not in PROTOCOLS:
        raise typer.BadParameter(f"must be auto, {', '.join(PROTOCOLS)}; got {protocol!r}", param_hint="--protocol")
    if split is not None and split not in SPLITS:
        raise typer.BadParameter(f"must be {', '.join(SPLITS)}; got {split!r}", param_hint="--split")
    if views is not None:
        get_views(views)
    wanted = Wanted(_parse_numbers(k), _parse_numbers(map_k), bootstrap, clustering)
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


@app.command()
def ensemble(
    members: Annotated[list[Path], typer.Argument(metavar="RUN|PREDICTIONS...", help="Runs or their predictions.")],
    out: Annotated[Path, typer.Option(help="Folder of the ensemble.")],
    weights: Annotated[str | None, typer.Option(help="One a member, as 2,1,1.")] = None,
) -> None:
    """Blend predictions that are there already."""
    from productrec.pipeline.predict import ensemble_predictions
    from productrec.pipeline.score_table import print_scores

    print_scores(ensemble_predictions(members, out, weights=_parse_weights(weights)))


@app.command()
def submit(
    source: Annotated[Path, typer.Argument(metavar="RUN|PROBABILITIES|RECIPE", help="What to submit.")],
    competition: Annotated[str | None, typer.Option(help="Contract: a bundled name or a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write; default submissions/NAME.csv.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Sample submission to agree with; default the source's; none: none.")
    ] = None,
) -> None:
    """Write the CSV that a competition accepts, checked against its sample submission."""
    from productrec.pipeline.targets import submit_target

    submit_target(source, competition=competition, out=out, sample=sample)


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    replace_table: Annotated[
        bool, typer.Option("--replace-table", help="Ingest a source that has changed again, over its image table.")
    ] = False,
    allow_code: AllowCode = False,
) -> None:
    """Play a recipe from the source folder to the CSV; what is finished and unchanged is skipped."""
    from productrec.pipeline.play import run_recipe
    from productrec.recipe import load_recipe

    run_recipe(load_recipe(recipe, overrides or []), replace_table=replace_table, allow_code=allow_code)


@app.command()
def sweep(
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


@app.command()
def settings(
    contains: Annotated[
        str, typer.Argument(help="Show only keys that hold this text, or settings of the loss of this name.")
    ] = "",
) -> None:
    """List every setting of a recipe with its default and meaning."""
    from productrec.console import print_table
    from productrec.recipe import list_settings, suggest_key

    rows = [
        (info.key, info.default, info.meaning)
        for info in list_settings()
        if contains in info.key or info.meaning.startswith(f"{contains}:")
    ]
    if not rows:
        raise RecipeError(f"settings: no key holds {contains!r}. {suggest_key(contains)}")
    print_table("settings of a recipe", ("key", "default", "meaning"), rows, wrap_last=True)


@app.command()
def centres(
    run: Annotated[Path, typer.Argument(help="Run folder, after predict.")],
    distance: Annotated[float, typer.Option(help="Centres of a class this near to each other become one.")] = 0.2,
) -> None:
    """Merge the learned centres of a run that came together; accuracy by centres before and after."""
    from productrec.stages.centres import report, run_centres

    report(run_centres(run, distance=distance))


@app.command()
def losses(
    plot: Annotated[Path | None, typer.Option(help="Draw how each pair loss weighs a pair, as PNG or SVG.")] = None,
) -> None:
    """List the metric losses: what each computes for an anchor, its settings with their defaults, its source."""
    from productrec.console import print_table, say
    from productrec.losses.catalogue import describe_losses

    if plot is not None:
        from productrec.plots import draw_weight_curves

        draw_weight_curves(plot)
        say(f"weight curves: {plot}")
        return

    from productrec.losses.catalogue import list_similarities

    weighed = {name: "" if views is None else ", ".join(views) or "none" for name, views in list_similarities().items()}
    rows = [
        (loss.name, weighed[loss.name], "; ".join(filter(None, (loss.formula, loss.settings, loss.source))))
        for loss in describe_losses()
    ]
    title = "metric losses (p: an anchor's positives, n: its negatives)"
    print_table(title, ("loss.metric", "pairs weighed by", ""), rows, wrap_last=True)
    say("pairs weighed by: which similarities move a pair's weight (General Pair Weighting, Wang et al., CVPR 2019)")


@app.command()
def doctor() -> None:
    """Look at the machine: what works, what does not, and what to do about it."""
    from productrec.console import print_table
    from productrec.stages.doctor import run_doctor

    findings = run_doctor(Path.cwd())
    rows = [
        (finding.what, finding.state, f"{finding.seen}. {finding.mend}".rstrip(". ") + ("." if finding.mend else ""))
        for finding in findings
    ]
    print_table("doctor", ("", "state", "seen"), rows, wrap_last=True)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends the process with the exit code of what happened."""
    prepare_process()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _refuse_tta_values(given)
        app(args=given, prog_name="productrec")
    except ProductrecError as error:
        if os.environ.get("PRODUCTREC_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _refuse_tta_values(arguments: list[str]) -> None:
    """Say what ``--tta=flip`` is now; the parser itself would only say that the option takes no value."""
    for argument in arguments:
        if argument.startswith("--tta="):
            raise RecipeError(
                f"--tta: takes no value; got {argument}. Write --views {argument.removeprefix('--tta=')}."
            )


def _parse_weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"must be numbers with commas between them, as 2,1,1; got {text!r}") from None


def _parse_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"must be whole numbers with commas between them, as 1,10,100; got {text!r}") from None
