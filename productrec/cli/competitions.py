"""The command ``competitions``: list contracts, explain one, write one from a sample submission."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import tell_next

app = typer.Typer(
    help="List the competitions' contracts, explain one, or write one from a sample submission.",
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
)


@app.callback()
def list_all(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from productrec.competitions.contract import list_contracts, load_contract
    from productrec.console import print_table

    rows = [(name, load_contract(name).title) for name in list_contracts()]
    print_table("contracts (a recipe's competition, or a YAML file of your own)", ("", ""), rows, wrap_last=True)
    tell_next("competitions", first=rows[0][0])


@app.command()
def show(name: Annotated[str, typer.Argument(help="A contract's name, or the path of its YAML file.")]) -> None:
    """Explain a contract in plain words."""
    from productrec.competitions.contract import load_contract
    from productrec.competitions.explain import explain_contract

    print("\n".join(explain_contract(load_contract(name))))
    tell_next("competitions show")


@app.command()
def new(
    sample: Annotated[Path, typer.Option("--from", help="The competition's sample submission.")],
    out: Annotated[Path | None, typer.Option(help="YAML file to write; default NAME.yaml.")] = None,
    name: Annotated[str | None, typer.Option(help="The contract's name; default that of the sample's folder.")] = None,
    labels: Annotated[int | None, typer.Option(min=1, help="Labels a row, where the sample does not tell.")] = None,
) -> None:
    """Write a contract from a sample submission, to be looked over and named as competition."""
    from productrec.artifacts import write_text
    from productrec.competitions.explain import explain_contract, format_contract
    from productrec.competitions.sample import build_contract, read_sample
    from productrec.console import say
    from productrec.errors import SubmissionError

    contract = build_contract(
        read_sample(sample), name=name or sample.absolute().parent.name or "mine", labels_per_image=labels
    )
    target = out or Path(f"{contract.name}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise SubmissionError(f"{target}: a contract's file must end in .yaml. Name one with --out.")
    if target.exists():
        raise SubmissionError(f"{target}: is there already and stays as it is. Name another file with --out.")
    head = (
        f"# Made from {sample.name}. Metric, label_as and trainable_splits are guesses: read the competition's rules.\n"
    )
    write_text(target, head + format_contract(contract))
    print("\n".join(explain_contract(contract)))
    say(f"contract {target} written; a recipe names it as `competition: {target}`, a command as --competition {target}")
    tell_next("competitions new", contract=target)
