"""Which runs a command speaks of: run folders and recipes as they are named on the command line, with its settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from productrec.artifacts import write_text
from productrec.data.table import load_table
from productrec.data.view_presets import PRESETS
from productrec.errors import ArtifactError, DataError, RecipeError
from productrec.recipe import Recipe, build_recipe, find_settings, load_recipe, save_recipe
from productrec.recipe.data import DataSettings
from productrec.settings.fields import Command
from productrec.settings.text import merge, parse_override

DEFAULT_VIEWS = "zoom"
_WHERE_RUNS_LIE = ("name", "runs")  # of recipes; a run folder lies where it lies
_PHOTOS = "To classify a folder of new photos: productrec predict RUN --images FOLDER --out new.csv."


@dataclass(frozen=True)
class Selected:
    """Runs to predict with, each with its settings; where their ensemble lands, and the recipe that stands for it."""

    runs: dict[Path, Recipe]
    folder: Path
    recipe: Recipe

    def name_runs(self) -> list[str]:
        """Names of the runs in their ensemble."""
        return [folder.name for folder in self.runs]

    def has_weights(self) -> bool:
        """Whether the recipes weigh the runs."""
        return any(recipe.predict.member_weights for recipe in self.runs.values())

    def weigh(self, weights: Sequence[float] | None) -> list[float]:
        """Weights of the runs in their ensemble: those given, else the recipes' ``member_weights``."""
        if weights is not None:
            return list(weights)
        return [recipe.predict.member_weights.get(folder.name, 1.0) for folder, recipe in self.runs.items()]


def select_runs(recipe: Recipe, folder: Path | None = None) -> Selected:
    """The run of a recipe, or those of its members, below ``folder`` (default: where the recipe puts them)."""
    folder = folder or recipe.run_folder
    if not recipe.members:
        return Selected({folder: recipe}, folder, recipe)
    runs = {folder / name: member for name, member in recipe.resolve_members().items()}
    return Selected(runs, folder, recipe)


def load_runs(
    targets: Sequence[Path],
    overrides: Sequence[str],
    *,
    out: Path | None = None,
    views: str | None = None,
    some_views: bool = False,
    command: Command = "predict",
) -> Selected:
    """Runs named on the command line, by run folder or by recipe.

    Args:
        targets: run folders (of one model, or of a recipe with members) and recipe files.
        overrides: ``key=value`` changes.
        out: folder of the ensemble; else the one target's, or, for several, one beside the first, by their names.
        views: preset of views to look through; None for the recipe's.
        some_views: look through several views, `DEFAULT_VIEWS` where the recipe says no more than the plain one.
        command: that was given.

    Raises:
        ArtifactError: a folder holds no run.
        DataError: ``data.images`` names a folder without the table's images.
        RecipeError: no such run or preset, or a setting that decides nothing here.
    """
    for target in targets:
        check_run(target)
    changes = list(overrides) if views is None else [*overrides, f"predict.tta={views}"]
    selections = []
    for target in targets:
        recipe = load_recipe(target / "recipe.yaml" if target.is_dir() else target, changes)
        recipe = take_views(recipe, some_views=some_views)
        selections.append(select_runs(recipe, target if target.is_dir() else None))
    check_overrides(overrides, command=command, run_folders=all(target.is_dir() for target in targets))
    first = selections[0]
    if any(override.partition("=")[0].strip() == "data.images" for override in overrides):
        _check_images(first.recipe)
    if len(selections) == 1 and out is None:
        return first
    # What an ensemble's recipe says of views is what its first run's says, not what this one command was given.
    own = load_recipe(targets[0] / "recipe.yaml" if targets[0].is_dir() else targets[0], overrides)
    lasting = look_through(first.recipe, own.predict.tta)
    if len(selections) == 1:
        assert out is not None
        return Selected(first.runs, out, name_ensemble(lasting, out))
    runs = {folder: recipe for selection in selections for folder, recipe in selection.runs.items()}
    folder = out or next(iter(runs)).parent / "+".join(selection.folder.name for selection in selections)
    return Selected(runs, folder, name_ensemble(lasting, folder))


def name_ensemble(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe that stands for an ensemble in ``folder``: table and contract of one of its runs, its own name."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", folder.name).lstrip("._+-") or recipe.name
    data = recipe.data.model_copy(update={"table": recipe.table})
    return recipe.model_copy(update={"name": name, "runs": folder.parent, "members": {}, "data": data})


def check_is_no_run(folder: Path) -> None:
    """Refuse to put an ensemble where a trained run lies.

    Raises:
        ArtifactError: the folder holds one.
    """
    if (folder / "checkpoints").exists():
        raise ArtifactError(f"{folder}: holds a trained run; an ensemble needs its own folder. Name one with --out.")


def keep_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe that stands for an ensemble into its folder."""
    write_text(folder / "recipe.yaml", save_recipe(recipe))


def check_run(target: Path) -> None:
    """Refuse a target that is neither there nor a run; the nearest runs are named.

    Raises:
        ArtifactError: the folder holds no run.
        RecipeError: there is no such folder or recipe, or it is a preset of views.
    """
    if target.is_file():
        return
    if (target / "recipe.yaml").is_file():
        return
    near = _list_near(target)
    example = f", for instance {' or '.join(near)}" if near else ""
    if target.is_dir():
        raise ArtifactError(
            f"{target}: holds no run (no recipe.yaml). Train one, or name the run folder itself{example}."
        )
    if str(target) in PRESETS:
        raise RecipeError(f"{target}: no such run; views are chosen with --views {target}, and --tta takes no value.")
    preset = difflib.get_close_matches(str(target), list(PRESETS), n=1, cutoff=0.7)
    hint = f" To look through views: --views {preset[0]}." if preset else ""
    if target.suffix in (".yaml", ".yml"):
        raise RecipeError(f"{target}: no such recipe. Name a run folder or a recipe's YAML file.{hint}")
    raise RecipeError(f"{target}: no such run. Name a run folder or a recipe{example}.{hint}")


def check_overrides(overrides: Sequence[str], *, command: Command, run_folders: bool) -> None:
    """Refuse settings that decide nothing of what a command does, instead of passing over them.

    Args:
        overrides: ``key=value`` changes.
        command: that is asked.
        run_folders: whether run folders alone are named, no recipe.

    Raises:
        RecipeError: with the command that the setting belongs to.
    """
    shown = "predict --images" if command == "photos" else command
    asked = {"photos", command} if command == "index" else {command}  # growing looks at photos too
    for override in overrides:
        key = override.partition("=")[0].strip()
        infos = find_settings(key)
        commands = {name for info in infos for name in info.commands}
        outcomes = {info.decides for info in infos}
        if "train" in commands and outcomes != {"submission"}:
            commands.add("plan")  # it builds what training builds, and counts what prediction does with it
        if asked & commands or (key in _WHERE_RUNS_LIE and not run_folders):
            continue
        if command == "photos" and "predict" in commands:
            raise RecipeError(f"{key}: has no effect on {shown}, which needs no image table.")
        if command == "export" and "predict" in commands:
            raise RecipeError(f"{key}: has no effect on export; it belongs to predict.")
        if command == "ingest":
            raise RecipeError(f"{key}: has no effect on ingest, which takes settings of data alone.")
        if "table" in outcomes or key.startswith("data."):
            hint = f" {_PHOTOS}" if command in ("predict", "photos") else ""
            raise RecipeError(
                f"{key}: has no effect on {shown}; it belongs to ingest and run, which make the table.{hint}"
            )
        if "submission" in outcomes:
            raise RecipeError(f"{key}: has no effect on {shown}; it belongs to submit and run.")
        raise RecipeError(
            f"{key}: has no effect on {shown}; it belongs to train, and a run keeps what it was trained with."
        )


def build_data_settings(options: Mapping[str, Any], overrides: Sequence[str]) -> DataSettings:
    """The settings of an image table, from options by field and from ``data.KEY=VALUE``.

    Raises:
        RecipeError: a setting is unknown, does not suit, decides nothing of a table, or is given twice.
    """
    check_overrides(overrides, command="ingest", run_folders=True)
    raw: dict[str, Any] = {"name": "ingest", "data": dict(options)}
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.removeprefix("data.") in options:
            raise RecipeError(f"{key}: is given twice, as an option too. Leave out one of the two.")
        raw = merge(raw, parse_override(override))
    return build_recipe(raw).data


def look_through(recipe: Recipe, views: str) -> Recipe:
    """The recipe with another preset of views."""
    return recipe.model_copy(update={"predict": recipe.predict.model_copy(update={"tta": views})})


def take_views(recipe: Recipe, *, some_views: bool) -> Recipe:
    """The recipe as it is, or, where several views are wanted and it has the plain one alone, with `DEFAULT_VIEWS`."""
    return look_through(recipe, DEFAULT_VIEWS) if some_views and recipe.predict.tta == "plain" else recipe


def _check_images(recipe: Recipe) -> None:
    """Refuse an image folder that holds none of the table's images: it is read only for images not yet embedded."""
    table = load_table(recipe.table, root=recipe.data.images)
    if table.packed is not None:
        raise DataError(
            f"data.images: has no effect here; {recipe.table} keeps its images in {table.packed}. {_PHOTOS}"
        )
    usable = table.select(["train", "val", "test"])
    if len(usable) and not any(Path(path).exists() for path in table.get_paths(usable)):
        raise DataError(
            f"data.images: must be the folder that the table's images are in now; {recipe.data.images} holds not one "
            f"of the {len(usable):,} in {recipe.table}. {_PHOTOS}"
        )


def _list_near(target: Path) -> list[str]:
    """The runs whose names are nearest to a target's, or the first ones there are."""
    folders = [folder for folder in (target, target.parent, Path("runs")) if folder.is_dir()]
    patterns = ("*/recipe.yaml", "*/*/recipe.yaml")
    runs = {str(path.parent) for folder in folders for pattern in patterns for path in folder.glob(pattern)}
    return difflib.get_close_matches(str(target), sorted(runs), n=3, cutoff=0.6) or sorted(runs)[:3]
