"""The space of a sweep: which values each searched setting may take, read from YAML and checked against the recipe."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

from productrec.errors import RecipeError
from productrec.recipe import Recipe, change_recipe, find_settings
from productrec.settings.fields import Settings
from productrec.settings.text import read_settings

_RANGE_KEYS = ("low", "high", "log", "step")
_COMBINATIONS = 50  # drawn before a value counts as refused
_SEE = "See `productrec sweep --help`."


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]

    def draw(self, source: random.Random) -> Any:
        """Any value."""
        return source.choice(self.values)

    @property
    def checked(self) -> tuple[Any, ...]:
        """Values that the recipe is asked about beforehand."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included.

    ``step``: between two values, None for every number; ``log``: drawn evenly on a logarithmic scale; ``whole``: whole
    numbers alone.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    def draw(self, source: random.Random) -> Any:
        """Any value."""
        if self.step is not None:
            steps = source.randint(0, int((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step))))
            value = self.low + steps * self.step
        elif self.log:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        return round(value) if self.whole else value

    @property
    def checked(self) -> tuple[Any, ...]:
        """Values that the recipe is asked about beforehand."""
        return (self.low, self.high)


Spec = Choices | Range
Space = dict[str, Spec]


def load_space(path: Path, recipe: Recipe) -> Space:
    """Read a space: dotted keys of settings, each with a list of values or with ``low`` and ``high``.

    Every key, every choice and both ends of every range are put into the recipe. A value that the recipe refuses as it
    stands passes if it suits some values of the other keys.

    Args:
        path: YAML file, for instance ``train.learning_rate: {low: 1e-4, high: 1e-2, log: true}``.
        recipe: what is searched around.

    Raises:
        RecipeError: no such file, an unknown key, a range that is none, or a value that the recipe refuses.
    """
    raw = read_settings(path, kind="space", see=_SEE)
    if not raw:
        raise RecipeError(f"{path}: must hold a setting to search at least. {_SEE}")
    space: Space = {}
    for key, value in sorted((str(key), value) for key, value in raw.items()):
        _check_key(path, key, recipe)
        if all(info.decides != "run" or info.judges for info in find_settings(key)):
            raise RecipeError(
                f"{path}: {key} must be the same in all trials, which are trained and compared alike. "
                "Change it in the recipe."
            )
        above = [name for name in space if key.startswith(f"{name}.")]
        if above:
            raise RecipeError(f"{path}: {key} must not be searched beside {above[0]}, which holds it. Take one out.")
        space[key] = parse_spec(f"{path}: {key}", value, _find_types(key, recipe))
    _check_values(path, space, recipe)
    return space


def parse_spec(where: str, value: Any, types: tuple[Any, ...] = (int, float)) -> Spec:
    """What the text of a key stands for.

    Args:
        where: file and key, for messages.
        value: as YAML has it: a list of choices, or a mapping with ``low`` and ``high``, and ``log`` or ``step``.
        types: that the setting takes. Whole ends make a range of whole numbers, except where the setting is a float.

    Raises:
        RecipeError: it is neither.
    """
    if isinstance(value, list):
        return _parse_choices(where, value)
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: must be a list of values, or {{low: ..., high: ...}}; got {value!r}.")
    unknown = [str(key) for key in value if key not in _RANGE_KEYS]
    if unknown:
        raise RecipeError(
            f"{where}: a range must have low and high, and may have log and step; got {', '.join(unknown)}. "
            "Keys of settings are written with dots, as train.learning_rate."
        )
    return _parse_range(where, value, types)


def _parse_choices(where: str, values: list[Any]) -> Choices:
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    if not values:
        raise RecipeError(f"{where}: must have a value at least; got an empty list.")
    if len(set(texts)) < len(texts):
        raise RecipeError(f"{where}: values must be different ones; got {', '.join(texts)}.")
    return Choices(tuple(values))


def _parse_range(where: str, value: Mapping[str, Any], types: tuple[Any, ...]) -> Range:
    numbers = {name: value[name] for name in ("low", "high", "step") if name in value}
    if not {"low", "high"} <= numbers.keys():
        raise RecipeError(f"{where}: a range must have low and high; got {', '.join(map(str, value)) or 'neither'}.")
    for name, number in numbers.items():
        if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
            raise RecipeError(f"{where}: {name} must be a number; got {number!r}.")
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise RecipeError(f"{where}: log must be true or false; got {log!r}.")
    if low >= high:
        raise RecipeError(f"{where}: low must be below high; got {low} and {high}.")
    if log and low <= 0:
        raise RecipeError(f"{where}: low must be above 0 on a logarithmic scale; got {low}.")
    if log and step is not None:
        raise RecipeError(f"{where}: step and log must not stand together. Take one out, or list the values.")
    if int not in types and float not in types:
        raise RecipeError(f"{where}: is no number, so it must have a list of values; got a range.")
    whole = float not in types or (int in types and all(isinstance(number, int) for number in numbers.values()))
    if whole and not all(isinstance(number, int) for number in numbers.values()):
        raise RecipeError(f"{where}: is a whole number, and low, high and step must be too; got {dict(value)}.")
    if step is not None:
        if step <= 0:
            raise RecipeError(f"{where}: step must be above 0; got {step}.")
        if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
            raise RecipeError(f"{where}: high must be some steps above low; got {low}, {high} and a step of {step}.")
    if whole:
        return Range(low, high, step if step is not None or log else 1, log, whole=True)
    return Range(float(low), float(high), None if step is None else float(step), log)


def _find_types(key: str, recipe: Recipe) -> tuple[Any, ...]:
    """The types that a setting takes; none for a section or for one of several choices."""
    *above, last = key.split(".")
    section: Any = recipe
    for part in above:
        section = getattr(section, part, None)
    if not isinstance(section, Settings):
        return (int, float) if isinstance(section, dict) else ()
    if last not in type(section).model_fields:  # an option of a loss of one's own
        return (int, float)
    annotation = type(section).model_fields[last].annotation
    types: list[Any] = []
    for kind in get_args(annotation) or (annotation,):
        types += (kind, *get_args(kind)[:1])  # Annotated[int, ...] | None
    return tuple(types)


def _check_key(path: Path, key: str, recipe: Recipe) -> None:
    """Refuse a key that the recipe does not know."""
    value: Any = recipe.model_dump()
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            change_recipe(recipe, {key: None}, str(path))  # says what may have been meant
            return  # below a setting that takes any names
        value = value[part]


def _check_values(path: Path, space: Space, recipe: Recipe) -> None:
    source = random.Random(0)
    for key, spec in space.items():
        for value in spec.checked:
            try:
                change_recipe(recipe, {key: value}, str(path))
            except RecipeError:
                if not any(_suits(recipe, space, key, value, source) for _ in range(_COMBINATIONS)):
                    raise


def _suits(recipe: Recipe, space: Space, key: str, value: Any, source: random.Random) -> bool:
    drawn = {other: spec.draw(source) for other, spec in space.items()} | {key: value}
    try:
        change_recipe(recipe, drawn, "")
    except RecipeError:
        return False
    return True
