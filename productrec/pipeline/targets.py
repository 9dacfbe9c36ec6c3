"""What a command line names (runs, recipes, tables, embedding sets, files), and the stage that is asked about it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from productrec.artifacts import load_manifest
from productrec.assembly.embedding_requests import EmbeddingRequest
from productrec.assembly.evaluation import Evaluation, Protocol, Wanted, evaluate_material, load_material
from productrec.data.table import find_source, load_table
from productrec.errors import ArtifactError, RecipeError
from productrec.pipeline.select import load_runs
from productrec.recipe import load_recipe
from productrec.stages.audit import Audited, Judge, run_audit
from productrec.stages.embed import run_embed
from productrec.stages.evaluate import (
    choose_protocol,
    list_gallery,
    run_evaluate,
)


def evaluate_target(
    target: Path,
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    views: str | None = None,
    protocol: Protocol = "auto",
    wanted: Wanted | None = None,
    labels: Path | None = None,
) -> dict[str, Evaluation]:
    """Evaluate runs, an embedding set of a run, or NumPy files.

    Args:
        target: a run folder or recipe, whose split is embedded where it is not yet; a folder
            ``RUN/embeddings/VIEWS/SPLIT``; or a ``.npz`` or ``.npy``, see :func:`load_material`.
        overrides: ``key=value`` changes of the recipe.
        split: whose images ask; None for val.
        views: preset of their views; None for plain.
        protocol: who asks whom.
        wanted: figures.
        labels: ``.npy`` of labels for NumPy files.

    Returns:
        By name of run or file.

    Raises:
        ArtifactError: the target is nothing of these.
        RecipeError: an option is given that decides nothing for such a target.
    """
    wanted = wanted or Wanted()
    given: dict[str, object] = {"--split": split, "--views": views}
    if target.suffix in (".npz", ".npy"):
        given |= {"--protocol": None if protocol == "auto" else protocol} | dict.fromkeys(overrides, True)
        _refuse_idle(target, given, "its arrays alone say who asks whom")
        material = load_material(target, labels)
        return {target.name: evaluate_material(material, "self" if material.gallery is None else "roles", wanted)}
    if (target / "embeddings.npy").is_file():
        _refuse_idle(target, given | {"--labels": labels}, "its folder and the table name them")
        folder = target.resolve()
        run, views, split = folder.parents[2], folder.parent.name, folder.name
        if not (run / "recipe.yaml").is_file():
            raise ArtifactError(
                f"{target}: an embedding set must lie in its run folder, which names the image table. "
                "Evaluate its arrays as a .npz with embeddings and labels."
            )
        return {
            run.name: run_evaluate(
                run,
                load_recipe(run / "recipe.yaml", overrides),
                split=split,
                views=views,
                protocol=protocol,
                wanted=wanted,
            )
        }
    _refuse_idle(target, {"--labels": labels}, "the image table has them")
    split, evaluations = split or "val", {}
    for run, recipe in load_runs([target], overrides, views=views).runs.items():
        views = "plain" if views is None else recipe.predict.tta
        table = load_table(recipe.table, root=recipe.data.images)
        chosen = choose_protocol(table, split, recipe.predict.gallery_splits) if protocol == "auto" else protocol
        requests = [EmbeddingRequest(split, views, True)]
        if chosen == "gallery":
            requests += [
                EmbeddingRequest(other, seen, False) for other, seen in list_gallery(recipe, split, views).items()
            ]
        run_embed(run, recipe, requests)
        evaluations[run.name] = run_evaluate(run, recipe, split=split, views=views, protocol=chosen, wanted=wanted)
    return evaluations


def _refuse_idle(target: Path, given: Mapping[str, object], reason: str) -> None:
    idle = [name for name, value in given.items() if value is not None]
    if idle:
        raise RecipeError(f"{target}: {', '.join(idle)} would have no effect, since {reason}. Leave out what has none.")


def audit_targets(
    targets: Sequence[Path],
    overrides: Sequence[str],
    *,
    out: Path | None = None,
    duplicates: bool = True,
    mark: str | None = None,
    first: int = 0,
    shown: int = 24,
    html: bool = False,
    replace: bool = False,
) -> Audited:
    """Audit an image table, by its folder, or that of some runs together with what they have learned.

    Raises:
        ArtifactError: a target is neither, or runs are of different tables.
        RecipeError: a table is named beside something else.
    """
    options: dict[str, Any] = {"duplicates": duplicates, "mark": mark, "first": first, "shown": shown, "html": html}
    tables = [target for target in targets if (target / "images.parquet").is_file()]
    if tables:
        if len(targets) > 1:
            raise RecipeError(f"audit: {tables[0]} is an image table and must be named alone; name runs without it.")
        table = tables[0]
        options |= {"ingest_command": list_ingest_command(table)} if html else {}
        return run_audit(table, out or name_audit(table), root=_read_root(overrides), replace=replace, **options)
    selected = load_runs(targets, overrides, command="audit")
    recipes = list(selected.runs.values())
    if len({recipe.table.resolve() for recipe in recipes}) > 1:
        raise ArtifactError("audit: runs must be trained on one image table; these are on several. Audit them apart.")
    judges = []
    for folder, recipe in selected.runs.items():
        splits = recipe.train.splits
        run_embed(folder, recipe, [EmbeddingRequest(split, "plain", True) for split in splits])
        judges.append(Judge(folder, splits, recipe.train.fold))
    table = recipes[0].table
    options |= {"ingest_command": list_ingest_command(table)} if html else {}
    return run_audit(
        table, out or name_audit(table), judges=judges, root=recipes[0].data.images, replace=replace, **options
    )


def list_ingest_command(table: Path) -> list[str]:
    """The command that makes a table as it was made, by words; ``SOURCE`` where its source is not there any more."""
    source, manifest = find_source(table), load_manifest(table)
    command = ["productrec", "ingest", "SOURCE" if source is None else _shorten(source), "--out", _shorten(table)]
    for key, value in manifest.settings.items():
        if key == "images":
            root = Path(value)
            inside = source is not None and (root == source.resolve() or root.is_relative_to(source.resolve()))
            command += [] if inside else [f"data.images={_shorten(root)}"]
        elif key in ("format", "sample"):
            command += [f"--{key}", str(value)]
        elif key != "findings":
            command.append(f"data.{key}={value if isinstance(value, str) else json.dumps(value)}")
    return command


def _shorten(path: Path) -> str:
    return min(os.path.relpath(path), str(path), key=len)


def _read_root(overrides: Sequence[str]) -> Path | None:
    """The image folder, the one setting that an audit of a table alone takes."""
    others = [text for text in overrides if not text.startswith("data.images=")]
    if others:
        raise RecipeError(f"audit: {', '.join(others)} have no effect on a table; only data.images=FOLDER has.")
    return Path(overrides[-1].partition("=")[2]) if overrides else None


def name_audit(table: Path) -> Path:
    """Where the findings of an image table lie, unless another folder was named."""
    return table.with_name(f"{table.name}.audit")
