"""Plan: what a recipe's training and prediction will take on this machine, from a few timed steps; writes nothing."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.disk_use import (
    count_embedding_bytes,
    count_ensemble_bytes,
    count_gallery_bytes,
    count_prediction_bytes,
    count_search_bytes,
)
from productrec.assembly.forecast import (
    Forward,
    Work,
    forecast_looks,
    forecast_prediction,
    forecast_steps,
    list_forwards,
)
from productrec.assembly.rehearsal import Rehearsal, rehearse
from productrec.assembly.resources import foresee_resources
from productrec.assembly.training_data import load_allowed_table
from productrec.console import say
from productrec.data.table import ImageTable
from productrec.errors import ArtifactError
from productrec.losses.own_loss import check_code_allowed
from productrec.recipe import Recipe
from productrec.runtime import measure_free_memory
from productrec.training.ranks.resources import Resources


@dataclass(frozen=True)
class MemberPlan:
    """What one model takes: work in seconds, artefacts in bytes by name, and what both come from."""

    recipe: Recipe
    rehearsal: Rehearsal
    training: Resources
    prediction: Resources
    steps: Work
    looks: Work
    forwards: list[Forward]
    predicting: Work
    artifacts: dict[str, int]
    gallery_bytes: int

    @property
    def train_work(self) -> Work:
        """All of the training."""
        return self.steps + self.looks


@dataclass(frozen=True)
class RecipePlan:
    """What a recipe takes: each of its models, what they share, and what the machine has, in bytes.

    ``load``: processes that wanted a core before (the load average of a minute); None where the system does not say.
    """

    members: dict[str, MemberPlan]
    ensemble_bytes: int
    spare_bytes: int
    table_bytes: int
    kept_bytes: int
    free_disk: int
    free_memory: int | None
    free_device: int | None
    load: float | None

    @property
    def written_bytes(self) -> int:
        """All that the run folder will hold."""
        return self.ensemble_bytes + sum(sum(member.artifacts.values()) for member in self.members.values())

    @property
    def missing_bytes(self) -> int:
        """What the disk lacks at the fullest moment; what the run folder holds already is written over."""
        return max(0, self.written_bytes + self.spare_bytes - self.kept_bytes - self.free_disk)


def run_plan(recipe: Recipe, *, allow_code: bool = False) -> RecipePlan:
    """Count and time what each model of a recipe takes; a run of it that is there is not touched.

    Args:
        recipe: every setting; its image table must be there.
        allow_code: whether a loss from outside productrec may be imported.

    Raises:
        ArtifactError: there is no image table.
        ProductrecError: whatever training would refuse before its first step, or in it.
    """
    _check_table(recipe)
    members = {}
    free_memory = measure_free_memory()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    free_device = None
    for name, member in recipe.resolve_members().items():
        check_code_allowed(member.loss.metric, allow_code=allow_code)
        table = load_allowed_table(member)
        say(f"plan of {name}: steps, forward passes and loading are timed; this takes about a minute")
        training, prediction = (foresee_resources(member, use=use) for use in ("train", "predict"))
        if training.is_on_gpu:
            free_device = torch.cuda.mem_get_info(training.device)[0]
        members[name] = _plan_member(member, table, training, prediction, allow_code=allow_code)
    planned = list(members.values())
    packed = [] if table.packed is None else [table.packed]
    return RecipePlan(
        members,
        ensemble_bytes=count_ensemble_bytes(table, planned[0].rehearsal.classes) if recipe.members else 0,
        spare_bytes=max(one.rehearsal.checkpoint.count_spare(epochs=one.recipe.train.epochs) for one in planned),
        table_bytes=sum(map(_measure_folder, [recipe.table, *packed])),
        kept_bytes=_measure_folder(recipe.run_folder),
        free_disk=shutil.disk_usage(_find_disk(recipe.runs)).free,
        free_memory=free_memory,
        free_device=free_device,
        load=load,
    )


def _check_table(recipe: Recipe) -> None:
    """Refuse a recipe whose image table is not there, with the command that makes it.

    Raises:
        ArtifactError: it is not.
    """
    if recipe.data.source is None or (recipe.table / MANIFEST_NAME).exists():
        return  # without a source `load_table` knows no more
    settings = recipe.data.model_dump(mode="json", exclude_defaults=True, exclude={"source", "table"})
    command = ["productrec", "ingest", str(recipe.data.source), "--out", str(recipe.table)]
    if recipe.competition != "plain":
        command += ["--competition", recipe.competition]
    for key, value in settings.items():
        command.append(f"data.{key}={str(value).lower() if isinstance(value, bool) else value}")
    raise ArtifactError(
        f"{recipe.table}: must hold the image table, whose images a plan counts and loads; it is not there. Run "
        f"`{shlex.join(command)}`."
    )


def _plan_member(
    recipe: Recipe, table: ImageTable, training: Resources, prediction: Resources, *, allow_code: bool
) -> MemberPlan:
    rehearsal = rehearse(recipe, table, training, prediction, allow_code=allow_code)
    checkpoints = rehearsal.checkpoint.count_all(epochs=recipe.train.epochs, keep_recent=recipe.train.soup)
    return MemberPlan(
        recipe,
        rehearsal,
        training,
        prediction,
        steps=forecast_steps(recipe, rehearsal),
        looks=forecast_looks(recipe, rehearsal, training.dtype),
        forwards=list_forwards(recipe, table),
        predicting=forecast_prediction(recipe, table, rehearsal, prediction.dtype),
        artifacts={
            "checkpoints": checkpoints,
            "embeddings": count_embedding_bytes(recipe, table, rehearsal.classes),
            "index, neighbours": count_search_bytes(recipe, table),
            "predictions": count_prediction_bytes(recipe, table, rehearsal.classes),
        },
        gallery_bytes=count_gallery_bytes(recipe, table),
    )


def _measure_folder(folder: Path) -> int:
    """Bytes of the files in a folder; a training may be at work in it."""
    size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(where, name)).st_size
    return size


def _find_disk(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())
