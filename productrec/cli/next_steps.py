"""What to do next, said once where a command ends: a table of sentences, each with a command that runs as it stands."""

import shlex
import sys
from collections.abc import Sequence

import typer

from productrec.console import say

# By command, and by how it ended where that makes a difference. In braces: what `tell_next` is given, quoted as for a
# shell.
NEXT_STEPS = {
    "ingest": "`productrec audit {table}` lists labels that may be wrong, before a recipe is trained on this table",
    "ingest, explained": "`{command}` writes the image table",
    "ingest, changed": "`{command}` takes the changes in",
    "audit": "write drop, relabel, weight or merge into the column action of {findings}; `{command}` then applies it",
    "audit, with a page": (
        "open {page} in a browser, mark what is wrong, and download the CSV; `{command}` then applies it, with the "
        "path of what was downloaded"
    ),
    "audit, nothing found": "`{command}` tells when the source has changed",
    "preview": "`{command}` trains on such images",
    "plan": "`{command}` trains it",
    "train": "`productrec predict {run}` fits how it answers on validation images, and answers the test images",
    "train, not finished": "`{command}` goes on",
    "sweep": "`productrec run {recipe}` plays the best recipe to the end",
    "sweep, none finished": "`{command}` goes on",
    "predict": "`productrec submit {run}` writes the CSV",
    "predict, nothing to submit": "`productrec serve {run}` answers for new photos over HTTP",
    "predict, titles alone": "`productrec query {run} --text WORDS` finds images by words",
    "predict, photos": "`productrec serve {run}` answers for photos over HTTP",
    "predict, sample": "hand {csv} in; `productrec submit --check {csv} --sample {sample} --competition {competition}` "
    "looks it over once more",
    "query": "`productrec serve {run}` answers for photos over HTTP",
    "search": "`productrec evaluate {run} --titles` says how well images and titles find each other",
    "ensemble": "`productrec submit {run}` writes the CSV",
    "submit": "hand {csv} in; `productrec submit --history {ledger}` lists what was written and its validation scores",
    "submit, to upload": "`{command}` says whether it could be sent; without --dry-run it is",
    "submit, checked": "`{command}` says whether it could be sent; without --dry-run it is",
    "submit, dry run": "`{command}` sends it",
    "submit, sent": "`productrec submit --history {ledger}` lists all that were sent, and draws validation against it",
    "submit, waiting": "`productrec submit --history {ledger} --refresh` asks again for the score",
    "submit, history": "`productrec submit --history {ledger} --refresh` asks for the scores that are missing",
    "serve": "`curl {address}/health` asks whether it is well, from another terminal",
    "export": "`productrec serve {file}` answers for photos from this file alone",
    "export, to torch": "`productrec export {run} --to onnx` writes a file that productrec itself asks and serves too",
    "bundle": "take it along; `python {bundle}/run.py --help` says what it takes there",
    "run": "`{command}` shows what it can do with one photo",
    "demo": "`productrec query {run} {photo}` asks it about one photo",
    "report, of an ensemble": "`productrec submit {run}` writes the CSV",
    "compare": "`productrec report {run}` shows its mistakes beside their nearest products",
    "evaluate": "`productrec audit {run}` lists labels that it doubts",
    "evaluate, titles": "`productrec query {run} --text WORDS` finds images by words",
    "evaluate, arrays": "`{command}` keeps these figures in a file",
    "report": "`productrec audit {run} --html` lets you mark the labels that it doubts, in a page of their own",
    "centres": "`productrec evaluate {run}` says how well its embeddings find products, with intervals",
    "index show": "`productrec index compact {run}` folds what was grown and removed, where it is much",
    "index": "`productrec index show {run}` tells what it holds now",
    "settings": "`productrec losses` lists what loss.metric may be",
    "losses": "`productrec losses --plot losses.svg` draws how each weighs a pair",
    "losses, drawn": "`productrec settings loss` lists what a recipe may say of them",
    "competitions": "`productrec competitions show {first}` explains one",
    "competitions show": "`productrec settings competition` says where a recipe names it",
    "competitions new": "mend {contract} where the rules differ; `productrec competitions show {contract}` explains it",
    "weights": "`productrec weights fetch {missing} --to weights` gets another one, on a machine with a network",
    "weights fetch": "`productrec weights --folder {folder}` lists what is in there",
    "doctor": "`productrec demo` draws a competition and plays it to the end",
}

# Their standard output is the result, which may go into a file or another program: nothing more is said then.
RESULTS = {
    "ingest, changed",
    "query",
    "search",
    "submit, checked",
    "index show",
    "settings",
    "losses",
    "competitions",
    "competitions show",
    "weights",
    "doctor",
}


def tell_next(step: str, **values: object) -> None:
    """Say what to do next; a command calls it once, last.

    Args:
        step: key of `NEXT_STEPS`.
        values: what its sentence names; a list is a command of several words.
    """
    if step in RESULTS and not sys.stdout.isatty():
        return
    quoted = {
        name: shlex.join(map(str, value)) if isinstance(value, list) else shlex.quote(str(value))
        for name, value in values.items()
    }
    say(f"Next: {NEXT_STEPS[step].format(**quoted)}.")


def repeat(context: typer.Context, *more: str, without: Sequence[str] = ()) -> list[str]:
    """The command line that was given, with ``more`` at its end, and ``without`` some options that take no value."""
    given = [word for word in context.find_root().obj if word not in ("--traceback", *without)]
    return ["productrec", *given, *more]
