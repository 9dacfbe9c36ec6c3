"""What of a run goes along in a bundle, so that the bundle is a run folder again that answers as the run does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml

from productrec.artifacts import change_artifact, load_manifest, write_json
from productrec.assembly.answering import ReadyRun
from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.precision import KEPT
from productrec.assembly.ready_run import prepare_run
from productrec.data.view_presets import PRESETS
from productrec.errors import ArtifactError, RecipeError
from productrec.recipe import Recipe
from productrec.recipe.portable import forget_places
from productrec.retrieval.carried import carry_catalogue
from productrec.training.run.checkpoint import KIND

Model = Literal["run", "onnx"]
RECIPE = "recipe.yaml"
_STATE = "state.pt"  # of training; a resume alone reads it
_PREDICT = "predict"


def check_views(recipe: Recipe, where: Path) -> None:
    """Refuse views that lie in files of their own, which a bundle does not take along.

    Raises:
        RecipeError: the recipe looks through some.
    """
    views = recipe.predict.tta
    for name in (views, get_gallery_views(recipe, views)):
        if name not in PRESETS:
            raise RecipeError(
                f"{where}: views must be a preset, {', '.join(PRESETS)}; got {name}, of your own, which no bundle "
                "takes along. Name others with --views, and predict.gallery_tta=PRESET for the gallery, after "
                f"productrec predict {where} with the same."
            )


def carry_run(run: Path, recipe: Recipe, target: Path, *, model: Model) -> None:
    """Copy what answering needs of a run of one model: network, index with its changes, classifier.

    The training state stays behind, and every path of this machine is forgotten.

    Args:
        run: the run folder.
        recipe: of the run, with the views that are to answer.
        target: folder to fill.
        model: ``run`` for the checkpoint; ``onnx`` for the file that `productrec export` wrote.

    Raises:
        ArtifactError: an artefact is missing.
    """
    views = recipe.predict.tta
    index, classifier = run / "index" / get_gallery_views(recipe, views), run / "classifier" / views
    for folder in (index, classifier):
        if not folder.is_dir():
            raise ArtifactError(
                f"{folder}: must be there, so that the bundle answers as the run does; it is not. Make it: productrec "
                f"predict {run} --views {views}"
            )
    target.mkdir(parents=True, exist_ok=True)
    save_portable(recipe, target / RECIPE)
    if model == "onnx":
        _carry_exported(run, target)
    else:
        _carry_checkpoint(run / "checkpoints" / recipe.predict.checkpoint, target / "checkpoints")
    carry_catalogue(index, target / "index" / index.name)
    shutil.copytree(classifier, target / "classifier" / views)
    kept = json.loads((run / KEPT).read_text(encoding="utf-8")) if (run / KEPT).is_file() else {}
    # Named, since a bundle's folder may be read-only, where a choice by timing could not be kept.
    write_json(target / KEPT, {_PREDICT: kept.get(_PREDICT, "float32")})


def check_answers(ready: ReadyRun, run: Path) -> None:
    """Refuse a copy whose neighbours cannot vote, since the run's own cannot or something changed meanwhile.

    Raises:
        ArtifactError: with the way that it would answer.
    """
    if ready.catalogue is None or ready.saved is None:
        raise ArtifactError(
            f"{run}: must answer by head and neighbours; got {ready.way.replace(str(ready.run), str(run))}."
        )


def prepare_carried(folder: Path, recipe: Recipe, *, model: Model) -> ReadyRun:
    """A copy of `carry_run`, ready to answer.

    Raises:
        ArtifactError: it is damaged.
        RecipeError: an exported file cannot look through the views.
    """
    if model == "run":
        return prepare_run(folder, recipe)
    from productrec.assembly.ready_file import prepare_file

    return prepare_file(find_exported(folder), views=recipe.predict.tta)


def find_exported(run: Path) -> Path:
    """The exported file of a run, in float32.

    Raises:
        ArtifactError: there is none, or there are several.
    """
    files = sorted(path for path in run.glob("export/*.onnx") if not path.stem.endswith("-int8"))
    if len(files) != 1:
        got = ", ".join(path.name for path in files) or "none"
        raise ArtifactError(
            f"{run / 'export'}: must hold one file of `productrec export`; got {got}. Write it: productrec export {run}"
        )
    return files[0]


def save_portable(recipe: Recipe, path: Path) -> None:
    """Write a recipe as YAML, without the paths of this machine."""
    path.write_text(yaml.safe_dump(forget_places(recipe.dump()), sort_keys=False, allow_unicode=True), encoding="utf-8")


def find_paths(folder: Path, paths: list[Path]) -> Iterator[tuple[str, Path]]:
    """Files of text below a folder that name one of some absolute paths, with the path."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".json", ".yaml", ".md", ".py", ".txt"):
            continue
        text = path.read_text(encoding="utf-8")
        yield from ((path.relative_to(folder).as_posix(), one) for one in paths if str(one) in text)


def _carry_checkpoint(folder: Path, target: Path) -> None:
    manifest = load_manifest(folder, kind=KIND)
    copy = target / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(_STATE))
    change_artifact(copy, settings=forget_places(manifest.settings), without=[_STATE])


def _carry_exported(run: Path, target: Path) -> None:
    file = find_exported(run)
    (target / "export").mkdir()
    shutil.copy2(file, target / "export" / file.name)
