"""What every section of settings is, the kinds of number in them, and what a setting decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from productrec.settings.kinds import describe_kind

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]

Outcome = Literal["table", "run", "predictions", "submission", "nothing"]
Command = Literal["ingest", "train", "predict", "photos", "audit", "submit", "plan", "export", "index"]


class Settings(BaseModel):
    """A section of settings: unknown keys are refused and nothing changes after reading.

    ``decides`` and ``commands`` hold for every field of the section that says nothing else of itself, see `setting`;
    ``is_choice``: it is one of several by name, so that what stands in a recipe is one setting, not a section.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
    decides: ClassVar[Outcome] = "run"
    commands: ClassVar[tuple[Command, ...]] = ("train",)
    is_choice: ClassVar[bool] = False


def setting(
    default: Any,
    description: str,
    *,
    decides: Outcome | None = None,
    commands: tuple[Command, ...] | None = None,
    judges: bool = False,
    **constraints: Any,
) -> Any:
    """A field of a section.

    Args:
        default: its value where none is given.
        description: its meaning, with its unit; a sentence that stands alone.
        decides: whose content it decides: that of the image table, the run, the predictions, the submission, or of
            nothing (it says where and how fast). None: what the section says.
        commands: on which it has an effect where run folders or tables are named, beside `run`. None: as the section.
        judges: whether it decides what runs are compared by, so that a sweep must leave it alone.
        constraints: of `pydantic.Field`.
    """
    marks: dict[str, Any] = {"decides": decides, "commands": commands, "judges": judges}
    return Field(default, description=description, json_schema_extra=marks, **constraints)


def dump_changed(section: Settings, outcome: Outcome) -> dict[str, Any]:
    """The settings of a section that decide an outcome and are not their defaults, as plain values."""
    values = section.model_dump(mode="json", exclude_defaults=True)
    return {
        info.key: values[info.key]
        for info in walk_settings(type(section))
        if info.decides == outcome and info.key in values
    }


class SettingInfo(NamedTuple):
    """A setting: its dotted key, default as text, meaning, and what it decides, see `setting`.

    ``kind``: the values that it takes, in words.
    """

    key: str
    default: str
    meaning: str
    decides: Outcome
    commands: tuple[Command, ...]
    judges: bool
    kind: str


def walk_settings(section: type[Settings], prefix: str = "") -> Iterator[SettingInfo]:
    """Every setting of a section and of those within it, in their order."""
    for name, field in section.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Settings) and not nested.is_choice:
            yield from walk_settings(nested, f"{prefix}{name}.")
            continue
        marks: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
        yield SettingInfo(
            prefix + name,
            default,
            field.description or "",
            marks.get("decides") or section.decides,
            section.commands if marks.get("commands") is None else marks["commands"],
            bool(marks.get("judges")),
            describe_kind(field.annotation, field.metadata),
        )
