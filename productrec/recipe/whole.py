"""The recipe: the settings of every stage and of every model in one file; read from YAML plus ``key=value``.

Only `cli` and `stages` see a recipe; library functions take plain keyword arguments. Relative paths are relative to the
folder the command is run in.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from productrec.errors import RecipeError
from productrec.recipe.loss import PAIR_LOSSES, LossSettings
from productrec.recipe.sections import (
    DataSettings,
    ModelSettings,
    PredictSettings,
    SubmitSettings,
    TrainSettings,
    check_train_settings,
)
from productrec.settings.fields import Settings


class Recipe(Settings):
    """A whole pipeline, from a source folder to a CSV."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = Field(description="names runs and CSV")
    competition: str = Field("plain", description="contract: a bundled name or a YAML file")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="decides initial weights, data order and augmentation"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    runs: Path = Field(Path("runs"), description="folder that run folders land in")
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    predict: PredictSettings = PredictSettings()
    submit: SubmitSettings = SubmitSettings()
    members: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="several models: a name and what differs from the recipe above for each"
    )

    @field_validator("members", mode="before")
    @classmethod
    def _check_members(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name in value:
                if not str(name).replace("_", "").replace("-", "").isalnum():
                    raise ValueError(f"a member's name must be letters, digits, - and _; got {name!r}")
        return value

    @model_validator(mode="after")
    def _check_mixing(self) -> "Recipe":
        mixed = self.train.cut_mix + self.train.mix_up
        if mixed and not self.loss.classification_weight:
            raise ValueError(
                "train.cut_mix and train.mix_up must be 0 where loss.classification_weight is 0: mixed batches have no "
                "other term"
            )
        if mixed > 1:
            raise ValueError(f"train.cut_mix and train.mix_up must be at most 1 together; got {mixed:g}")
        return self

    @model_validator(mode="after")
    def _check_training(self) -> "Recipe":
        check_train_settings(self.train)
        return self

    @model_validator(mode="after")
    def _check_norms(self) -> "Recipe":
        if self.train.freeze_norms and self.model.pretrained is False:
            raise ValueError(
                "train.freeze_norms keeps the statistics of pretrained weights; model.pretrained=false has none. Give "
                "weights, or leave it at false"
            )
        return self

    @model_validator(mode="after")
    def _check_batches(self) -> "Recipe":
        if self.uses_pk_sampler and self.train.batch_size % self.train.images_per_class:
            raise ValueError(
                f"train.images_per_class must divide train.batch_size; got {self.train.images_per_class} and "
                f"{self.train.batch_size}. Use {_nearest_divisor(self.train.batch_size, self.train.images_per_class)}"
            )
        return self

    @model_validator(mode="after")
    def _check_hard_classes(self) -> "Recipe":
        for name in ("hard_classes", "category_share"):
            if getattr(self.train, name) and not self.uses_pk_sampler:
                raise ValueError(f"train.{name} needs batches of classes; add train.sampler=pk, or leave it at 0")
        return self

    @property
    def uses_pk_sampler(self) -> bool:
        """Whether batches hold P classes times K images."""
        pairwise = self.loss.metric in PAIR_LOSSES or ":" in self.loss.metric
        auto = self.train.sampler == "auto" and pairwise
        return self.train.sampler in ("pk", "mixed") or auto

    @property
    def table(self) -> Path:
        """Folder of the image table: named by its source, so that recipes of one source share it."""
        if self.data.table is not None:
            return self.data.table
        return Path("data") / self.name if self.data.source is None else name_table(self.data.source)

    @property
    def run_folder(self) -> Path:
        """Folder of the run (of the members' runs, where there are several)."""
        return self.runs / self.name

    def resolve_members(self) -> dict[str, "Recipe"]:
        """One recipe a model, by run folder name: itself, or each member with its own settings and no members.

        Raises:
            RecipeError: a member's settings are not valid.
        """
        if not self.members:
            return {self.name: self}
        plain = self.model_dump(exclude={"members"})
        resolved = {}
        for name, changes in self.members.items():
            fixed = sorted({"name", "runs", "members"} & changes.keys())
            if fixed:
                raise RecipeError(
                    f"member {name}: {', '.join(fixed)} must be left to the recipe above. "
                    "A member is named by its key, and its run lands below the recipe's."
                )
            merged = _merge(plain, changes)
            merged.update(name=name, runs=self.run_folder, data=merged["data"] | {"table": self.table})
            resolved[name] = _validate(merged, f"member {name}")
        return resolved

    def dump(self) -> dict[str, Any]:
        """The recipe as plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")


def name_table(source: Path) -> Path:
    """The folder of a source's image table where none is given: ``data/`` and the name of its folder or archive.

    A source that is this very folder has its table beside it, ``data/NAME.table``.
    """
    name = Path(os.path.abspath(source)).name
    folder = Path("data") / (re.sub(r"\.(zip|tgz|tar(\.\w+)?)$", "", name, flags=re.IGNORECASE) or "source")
    return folder.with_name(f"{folder.name}.table") if os.path.abspath(source) == os.path.abspath(folder) else folder


class UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in one section, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML and apply ``key=value`` overrides, for instance ``loss.metric=soft_triple``.

    Raises:
        RecipeError: no such file, not YAML, an unknown key (the nearest valid one is named), or a value of wrong type.
    """
    raw = read_settings(path)
    raw.setdefault("name", path.stem)
    for override in overrides:
        raw = _merge(raw, _parse_override(override))
    return _validate(raw, str(path))


def read_settings(
    path: Path, *, kind: str = "recipe", loader: type[yaml.SafeLoader] | None = None, see: str = "See pipelines/"
) -> dict[str, Any]:
    """Settings by name, as they stand in a YAML file.

    Args:
        path: of the file.
        kind: what it is, for the messages.
        loader: another than the one that refuses a key that stands twice.
        see: where examples are.

    Raises:
        RecipeError: no such file, not YAML, or no settings by name.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), loader or UniqueKeys)  # SafeLoaders
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such {kind}. {see} for some to run and copy.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}). Name a YAML file.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise RecipeError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: must hold settings by name; got {type(raw).__name__}. {see} for examples.")
    return raw


def change_recipe(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """A recipe with other values of some settings, by dotted key, with the same checks as `load_recipe`.

    Raises:
        RecipeError: an unknown key, or a value that does not suit; the message begins with ``where``.
    """
    raw: dict[str, Any] = recipe.model_dump()
    for key, value in changes.items():
        raw = _merge(raw, _nest(key, value))
    return _validate(raw, where)


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, with the same checks as `load_recipe`."""
    return _validate(dict(values), "recipe")


def save_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every setting spelled out."""
    return yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True)


def list_settings() -> dict[str, tuple[str, str]]:
    """Every dotted key with its default and its meaning."""
    return dict(_walk(Recipe, ""))


def _walk(section: type[BaseModel], prefix: str) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for name, field in section.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            found += _walk(nested, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
            found.append((prefix + name, (default, field.description or "")))
    return found


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"override {text!r}: must be key=value, for instance train.epochs=10.")
    try:
        parsed: Any = yaml.safe_load(value) if value.strip() else None
    except (yaml.YAMLError, ValueError):
        parsed = value
    return _nest(key.strip(), parsed)


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and value and isinstance(below, Mapping):
            merged[key] = _merge(below, value)  # an empty mapping empties: members={}
        else:
            merged[key] = value
    return merged


def _validate(raw: dict[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(_describe(item) for item in error.errors()[:5])) from None
    recipe.resolve_members()  # a member's fault is told now, not after the first one's training
    return recipe


def _describe(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}. {suggest_key(key)}"
    if item["type"] == "missing":
        return f"{key!r} must be given"
    if item["type"] == "tuple_type":
        return f"{key}: must be a list, such as [{item['input']}]; got {item['input']!r}."
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return f"{message}."
    return f"{key}: {message[:1].lower()}{message[1:]}; got {item['input']!r}."


def suggest_key(key: str) -> str:
    """A sentence that names the setting or section nearest to a key that does not exist."""
    known = list(list_settings())
    sections = {name.rpartition(".")[0] for name in known if "." in name}
    last = key.rpartition(".")[2]
    elsewhere = [name for name in known if name.rpartition(".")[2] == last]  # the right name in the wrong section
    near = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(key, [*known, *sections], n=1, cutoff=0.6)
    if not near:
        by_last = {name.rpartition(".")[2]: name for name in known}
        near = [by_last[match] for match in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)]
    return f"Did you mean {near[0]!r}?" if near else "`productrec settings` lists the valid ones."


def _nearest_divisor(batch_size: int, wanted: int) -> str:
    divisors = [number for number in range(2, batch_size + 1) if batch_size % number == 0]
    below = [number for number in divisors if number < wanted][-1:]
    above = [number for number in divisors if number > wanted][:1]
    return " or ".join(str(number) for number in below + above)
