"""What may stand for a setting, in words, from its type: ``whole number, at least 1``."""

from __future__ import annotations

import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_PLAIN: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def describe_kind(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """The values that a type takes, in words.

    Args:
        annotation: the type, as a field of settings or a command's option declares it.
        constraints: that stand beside it, with bounds as ``ge``, ``gt``, ``le`` and ``lt``.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        beside = [part for mark in arguments[1:] for part in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        return describe_kind(arguments[0], [*beside, *constraints])
    if origin is Literal:
        names = ", ".join(value if str(value).isidentifier() else repr(value) for value in arguments)
        return names if len(arguments) == 1 else f"one of {names}"
    if origin in (Union, types.UnionType):
        kinds = [describe_kind(part, constraints) for part in arguments if part is not type(None)]
        return " or ".join([*kinds, "null"] if type(None) in arguments else kinds)
    if origin in (tuple, list):
        return f"list of: {describe_kind(arguments[0])}"
    if origin is dict:
        return "mapping"
    return ", ".join([_PLAIN.get(annotation, "one of several, by name"), *_describe_bounds(constraints)])


def _describe_bounds(constraints: Iterable[Any]) -> list[str]:
    bounds = [(words, getattr(mark, name, None)) for mark in constraints for name, words in _BOUNDS.items()]
    return [f"{words} {_round(bound)}" for words, bound in bounds if bound is not None]


def _round(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:.4g}"
