"""Declared by file: choices of one kind, a file each, by the files' names; what a choice imports is all that is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from productrec.settings.choices import Choice

Declared = TypeVar("Declared", bound=Choice)


class Description(NamedTuple):
    """A choice as a list shows it."""

    name: str
    formula: str
    settings: str
    source: str


def list_declared(packages: Sequence[ModuleType], kind: type[Declared], *, what: str) -> dict[str, type[Declared]]:
    """Every choice of a kind, by its file's name: package after package, each in the order of names.

    Args:
        packages: whose modules declare one each.
        kind: that all of them derive from.
        what: the kind in words, for an error.

    Raises:
        TypeError: a module declares none, or several.
    """
    found: dict[str, type[Declared]] = {}
    for package in packages:
        for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
            module = importlib.import_module(f"{package.__name__}.{name}")
            declared = [
                value
                for value in vars(module).values()
                if isinstance(value, type) and issubclass(value, kind) and value.__module__ == module.__name__
            ]
            if len(declared) != 1:
                raise TypeError(f"{module.__name__}: must declare one {what}; got {len(declared)}")
            found[name] = declared[0]
    return found


def describe_declared(declared: Mapping[str, type[Any]]) -> list[Description]:
    """Choices that have a ``formula`` and a ``source``, with their settings and these's defaults."""
    described = []
    for name, choice in declared.items():
        settings = ", ".join(f"{field} {info.default}" for field, info in choice.model_fields.items())
        described.append(Description(name, choice.formula, settings, choice.source))
    return described
