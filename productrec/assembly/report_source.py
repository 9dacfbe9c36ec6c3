"""What the sections of a report are built from: a run or an ensemble, its material, and what is missing."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.report_material import Material, read_findings_of
from productrec.assembly.report_scores import list_steps
from productrec.errors import ArtifactError, ProductrecError
from productrec.recipe import Recipe
from productrec.reporting.places import shorten_paths

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

OUT_OF_FOLD = "train"  # the split whose images are judged where there are no validation images


@dataclass
class ReportSource:
    """A run or an ensemble that is reported on.

    ``folder``: of it; ``recipe``: that stands for it; ``runs``: run folders of its models with their recipes, the
    run alone where it is no ensemble; ``ensemble``: artefact of how the answers of several models became one, where
    they did; ``audit``: folder of the findings of its table; ``ingest_command``: what makes the table, by words;
    ``figures``: plots by name, as far as they are drawn.
    """

    folder: Path
    recipe: Recipe
    runs: Mapping[Path, Recipe]
    material: Material
    ensemble: Path | None
    audit: Path
    ingest_command: Sequence[str]
    figures: dict[str, Figure] = field(default_factory=dict)

    def name(self, run: Path) -> str:
        """What a run is called: by its folder's name, or by its path where another's folder has that name too."""
        if sum(other.name == run.name for other in self.runs) > 1:
            return shorten_paths(os.path.abspath(run))
        return run.name

    def leave_out(self, what: str, why: str) -> None:
        """Note that something is not shown, and why, or how to have it."""
        self.material.missing.append(f"{what}: {why}")

    @cached_property
    def findings(self) -> pd.DataFrame | None:
        """Findings of the audit of the table as it is now; None where there is none, or of an earlier state alone."""
        if self.material.table is None:
            return None
        try:
            return read_findings_of(self.audit, self.material.table)
        except ArtifactError as error:
            again = f"Audit anew: productrec audit {shlex.quote(os.path.relpath(self.folder))}"
            self.leave_out("Findings of the audit", f"{error} {again}")
            return None

    def find_best(self) -> tuple[Path, Recipe] | None:
        """The run whose neighbours are shown, of several the one of the best accuracy; None where none is at hand."""
        return max(self.runs.items(), key=lambda item: _judge(item[0], self.material.views), default=None)

    def find_views(self, run: Path, what: str, split: str = "") -> str | None:
        """The preset of the answers' views where the run has an artefact of it, else the plain one, else None."""
        for views in dict.fromkeys((self.material.views, "plain")):
            if (run / what / views / split / MANIFEST_NAME).is_file():
                return views
        return None


def _judge(run: Path, views: str) -> float:
    try:
        steps = list_steps(run, views)
    except ProductrecError:
        return -1.0
    return steps[-1][1].top_1_accuracy if steps else 0.0
