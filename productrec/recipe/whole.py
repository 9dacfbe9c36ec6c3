"""The whole recipe: the settings of every stage and of every model in one file; read from YAML plus ``key=value``.

Library functions see no recipe: they take plain keyword arguments. Relative paths are relative to the
folder the command is run in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from productrec.errors import RecipeError
from productrec.losses.catalogue import list_losses
from productrec.losses.engine.mining import MINING_RULES
from productrec.recipe.data import DataSettings
from productrec.recipe.loss import CHOICES, LossSettings
from productrec.recipe.match import MatchSettings
from productrec.recipe.model import ModelSettings
from productrec.recipe.predict import PredictSettings
from productrec.recipe.submit import SubmitSettings
from productrec.recipe.train import TrainSettings
from productrec.settings import text
from productrec.settings.fields import Outcome, SettingInfo, Settings, setting, walk_settings
from productrec.settings.names import Sampler
from productrec.settings.text import describe_problem, flatten, merge, nest, parse_override, read_settings


class Recipe(Settings):
    """A whole pipeline, from a source folder to a CSV."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = setting(
        ..., "name of the run folder and the CSV", judges=True
    )
    competition: str = setting(
        "plain",
        "contract: a bundled name or a YAML file",
        decides="nothing",
        commands=("train", "predict", "audit", "submit"),
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = setting(0, "decides initial weights, data order and augmentation")
    device: str = setting(
        "auto",
        "where to compute: auto, cpu, cuda, cuda:1, mps",
        decides="nothing",
        commands=("train", "predict", "photos", "audit"),
    )
    runs: Path = setting(Path("runs"), "folder that run folders land in", decides="nothing")
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    predict: PredictSettings = PredictSettings()
    match: MatchSettings = MatchSettings()
    submit: SubmitSettings = SubmitSettings()
    members: dict[str, dict[str, Any]] = setting(
        {},
        "several models: a name and what differs from the recipe above for each",
        commands=("train", "predict", "photos", "audit"),
        judges=True,
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
    def _check_something_is_learned(self) -> Recipe:
        has_titles = self.model.text.is_wanted and self.loss.titles.weight > 0
        if not self.loss.needs_labels and not has_titles:
            raise ValueError(
                "a loss must be left; all terms are off. Give loss.metric_weight or loss.classification_weight above "
                "0, or a text tower (model.text.tower)"
            )
        return self

    @model_validator(mode="after")
    def _check_titles(self) -> Recipe:
        titles = self.loss.titles
        if self.model.text.is_wanted and not titles.weight:
            raise ValueError("loss.titles.weight must be above 0 with a text tower; or give model.text.tower=none")
        if self.model.text.is_wanted and 0 < titles.memory.rows < self.train.batch_size:
            raise ValueError(
                f"loss.titles.memory.rows must hold a batch, {self.train.batch_size} images; got {titles.memory.rows}"
            )
        return self

    @model_validator(mode="after")
    def _check_mixing(self) -> Recipe:
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
    def _check_frozen(self) -> Recipe:
        for name in ("freeze_norms", "freeze_stages"):
            if getattr(self.train, name) and self.model.pretrained is False:
                raise ValueError(
                    f"train.{name} keeps what pretrained weights hold; model.pretrained=false has none. Give weights, "
                    "or leave it at its default"
                )
        return self

    @model_validator(mode="after")
    def _check_batches(self) -> Recipe:
        if self.uses_pk_sampler and self.train.batch_size % self.train.images_per_class:
            raise ValueError(
                f"train.images_per_class must divide train.batch_size; got {self.train.images_per_class} and "
                f"{self.train.batch_size}. Use {_nearest_divisor(self.train.batch_size, self.train.images_per_class)}"
            )
        return self

    @model_validator(mode="after")
    def _check_hard_classes(self) -> Recipe:
        for name in ("hard_classes", "category_share"):
            if getattr(self.train, name) and not self.uses_pk_sampler:
                raise ValueError(f"train.{name} needs batches of classes; add train.sampler=pk, or leave it at 0")
        return self

    @property
    def sampler(self) -> Sampler:
        """The sampler, where ``auto`` is what a loss over pairs wants: PK batches alone, mixed ones beside a head.

        A head learns better from batches of all classes (benchmarks/RESULTS.md).
        """
        if self.train.sampler != "auto":
            return self.train.sampler
        if not self.loss.compares_pairs:
            return "shuffle"
        return "mixed" if self.loss.classification_weight > 0 else "pk"

    @property
    def uses_pk_sampler(self) -> bool:
        """Whether some batches hold P classes times K images."""
        return self.sampler in ("pk", "mixed")

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

    def resolve_members(self) -> dict[str, Recipe]:
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
            merged = merge(plain, changes, choices=CHOICES)
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


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML and apply ``key=value`` overrides, for instance ``loss.metric=soft_triple``.

    Raises:
        RecipeError: no such file, not YAML, an unknown key (the nearest valid one is named), or a value of wrong type.
    """
    raw = read_settings(path)
    raw.setdefault("name", path.stem)
    for override in overrides:
        raw = merge(raw, parse_override(override), choices=CHOICES)
    return _validate(raw, str(path))


def change_recipe(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """A recipe with other values of some settings, by dotted key, with the same checks as `load_recipe`.

    Raises:
        RecipeError: an unknown key, or a value that does not suit; the message begins with ``where``.
    """
    raw: dict[str, Any] = recipe.model_dump()
    for key, value in changes.items():
        raw = merge(raw, nest(key, value), choices=CHOICES)
    return _validate(raw, where)


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, with the same checks as `load_recipe`."""
    return _validate(dict(values), "recipe")


def save_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every setting spelled out."""
    return yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True)


def list_settings() -> Iterator[SettingInfo]:
    """Every setting of a recipe, those of each metric loss and mining rule among them."""
    choices: dict[str, Mapping[str, type[Settings]]] = {"loss.metric": list_losses(), "loss.mining": MINING_RULES}
    # The same losses and rules stand behind loss.titles; they are told once.
    for info in walk_settings(Recipe):
        yield info
        for name, choice in choices.get(info.key, {}).items():
            for own in walk_settings(choice, f"{info.key}."):
                yield own._replace(meaning=f"{name}: {own.meaning}")


def select_settings(recipe: Recipe, outcome: Outcome) -> dict[str, Any]:
    """The settings of a recipe that decide one outcome, as plain values by dotted key."""
    outcomes = {info.key: info.decides for info in walk_settings(Recipe)}
    chosen = {}
    for key, value in flatten(recipe.dump()).items():
        above = key
        while above not in outcomes:  # a setting of a chosen loss, or of a member
            above = above.rpartition(".")[0]
        if outcomes[above] == outcome:
            chosen[key] = value
    return chosen


def find_settings(key: str) -> list[SettingInfo]:
    """What is known of a setting by its dotted key, of all within a section, or of the one that a key lies within.

    Raises:
        RecipeError: there is no such setting; the nearest one is named.
    """
    known = {info.key: info for info in walk_settings(Recipe)}
    within = [info for name, info in known.items() if name.startswith(f"{key}.")]
    if within:
        return within
    above = key
    while above not in known and "." in above:
        above = above.rpartition(".")[0]
    if above not in known:
        raise RecipeError(f"unknown key {key!r}. {suggest_key(key)}")
    return [known[above]]


def suggest_key(key: str) -> str:
    """A sentence that names the setting or section nearest to a key that does not exist."""
    near = text.suggest_key(key, [info.key for info in list_settings()])
    return f"Did you mean {near!r}?" if near else "`productrec settings` lists the valid ones."


def _validate(raw: dict[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + " ".join(_describe(problem) for problem in error.errors()[:5])) from None
    recipe.resolve_members()  # a member's fault is told now, not after the first one's training
    return recipe


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return describe_problem(problem)
    section, _, name = key.partition(".")
    if section == "loss" and (name in list_losses() or name == "options"):
        return (
            f"unknown key {key!r}. The settings of a loss stand with its name now: loss.metric: {{name: NAME, SETTING: "
            "VALUE}, or loss.metric.SETTING=VALUE. A run that was trained before must be trained anew."
        )
    return f"unknown key {key!r}. {suggest_key(key)}"


def _nearest_divisor(batch_size: int, wanted: int) -> str:
    divisors = [number for number in range(2, batch_size + 1) if batch_size % number == 0]
    below = [number for number in divisors if number < wanted][-1:]
    above = [number for number in divisors if number > wanted][:1]
    return " or ".join(str(number) for number in below + above)
