"""Commands on image tables: ingest, audit, preview."""

from pathlib import Path
from typing import Annotated, Any

import typer

from productrec.cli.next_steps import repeat, tell_next
from productrec.cli.options import Overrides, RecipePath, split_overrides
from productrec.recipe.data import DataSettings


def _describe(field: str, *names: str) -> Any:
    """An option for a field of `DataSettings`, with its meaning; left out, the setting keeps its default."""
    info = DataSettings.model_fields[field]
    default = info.get_default()
    shown = f"; default {default}" if default not in (None, False, 0) else ""
    return typer.Option(*names, help=f"data.{field}: {info.description}{shown}.", show_default=False)


def ingest(
    context: typer.Context,
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
            tell_next("ingest, explained", command=repeat(context, without=["--explain"]))
            return
        differences = ingest_look.compare_source(source, folder, data=data, contract=contract, sample=sample)
        ingest_look.report_differences(differences, folder, source)
        if not differences.is_empty and not (source / "images.parquet").is_file():
            tell_next("ingest, changed", command=repeat(context, "--replace", without=["--diff"]))
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
    tell_next("ingest", table=folder)


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
    html: Annotated[
        bool, typer.Option("--html", help="Write audit.html too, a page to mark findings in and download their CSV.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over findings that were edited.")] = False,
) -> None:
    """List suspected wrong labels and other oddities, as a table to edit and apply."""
    from productrec.pipeline.targets import audit_targets, list_ingest_command
    from productrec.stages.audit import CSV_NAME, report

    named, overrides = split_overrides(targets)
    audited = audit_targets(
        named,
        overrides,
        out=out,
        duplicates=duplicates,
        mark=mark,
        first=first,
        shown=shown,
        html=html,
        replace=replace,
    )
    report(audited)
    command, findings = list_ingest_command(audited.table), audited.folder / CSV_NAME
    if audited.counts and audited.page is not None:
        tell_next("audit, with a page", page=audited.page, command=[*command, "--apply", CSV_NAME])
    elif audited.counts:
        tell_next("audit", findings=findings, command=[*command, "--apply", findings])
    else:
        tell_next("audit, nothing found", command=[*command, "--diff"])


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
    tell_next("preview", command=["productrec", "train", recipe, *(overrides or [])])


COMMANDS = (ingest, audit, preview)
