"""Commands that look or show: the demo, settings, losses, and the machine."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import tell_next
from productrec.cli.options import AllowCode, Jobs
from productrec.errors import RecipeError


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
    jobs: Jobs = None,
    allow_code: AllowCode = False,
) -> None:
    """Draw a competition and play it to the end: a few minutes, nothing needed but this."""
    from productrec.demo.play import run_demo

    played = run_demo(
        out,
        skus=skus,
        train_images=train_images,
        val_images=val_images,
        test_images=test_images,
        difficulty=difficulty,
        seed=seed,
        overrides=overrides or [],
        jobs=jobs,
        allow_code=allow_code,
    )
    tell_next("demo", run=played.runs[0], photo=played.photo)


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
    tell_next("settings")


def losses(
    plot: Annotated[Path | None, typer.Option(help="Draw how each pair loss weighs a pair, as PNG or SVG.")] = None,
) -> None:
    """List the metric losses: what each computes for an anchor, its settings with their defaults, its source."""
    from productrec.console import print_table, say
    from productrec.losses.catalogue import describe_losses

    if plot is not None:
        from productrec.plots.figure import check_format, save
        from productrec.plots.weights import draw_weight_curves

        check_format(plot)
        save(draw_weight_curves(), plot)
        say(f"weight curves: {plot}")
        tell_next("losses, drawn")
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
    tell_next("losses")


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
    tell_next("doctor")


COMMANDS = (demo, settings, losses, doctor)
