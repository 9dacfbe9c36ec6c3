"""A choice: one of several things that a recipe names, each with settings of its own.

In a recipe it is its name (``circle``), or a mapping of the name and what differs from its defaults
(``{name: circle, margin: 0.3}``); ``loss.metric.margin=0.3`` on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError, model_serializer

from productrec.errors import RecipeError
from productrec.settings.fields import Settings
from productrec.settings.text import NAME, describe_problem, suggest_name


class Choice(Settings):
    """One of several; made with settings that do not suit it raises a `RecipeError`."""

    is_choice = True

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            known = tuple(type(self).model_fields)
            problems = " ".join(describe_problem(problem, known) for problem in error.errors())
            raise RecipeError(f"{self.get_name()}: {problems}") from None

    @classmethod
    def get_name(cls) -> str:
        """What a recipe calls it: the name of its file."""
        return cls.__module__.rpartition(".")[2]

    @model_serializer(mode="wrap")
    def _dump(self, handler: Any) -> dict[str, Any]:
        return {NAME: self.get_name(), **handler(self)}


Chosen = TypeVar("Chosen", bound=Choice)


def check_name(name: str, known: Iterable[str]) -> str:
    """The name, where it is a known one.

    Raises:
        ValueError: it is none; the message lists those there are, and the nearest.
    """
    names = list(known)
    if name not in names:
        near = suggest_name(str(name), names, cutoff=0.6)
        hint = f" Did you mean {near}?" if near else ""
        raise ValueError(f"must be one of {', '.join(names)}; got {name!r}.{hint}")
    return name


def read_choice(
    value: Any, find: Callable[[str], type[Chosen] | None], known: Iterable[str], *, default: str
) -> Chosen:
    """The choice that stands in a recipe.

    Args:
        value: a name, a mapping with a ``name``, or a choice already.
        find: the choice of a name, None where there is none.
        known: names, for the message.
        default: name of a mapping without one.

    Raises:
        ValueError: it is none of these; the message says what is.
    """
    if isinstance(value, Choice):
        return value  # type: ignore[return-value]
    settings = dict(value) if isinstance(value, Mapping) else {NAME: value}
    name = settings.pop(NAME, default)
    choice = find(name) if isinstance(name, str) else None
    if choice is None:
        check_name(str(name), known)
        raise ValueError(f"must be named by text; got {name!r}.")
    try:
        return choice(**settings)
    except RecipeError as error:
        raise ValueError(str(error)) from None
    except TypeError:
        raise ValueError(f"settings of {name} must have names; got {settings!r}.") from None
