"""Every command with its arguments and options, from the application itself."""

import inspect
from collections.abc import Iterator
from typing import Any, get_type_hints

import typer.main

from productrec.cli.main import app
from productrec.settings.kinds import describe_kind
from productrec_docs.tables import escape, write_table


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words, as ``index grow``, in the order that ``--help`` lists them."""
    yield from _walk(typer.main.get_command(app), "")


def write_commands() -> list[str]:
    """A section a command: how it is called, what it does, its arguments and options."""
    lines: list[str] = []
    for name, command in walk_commands():
        if lists_commands(command):
            lines += [f"({name_anchor(name)})=", f"## `{name}`", "", escape(_tell(command)), ""]
            continue
        depth = "###" if " " in name else "##"
        lines += [f"({name_anchor(name)})=", f"{depth} `{name}`", ""]
        lines += ["```text", f"productrec {name} {write_usage(command)}".rstrip(), "```", ""]
        lines += [escape(_tell(command)), ""]
        rows = [_write_parameter(command, parameter) for parameter in command.params if not parameter.hidden]
        if rows:
            lines += write_table(("argument or option", "values", "default", "what it does"), rows)
    return lines


def lists_commands(command: Any) -> bool:
    """Whether it is a group of commands and none itself."""
    return bool(getattr(command, "commands", None))


def write_usage(command: Any) -> str:
    """Its arguments, in order, and a word for options where it has some."""
    words = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.metavar or parameter.name.upper()
            words.append(name if parameter.required or name.startswith("[") else f"[{name}]")
    if any(parameter.param_type_name == "option" for parameter in command.params):
        words.append("[OPTIONS]")
    return " ".join(words)


def name_anchor(name: str) -> str:
    """Where the reference tells of a command."""
    return f"command-{name.replace(' ', '-')}"


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if lists_commands(command):
            yield from _walk(command, f"{prefix}{name} ")


def _tell(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _write_parameter(command: Any, parameter: Any) -> tuple[str, str, str, str]:
    kinds = get_type_hints(inspect.unwrap(command.callback), include_extras=False)
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        name = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
    kind = describe_kind(kinds[parameter.name], _Bounds.of(parameter)).removesuffix(" or null")
    if getattr(parameter, "is_flag", False):
        kind = "flag"
    default = parameter.default() if callable(parameter.default) else parameter.default
    shown = "" if default in (None, False) or default == () else f"`{default}`"
    if isinstance(parameter.show_default, str):
        shown = escape(parameter.show_default)
    if parameter.required:
        shown = "**required**"
    return name, escape(kind), shown, escape((parameter.help or "").strip())


class _Bounds:
    """What an option's number may be, in the words of a type's constraints."""

    def __init__(self, least: float | None, most: float | None) -> None:
        self.ge, self.le = least, most

    @classmethod
    def of(cls, parameter: Any) -> list["_Bounds"]:
        return [cls(getattr(parameter, "min", None), getattr(parameter, "max", None))]
