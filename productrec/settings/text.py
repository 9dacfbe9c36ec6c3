"""Settings as people write them: YAML, ``KEY=VALUE``, and what is said of a key or a value that does not suit.

One reader for recipes, contracts and sweep spaces alike.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from productrec.errors import ProductrecError, RecipeError

_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_SEE = "See pipelines/ for recipes to run and copy."
NAME = "name"  # the key that says which of several a choice is


class _Reader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last, and takes ``1e-3`` for a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Reader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_settings(
    path: Path, *, kind: str = "recipe", see: str = _SEE, error: type[ProductrecError] = RecipeError
) -> dict[str, Any]:
    """Settings by name, as they stand in a YAML file.

    Args:
        path: of the file.
        kind: what it is, for the messages.
        see: where examples are, for the messages.
        error: what is raised.

    Raises:
        ProductrecError: of the kind ``error``: no such file, not YAML, a key twice, or no settings by name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: no such {kind}. {see}") from None
    except UnicodeDecodeError:
        raise error(f"{path}: cannot be read (not UTF-8 text). Name a YAML file.") from None
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror or reason}). Name a YAML file.") from None
    return parse_settings(text, where=str(path), see=see, error=error)


def parse_settings(
    text: str, *, where: str, see: str = _SEE, error: type[ProductrecError] = RecipeError
) -> dict[str, Any]:
    """Settings by name, of YAML text; arguments and errors as for `read_settings`, ``where`` for the messages."""
    try:
        raw = yaml.load(text, _Reader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as reason:  # ValueError: an impossible date
        raise error(f"{where}: is not valid YAML: {' '.join(str(reason).split())}") from None
    if not isinstance(raw, dict):
        raise error(f"{where}: must hold settings by name; got {type(raw).__name__}. {see}")
    return raw


def parse_override(text: str) -> dict[str, Any]:
    """``KEY=VALUE`` of the command line as nested settings; the value is YAML, or text where it is none.

    Raises:
        RecipeError: no key, or no ``=``.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"override {text!r}: must be key=value, for instance train.epochs=10.")
    try:
        parsed: Any = yaml.load(value, _Reader) if value.strip() else None
    except (yaml.YAMLError, ValueError):
        parsed = value
    return nest(key.strip(), parsed)


def nest(key: str, value: Any) -> dict[str, Any]:
    """Nested settings of one dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; an empty mapping stays as a value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def merge(
    base: Mapping[str, Any], changes: Mapping[str, Any], *, choices: Collection[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """Settings with changes on top, section by section.

    Args:
        base: nested settings.
        changes: nested settings that win.
        choices: dotted keys of settings that are one of several, by ``name``: another name drops the settings of the
            one before, and a plain text is a name.
        prefix: of the keys, for ``choices``.
    """
    merged = dict(base)
    for key, value in changes.items():
        below, full = merged.get(key), f"{prefix}{key}"
        if full in choices and isinstance(value, Mapping):
            if isinstance(below, str):
                below = {NAME: below}
            if isinstance(below, Mapping) and value.get(NAME, below.get(NAME)) != below.get(NAME):
                below = None
        if isinstance(value, Mapping) and value and isinstance(below, Mapping):
            merged[key] = merge(below, value, choices=choices, prefix=f"{full}.")
        else:
            merged[key] = value  # an empty mapping empties: members={}
    return merged


def suggest_name(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The known name nearest to one that is not known; None where none is near."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def suggest_key(key: str, known: Collection[str]) -> str | None:
    """The dotted key, or the section, nearest to a key that does not exist; None where none is near."""
    sections = {name.rpartition(".")[0] for name in known if "." in name}
    last = key.rpartition(".")[2]
    elsewhere = [name for name in known if name.rpartition(".")[2] == last]  # the right name in the wrong section
    near = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(key, [*known, *sections], n=1, cutoff=0.6)
    if not near:
        by_last = {name.rpartition(".")[2]: name for name in known}
        near = [by_last[match] for match in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)]
    return near[0] if near else None


def describe_problem(problem: Any, known: Collection[str] = ()) -> str:
    """One problem that pydantic found, in a sentence.

    Args:
        problem: an entry of ``ValidationError.errors()``.
        known: keys that there are, to suggest one for an unknown key.
    """
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = suggest_key(key, known)
        return f"unknown key {key!r}." + (f" Did you mean {near!r}?" if near else "")
    if problem["type"] == "missing":
        return f"{key!r} must be given."
    if problem["type"] == "tuple_type":
        return f"{key}: must be a list, such as [{problem['input']}]; got {problem['input']!r}."
    message = problem["msg"].removeprefix("Value error, ")
    if not key or message.startswith(f"{key}."):
        return message if message.endswith((".", "?")) else f"{message}."
    if problem["type"] == "value_error" and message.endswith((".", "?")):  # it has said what it got
        return f"{key}: {message}"
    return f"{key}: {message[:1].lower()}{message[1:]}; got {problem['input']!r}."
