"""The command ``weights``: list the pretrained weights at hand, and put some into a folder to be carried elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import tell_next

app = typer.Typer(
    help="List the pretrained weights that are at hand without a network, or fetch some into a folder.",
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
)


@app.callback()
def list_all(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of fetched weights to list as well: a recipe's model.weights_folder.")
    ] = None,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from productrec.stages.weights import list_weights, report

    report(list_weights(folder))
    tell_next("weights", missing="resnet50")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="The backbone, as timm and model.backbone name it.")],
    to: Annotated[Path, typer.Option(help="Folder for NAME.safetensors; made if it is not there.")],
) -> None:
    """Put a backbone's pretrained weights into a folder, for a machine that reaches no network."""
    from productrec.console import say
    from productrec.stages.weights import fetch_weights

    file = fetch_weights(name, to)
    size = f"{file.stat().st_size / 1e6:.0f} MB"
    say(f"weights {file} written ({size}): carry {to} along, and give model.weights_folder={to}")
    tell_next("weights fetch", folder=to)
