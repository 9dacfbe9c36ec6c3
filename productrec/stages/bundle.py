"""Bundle: a run becomes one folder that answers elsewhere without a network, wheels and commands included."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from productrec import __version__
from productrec.artifacts import compute_versions, list_digests, write_folder, write_json
from productrec.assembly import run_bundle as run_file
from productrec.assembly.answering import ReadyRun
from productrec.assembly.bundle_readme import write_readme
from productrec.assembly.carried_run import (
    RECIPE,
    Model,
    carry_run,
    check_answers,
    check_views,
    find_exported,
    find_paths,
    prepare_carried,
    save_portable,
)
from productrec.assembly.run_contract import find_contract
from productrec.assembly.timed_images import TimedImages, find_timed_images, time_answers
from productrec.assembly.wheels import KINDS, WHY_LIGHT, collect_wheels
from productrec.competitions.contract import Contract
from productrec.competitions.explain import format_contract
from productrec.competitions.notebook_limits import KAGGLE, Compared, Demand, compare_with_limits, estimate_memory
from productrec.console import say, warn
from productrec.ensembling.ensemble_file import get_ensemble_folder
from productrec.errors import ArtifactError, RecipeError
from productrec.recipe import Recipe
from productrec.recipe.portable import CONTRACT
from productrec.runtime import choose_device

FORMAT_VERSION = 1
NAME = "bundle.json"
MODELS = ("run", "onnx")
_LIGHT = "torch torchvision && env/bin/pip install --no-index --no-deps wheels/*.whl"


@dataclass(frozen=True)
class Bundled:
    """A written bundle: its place, bytes by part, wheels, how its runs answer, and what a notebook allows."""

    path: Path
    sizes: dict[str, int]
    wheels: list[str]
    kind: str
    ways: list[str]
    compared: list[Compared]


def run_bundle(
    run: Path,
    runs: Mapping[Path, Recipe],
    recipe: Recipe,
    to: Path,
    *,
    model: str = "run",
    wheels: str = "productrec",
    python: str | None = None,
    images: Path | None = None,
    count: int | None = None,
) -> Bundled:
    """Write a bundle; an interrupted one leaves nothing.

    Args:
        run: the run folder.
        runs: its models' run folders with their recipes: itself, or its members.
        recipe: that stands for all of them, with the views that are to answer.
        to: folder to write; nothing may be there.
        model: of `MODELS`: the weights, or the exported file, which needs no torch.
        wheels: of `KINDS`, and
        python: the version of the Python they are for, see `collect_wheels`.
        images: folder of images to time; None for the test images of the run's table.
        count: images that are to be predicted; None for as many test images as the table has.

    Raises:
        ArtifactError: an artefact is missing, ``to`` is there already, a wheel cannot be had, or something names a path
            of this machine.
        RecipeError: an unknown model or kind of wheels, or views of one's own.
        StorageError: the disk refused.
    """
    if model not in MODELS:
        raise RecipeError(f"--model: must be one of {', '.join(MODELS)}; got {model!r}.")
    chosen: Model = "onnx" if model == "onnx" else "run"
    if wheels not in KINDS:
        raise RecipeError(f"--wheels: must be one of {', '.join(KINDS)}; got {wheels!r}.")
    for folder, one in runs.items():
        check_views(one, folder)
        if not (folder / "checkpoints").is_dir() and not (folder / "export").is_dir():
            raise ArtifactError(
                f"{folder}: holds no model. An ensemble of runs that were named on the command line keeps no weights: "
                "bundle each of its runs, and predict with them together."
            )
    contract = find_contract(run, recipe)
    timed = find_timed_images(recipe, images)
    with write_folder(to) as folder:
        ready = _carry(run, runs, recipe, contract, folder, chosen)
        (folder / "run.py").write_bytes(Path(run_file.__file__).read_bytes())
        extras = ("export",) if chosen == "onnx" else ()
        names = collect_wheels(folder / "wheels", wheels, extras=extras, python=python)
        sizes = _measure(folder)
        demand = _foresee(ready, sizes, timed, timed.count if count is None else count, recipe, chosen)
        compared, ways = compare_with_limits(demand), [one.way for one in ready]
        del ready  # nothing of the temporary folder stays open
        target = "." if chosen == "run" or recipe.members else f"export/{find_exported(run).name}"
        readme = _describe(run, contract, recipe, folder, wheels, names, target, compared)
        (folder / "README.md").write_text(readme, encoding="utf-8")
        _check_places(folder, run, recipe, to)
        about = {
            "format_version": FORMAT_VERSION,
            "run": run.absolute().name,
            "model": chosen,
            "views": recipe.predict.tta,
            "competition": contract.name,
            "ways": ways,
            "wheels": {"kind": wheels, "python": python, "what": KINDS[wheels], "files": names},
            "versions": compute_versions() | {"productrec": __version__},
            "sizes": sizes,
            "demand": asdict(demand),
            "limits": asdict(KAGGLE),
            "files": list_digests(folder),
        }
        write_json(folder / NAME, about)
    return Bundled(to, sizes, names, wheels, ways, compared)


def report(done: Bundled) -> None:
    """Say how the bundle answers, how large it is, and what a notebook allows; warn where that is less."""
    for way in done.ways:
        say(f"answers by {way}")
    for one in done.compared:
        (say if one.is_within else warn)(one.told if one.is_within else f"beyond what a notebook allows: {one.told}")
    if done.kind == "light":
        say(WHY_LIGHT)
    parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in done.sizes.items())
    say(f"bundle {done.path}: {sum(done.sizes.values()) / 1e6:.1f} MB ({parts}), {_count(len(done.wheels), 'wheel')}")


def _carry(
    run: Path, runs: Mapping[Path, Recipe], recipe: Recipe, contract: Contract, folder: Path, model: Model
) -> list[ReadyRun]:
    """Copy runs into a bundle, and make the copies ready, which checks them."""
    ready: list[ReadyRun] = []
    for source, one in runs.items():
        target = folder / source.name if recipe.members else folder
        carry_run(source, one, target, model=model)
        (target / CONTRACT).write_text(format_contract(contract), encoding="utf-8")
        carried = prepare_carried(target, one, model=model)
        check_answers(carried, source)
        ready.append(carried)
    if recipe.members:
        save_portable(recipe, folder / RECIPE)
        fitted = get_ensemble_folder(run, recipe.predict.tta)
        if fitted.exists():
            shutil.copytree(fitted, get_ensemble_folder(folder, recipe.predict.tta))
        (folder / CONTRACT).write_text(format_contract(contract), encoding="utf-8")
    return ready


def _foresee(
    ready: Sequence[ReadyRun],
    sizes: Mapping[str, int],
    timed: TimedImages,
    count: int | None,
    recipe: Recipe,
    model: Model,
) -> Demand:
    rate = None if timed.images is None else time_answers(ready, timed.images)
    classes = len(ready[0].known.keys)
    memory = estimate_memory(sizes.get("network", 0), sizes.get("index", 0), count or 0, classes)
    device = "cpu" if model == "onnx" else choose_device(recipe.device).type
    return Demand(sum(sizes.values()), memory, count, rate, device)


def _measure(folder: Path) -> dict[str, int]:
    """Bytes of a bundle by part, the members' parts together."""
    sizes: dict[str, int] = {}
    names = {"checkpoints": "network", "export": "network", "index": "index", "classifier": "classifier"}
    for path in folder.rglob("*"):
        if path.is_file():
            parts = path.relative_to(folder).parts[:2]
            part = next((names[one] for one in parts if one in names), "wheels" if parts[0] == "wheels" else "other")
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    return dict(sorted(sizes.items()))


def _describe(
    run: Path,
    contract: Contract,
    recipe: Recipe,
    folder: Path,
    kind: str,
    names: Sequence[str],
    target: str,
    compared: Sequence[Compared],
) -> str:
    parts = sorted(path.name for path in folder.iterdir() if path.name not in ("wheels", "run.py", CONTRACT))
    own = next((name for name in names if name.startswith("productrec-")), "productrec")
    needs_torch = not any(folder.glob("**/export/*.onnx"))
    install = {
        "all": "--no-index --find-links wheels productrec",
        "light": _LIGHT if needs_torch else _LIGHT.partition("&& env/bin/pip install ")[2],
        "productrec": f"wheels/{own}  # what it needs comes from a package index, or is there",
        "none": "productrec  # this bundle holds no wheel",
    }[kind]
    several = "" if not recipe.members else "`query` and `serve` take one of the members' folders; `predict` all.\n"
    return write_readme(
        name=run.absolute().name,
        version=__version__,
        title=contract.title,
        parts=parts,
        wheels=f"`wheels`, {_count(len(names), 'file')}: {KINDS[kind]}" if names else "none",
        install=install,
        note=f"{several}`serve` answers at http://127.0.0.1:8000. `productrec index grow . FOLDER` adds products.",
        target=next(iter(recipe.members)) if recipe.members else target,
        limits=[one.told for one in compared],
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _check_places(folder: Path, run: Path, recipe: Recipe, to: Path) -> None:
    own = [path for path in (recipe.data.source, recipe.data.table, recipe.data.images) if path is not None]
    places = [run.absolute(), Path.cwd(), folder.absolute(), *own]
    # A name as short as /data would be found in much that means something else.
    long = [path for path in places if path.is_absolute() and len(path.parts) > 2]
    for name, path in find_paths(folder, long):
        raise ArtifactError(
            f"{to / name}: must name no path of this machine; got {path}. Bundle the run from another folder, or "
            "report this as a fault."
        )
