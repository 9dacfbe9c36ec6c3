"""What several commands take: arguments, options, and how their texts are read."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.data.view_presets import PRESETS

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file; pipelines/ has some to run and copy.")]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="settings to change, for instance loss.metric=soft_triple"),
]


Views = Annotated[
    str | None, typer.Option(help=f"Average over these: {', '.join(PRESETS)}, or a YAML file of your own.")
]


AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Import a loss from outside productrec (package.module:Name), which runs it."),
]


IndexFolder = Annotated[
    Path | None,
    typer.Option(help="Of an exported file: index folder, RUN/index/VIEWS; default that of the run it lies in."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="Members that train at once, each in a process of its own with its share of the cores; default: on a CPU "
        "as many as there are cores, elsewhere 1.",
        show_default=False,
    ),
]


def parse_weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"must be numbers with commas between them, as 2,1,1; got {text!r}") from None


def parse_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"must be whole numbers with commas between them, as 1,10,100; got {text!r}") from None


def split_overrides(texts: list[str]) -> tuple[list[Path], list[str]]:
    """Targets, and the ``KEY=VALUE`` among them: what holds ``=`` and is no file."""
    overrides = [text for text in texts if "=" in text and not Path(text).exists()]
    return [Path(text) for text in texts if text not in overrides], overrides
