"""Commands on predictions: predict, query, and ensemble, which makes one of several."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from productrec.cli.next_steps import tell_next
from productrec.cli.options import (
    IndexFolder,
    Views,
    parse_weights,
    split_overrides,
)


def predict(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN|RECIPE... [KEY=VALUE]...", help="Run folders, or a recipe.")
    ],
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over several views: the recipe's, or zoom where it has none.")
    ] = False,
    views: Views = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the runs in their ensemble, as 2,1,1.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Classify the photos in this folder instead, into the CSV --out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the ensemble of several runs; with --images, the CSV.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(help="With --images: sample submission; the CSV is a submission with its ids in its order."),
    ] = None,
    competition: Annotated[
        str | None,
        typer.Option(help="With --sample: contract, a bundled name or a YAML file.", show_default="the run's"),
    ] = None,
    fill_missing: Annotated[
        bool,
        typer.Option("--fill-missing", help="With --sample: ids without an image get the share of each class."),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="With --images: write over a CSV that is there.")] = False,
    nproc: Annotated[int, typer.Option(min=1, help="Processes that embed together, one a GPU.")] = 1,
) -> None:
    """Give every test image class probabilities: embed, retrieve, vote, fuse, ensemble.

    Where the competition asks for matches, test images get the ids of those of the same product instead.

    With --images the photos of a folder get a line each in a CSV instead; that needs nothing but the run. With --sample
    beside it that CSV is a submission. Exported files and bundles answer for photos too.
    """
    for given, name, other, beside in (
        (replace, "--replace", images, "--images"),
        (sample is not None, "--sample", images, "--images"),
        (competition is not None, "--competition", sample, "--sample"),
        (fill_missing, "--fill-missing", sample, "--sample"),
    ):
        if given and other is None:
            raise typer.BadParameter(f"goes with {beside}", param_hint=name)
    if images is not None and out is None:
        raise typer.BadParameter("name the CSV with --out", param_hint="--images")
    if images is not None and nproc > 1:
        raise typer.BadParameter("must be 1 with --images", param_hint="--nproc")
    if nproc > 1:
        from productrec.launch import launch_ranks

        raise typer.Exit(launch_ranks(sys.argv[1:], nproc=nproc))
    targets, overrides = split_overrides(runs)
    if images is not None and out is not None:
        from productrec.pipeline.photos import classify_photos

        contract = classify_photos(
            targets,
            overrides,
            images,
            out,
            views=views,
            some_views=tta,
            weights=parse_weights(weights),
            sample=sample,
            competition=competition,
            fill_missing=fill_missing,
            replace=replace,
        )
        if sample is None:
            tell_next("predict, photos", run=_find_model(targets[0]))
        else:
            tell_next("predict, sample", csv=out, sample=sample, competition=contract)
        return
    from productrec.pipeline.answers import answer_runs
    from productrec.pipeline.predict import embed_together
    from productrec.pipeline.select import load_runs

    selected = load_runs(targets, overrides, out=out, views=views, some_views=tta)
    if embed_together(selected):
        answers = answer_runs(selected, weights=parse_weights(weights))
        step = "predict" if answers.folder is not None else "predict, nothing to submit"
        if not answers.has_classes:
            step = "predict, titles alone"
        tell_next(step, run=selected.folder if answers.folder is not None else next(iter(selected.runs)))


def _find_model(target: Path) -> Path:
    """The run of one model that answers for photos: what is named, or its first member."""
    if target.suffix in (".yaml", ".yml"):
        from productrec.recipe import load_recipe

        target = load_recipe(target).run_folder
    members = sorted(path.parent for path in target.glob("*/recipe.yaml"))
    return members[0] if members else target


def query(
    run: Annotated[Path, typer.Argument(metavar="RUN|FILE.onnx", help="Run folder, or exported file.")],
    photos: Annotated[
        list[str] | None, typer.Argument(metavar="PHOTO|FOLDER... [KEY=VALUE]...", help="Photos, or folders of photos.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="Search by words instead, of a run with a text tower; may be repeated."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="images|titles", help="Whether words find images; photos and words can find titles."),
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="The part of each photo that shows the product: x,y,width,height in pixels.")
    ] = None,
    nearest: Annotated[int, typer.Option(min=0, help="How many near products to name.")] = 3,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Say `unknown` where the photo is doubtful, as of a product never seen.")
    ] = False,
    views: Views = None,
    index: IndexFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a photo.")] = False,
    strip: Annotated[
        Path | None, typer.Option(help="Write a picture (JPEG or PNG): each photo beside its nearest products.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a strip that is there.")] = False,
) -> None:
    """Ask a run about photos: the class with its confidence, whether it is a known product, and the nearest ones.

    A file that `productrec export` wrote is asked the same way, and needs no torch.

    A photo is doubtful where products that were hidden from the run for a test would be taken for known ones more than
    once in a hundred times at such a score.

    A run that was trained with titles (model.text.tower) is searched by words with --text, and its titles with --to
    titles, by photos and by words.
    """
    files, overrides = split_overrides(photos or [])
    if text or to is not None:
        given = {"--box": box, "--unknown": unknown, "--views": views, "--index": index, "--strip": strip}
        for name, value in (given | {"--replace": replace}).items():
            if value:
                raise typer.BadParameter("goes without --text and --to", param_hint=name)
        _search(run, files, overrides, text or [], to, as_json=as_json, nearest=nearest)
        if not as_json:
            tell_next("search", run=run)
        return
    if not files:
        raise typer.BadParameter("name photos, or words with --text", param_hint="PHOTO")
    from productrec.pipeline.asked import prepare_asked
    from productrec.stages.query import run_query

    run_query(
        lambda: prepare_asked(run, overrides, views=views, index=index),
        files,
        box=box,
        nearest=nearest,
        doubts=unknown,
        as_json=as_json,
        strip=strip,
        replace=replace,
    )
    if not as_json:
        tell_next("query", run=run)


def _search(
    run: Path,
    photos: list[Path],
    overrides: list[str],
    words: list[str],
    to: str | None,
    *,
    as_json: bool,
    nearest: int,
) -> None:
    """Search by words, or for titles."""
    target: Literal["images", "titles"] = "titles" if to == "titles" else "images"
    if to not in ("images", "titles", None):
        raise typer.BadParameter(f"must be images or titles; got {to!r}", param_hint="--to")
    if photos and target == "images":
        raise typer.BadParameter("photos go without --text and --to, or with --to titles", param_hint="--to")
    if not photos and not words:
        raise typer.BadParameter("name photos, or words with --text", param_hint="PHOTO")
    from productrec.pipeline.asked import prepare_search
    from productrec.stages.search import run_search

    run_search(
        lambda: prepare_search(run, overrides, to=target),
        words=words,
        photos=photos,
        nearest=nearest,
        as_json=as_json,
    )


def ensemble(
    members: Annotated[list[Path], typer.Argument(metavar="RUN|PREDICTIONS...", help="Runs or their predictions.")],
    out: Annotated[Path, typer.Option(help="Folder of the ensemble.")],
    weights: Annotated[str | None, typer.Option(help="One a member, as 2,1,1; none is fitted then.")] = None,
    blend: Annotated[
        str | None, typer.Option(metavar="WAY", help="As predict.blend; default the first member's.")
    ] = None,
    joint: Annotated[
        str | None,
        typer.Option(
            metavar="concat|product",
            help="Put the runs' embeddings into one space instead: concatenated, or by the product of similarities.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Blend predictions that are there already; with --joint, answer by several runs' embeddings together."""
    if joint is not None:
        if joint not in ("concat", "product"):
            raise typer.BadParameter(f"must be concat or product; got {joint!r}", param_hint="--joint")
        if blend is not None:
            raise typer.BadParameter("goes without --blend", param_hint="--joint")
        from productrec.pipeline.joint import join_runs

        join_runs(members, out, rule=joint, weights=parse_weights(weights))  # type: ignore[arg-type]
        tell_next("ensemble", run=out)
        return
    from typing import get_args

    from productrec.pipeline.predict import ensemble_predictions
    from productrec.pipeline.score_table import print_scores
    from productrec.recipe.predict import BlendWay

    if blend is not None and blend not in get_args(BlendWay):
        raise typer.BadParameter(f"must be {', '.join(get_args(BlendWay))}; got {blend!r}", param_hint="--blend")
    predicted = ensemble_predictions(members, out, how=blend, weights=parse_weights(weights))
    print_scores(predicted)
    if predicted.test_images:
        tell_next("ensemble", run=out)
    else:
        named = [path for path in (members[0], *members[0].parents) if (path / "recipe.yaml").is_file()]
        tell_next("predict, nothing to submit", run=_find_model(named[0]))


COMMANDS = (predict, query, ensemble)
