"""Joint: runs named on the command line, embedded where they are not yet, answer in one joint space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from productrec.console import say
from productrec.ensembling.joint_fitting import JOINT
from productrec.ensembling.joint_search import JointRule
from productrec.pipeline.score_table import print_score_rows
from productrec.pipeline.select import check_is_no_run, keep_recipe, load_runs
from productrec.recognition.classifier import PART_TITLES
from productrec.stages.embed import run_embed
from productrec.stages.joint import report, run_joint


def join_runs(targets: Sequence[Path], out: Path, *, rule: JointRule, weights: Sequence[float] | None = None) -> None:
    """Embed what is missing, fit the joint space of some runs, write its predictions, and print what it is worth.

    Args:
        targets: run folders, or folders of a recipe's members.
        out: folder of the ensemble, which keeps a recipe of its own name.
        rule: how similarities become one.
        weights: one a run; None to search them.

    Raises:
        ArtifactError: a run is not trained, ``out`` holds a run, or runs do not go together.
    """
    check_is_no_run(out)
    selected = load_runs(targets, [], out=out)
    for folder, recipe in selected.runs.items():
        run_embed(folder, recipe)
    saved = run_joint(selected.runs, out, rule=rule, weights=weights)
    if not (out / "recipe.yaml").exists():
        keep_recipe(out, selected.recipe)
    titles = PART_TITLES | {"fused": "vote and prototypes"}
    rows = [(name, parts) for name, parts in saved.scores.items() if name != JOINT]
    rows += [(JOINT, saved.scores[JOINT])] if JOINT in saved.scores else []
    print_score_rows(
        "validation",
        [(f"{name}: {title}", parts[part]) for name, parts in rows for part, title in titles.items() if part in parts],
    )
    report(saved)
    say(f"class probabilities: {out / 'predictions' / JOINT}")
