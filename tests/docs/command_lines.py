"""Commands of productrec in a page's blocks and backticks, and what is wrong with them."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer.main

from productrec.cli.main import app
from productrec.errors import ProductrecError
from productrec.recipe import build_recipe, list_settings
from productrec.recipe.loss import CHOICES
from productrec.settings.text import merge, parse_override
from tests.docs.pages import Page, Part

_APP = typer.main.get_command(app)
_SETTING = re.compile(r"[a-z][a-z_]*(\.[\w-]+)*=")
_BEFORE = {"uv", "run", "nice", "time", "!productrec"}  # words that may stand before the command
_ENDS = {"&&", "||", ";", "|", ">", ">>", "&", "2>", "<"}
_OVERRIDES = "overrides"


def list_commands() -> list[str]:
    """The commands, and groups of commands, that ``productrec --help`` lists."""
    return list(_APP.commands)


def check_commands(page: Page) -> list[str]:
    """Commands in a page's blocks that would be refused before they do anything."""
    faults = []
    for block in page.blocks:
        if block.kind in ("", "bash", "sh", "console", "shell"):
            for line, words in split_commands(block):
                if fault := find_fault(words):
                    faults.append(page.tell(Part(line, ""), f"productrec {' '.join(words)}: {fault}"))
    return faults


def check_named_commands(page: Page) -> list[str]:
    """Commands in backticks whose name or options are none; their arguments may be words for something else."""
    faults = []
    for literal in page.literals:
        if literal.text.startswith("productrec ") and not literal.text.startswith("productrec ["):
            words = literal.text.replace("[", " ").replace("]", " ").split()[1:]
            if fault := find_unknown_name(words):
                faults.append(page.tell(literal, f"{literal.text}: {fault}"))
    return faults


def split_commands(block: Part) -> Iterator[tuple[int, list[str]]]:
    """The words behind each ``productrec`` that a block's lines call, with the line."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    for number, text in enumerate(joined.splitlines()):
        if "productrec" not in text:
            continue
        line = text.strip().removeprefix("$ ").removeprefix("!")
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quote that is not closed: prose or output, or a command that cannot run either
            words = line.split()
        for command in _split_at_ends(words):
            called = _find_called(command)
            if called:
                yield block.line + 1 + number, command[called:]


def find_fault(words: list[str]) -> str | None:
    """What the command line would say of the words behind ``productrec``; None where it would begin to work."""
    fault = find_unknown_name(words)
    if fault or not words or words[0].startswith(("-", "$")):
        return fault
    command, rest = _find_command(words)
    try:
        context = command.make_context("productrec", list(rest))
    except Exception as error:
        return str(error.format_message() if hasattr(error, "format_message") else error)
    given = context.params.get(_OVERRIDES) or []
    texts = [text for text in [*given, *(context.params.get("targets") or [])] if _SETTING.match(str(text))]
    return find_wrong_setting([str(text) for text in texts])


def find_unknown_name(words: list[str]) -> str | None:
    """A command, or an option, that is none."""
    if not words or words[0].startswith(("-", "$")):  # an option of all commands; what a script was given
        return None
    command, rest = _find_command(words)
    if command is None:
        return f"no command {words[0]}"
    if getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        return f"no command {' '.join(words[: words.index(rest[0]) + 1])}"
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    for word in rest:
        name = re.split(r"[=,.;]", word, maxsplit=1)[0]
        if name.startswith("--") and len(name) > 2 and name not in {*known, "--help"}:
            return f"no option {name}"
    return None


def find_wrong_setting(texts: list[str]) -> str | None:
    """What a recipe says of ``KEY=VALUE``, together."""
    known = {info.key for info in list_settings()}
    raw: dict[str, Any] = {"name": "drawn"}
    try:
        for text in texts:
            key = text.partition("=")[0]
            if key not in known and not key.startswith("members"):
                return f"no setting {key}"
            raw = merge(raw, parse_override(text), choices=CHOICES)
        build_recipe(raw)
    except ProductrecError as error:
        return str(error)
    return None


def _find_command(words: list[str]) -> tuple[Any, list[str]]:
    command, rest = _APP, list(words)
    while getattr(command, "commands", None) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return (None, rest) if command is _APP else (command, rest)


def _split_at_ends(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in words:
        if word in _ENDS:
            yield command
            command = []
        else:
            command.append(word)
    yield command


def _find_called(words: list[str]) -> int:
    """Where the words behind ``productrec`` begin; 0 where it is not what is called."""
    for place, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name == "productrec":
            before = words[:place]
            runs_image = before[:2] == ["docker", "run"]
            runs_module = bool(before) and before[-1] == "-m"
            is_first = all(item in _BEFORE or "=" in item or item.endswith("/uv") for item in before)
            return place + 1 if runs_image or runs_module or is_first else 0
    return 0
