"""Benchmark of joint spaces: what several runs' embeddings together are worth on test images whose labels were hidden.

Takes folders that `productrec demo --out FOLDER` left, with the members' embeddings and predictions; nothing is written
there. Settings of votes, scales and weights are fitted on validation images, and all figures are of the hidden test
labels. The last lines blend class probabilities: the members' own, without and with their heads, and the latter with a
joint space as one member more. Beside each mean over the folders stands its paired difference from the best member
alone.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from productrec.assembly.evidence import build_objective, get_grids
from productrec.assembly.joint_space import JointSpace, JointSplit, find_labelled, load_joint_space, load_joint_split
from productrec.class_order import ClassOrder
from productrec.competitions.contract import load_contract
from productrec.ensembling.joint_fitting import PARTS, fit_joint
from productrec.ensembling.joint_search import JointRule
from productrec.metrics.answers import Answers, summarise
from productrec.pipeline.select import load_runs
from productrec.recipe import Recipe
from productrec.recognition.classifier import Classifier, Evidence, compute_parts
from productrec.recognition.fitting import fit_classifier
from productrec.recognition.probabilities import load_probabilities

_WAYS = ("nearest", *PARTS, "fused")
_RULES: tuple[JointRule, ...] = ("concat", "product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of finished demos")
    parser.add_argument("--views", default="plain", help="preset of views that predictions were made through")
    options = parser.parse_args()
    figures: dict[str, list[tuple[float, float]]] = {}
    for folder in options.folders:
        for name, answers in _measure(folder, options.views).items():
            figures.setdefault(name, []).append((float((answers.ranks == 0).mean()), float((answers.ranks < 3).mean())))
        print(f"{folder}: done", flush=True)
    _print(figures, len(options.folders))


def _measure(folder: Path, views: str) -> dict[str, Answers]:
    os.chdir(folder.absolute().parent)  # tables are named from there
    runs = load_runs([Path(folder.name) / "runs" / "demo"], [], views=views).runs
    with (Path(folder.name) / "competition/hidden/test_labels.csv").open(encoding="utf-8") as lines:
        hidden = {row["id"]: int(row["class"]) for row in csv.DictReader(lines)}
    seen: dict[str, Answers] = {}
    joined: dict[JointRule, np.ndarray] = {}
    for rule in _RULES:
        space = load_joint_space(runs, rule)
        validation, test = load_joint_split(space, runs, "val"), load_joint_split(space, runs, "test")
        assert validation is not None and test is not None
        labels = ClassOrder(space.keys).positions_of([str(hidden[image_id]) for image_id in test.ids])
        count = len(space.names)
        if rule == "concat":
            alone = [
                _answer(space, validation, test, np.eye(count)[place], runs, labels, seen, name)
                for place, name in enumerate(space.names)
            ]
            seen["blend of members without heads"] = summarise(np.mean(alone, axis=0), labels)
        joined[rule] = _answer(space, validation, test, np.full(count, 1 / count), runs, labels, seen, f"{rule}, equal")
        _answer_fitted(space, validation, test, runs, labels, seen)
    own = {run.name: load_probabilities(run / "predictions" / views / "test") for run in runs}
    first = next(iter(own.values()))
    assert test is not None
    kept = [first.ids.index(image_id) for image_id in test.ids]
    members = [np.asarray(one.values)[kept] for one in own.values()]
    for name, values in zip(own, members, strict=True):
        seen[f"{name}, with its head"] = summarise(values, labels)
    seen["blend of members with heads"] = summarise(np.mean(members, axis=0), labels)
    for rule, values in joined.items():
        seen[f"blend of members and {rule}"] = summarise(np.mean([*members, values], axis=0), labels)
    return seen


def _answer(
    space: JointSpace,
    validation: JointSplit,
    test: JointSplit,
    shares: np.ndarray,
    runs: dict[Path, Recipe],
    labels: np.ndarray,
    seen: dict[str, Answers],
    name: str,
) -> np.ndarray:
    """Answers by some shares, fitted on validation images; what vote and prototypes say together."""
    recipe = next(iter(runs.values()))
    rows, known = find_labelled(space, validation)
    how = get_grids(recipe) | {"parts": PARTS}
    objective = build_objective(load_contract(recipe.competition))
    fitted = fit_classifier(space.see(validation, rows, shares), known, objective, **how)
    return _tell(space.see(test, slice(None), shares), fitted.classifier, labels, seen, name)


def _tell(
    evidence: Evidence, classifier: Classifier, labels: np.ndarray, seen: dict[str, Answers], name: str
) -> np.ndarray:
    parts = compute_parts(evidence, classifier)
    for way in _WAYS:
        seen[f"{name}: {way}"] = summarise(getattr(parts, way), labels)
    return parts.fused


def _answer_fitted(
    space: JointSpace,
    validation: JointSplit,
    test: JointSplit,
    runs: dict[Path, Recipe],
    labels: np.ndarray,
    seen: dict[str, Answers],
) -> None:
    """What `productrec ensemble --joint` writes, and its searched weights whether or not they stand."""
    recipe = next(iter(runs.values()))
    rows, known = find_labelled(space, validation)
    blocks = space.find_candidates(validation, rows)
    see: Callable[[np.ndarray, np.ndarray], Evidence] = lambda shares, some: space.see(validation, rows[some], shares)  # noqa: E731
    grids = {name: value for name, value in get_grids(recipe).items() if name != "parts"}
    objective = build_objective(load_contract(recipe.competition))
    fitted = fit_joint(see, lambda shares: space.answer(blocks, known, shares), space.names, known, objective, **grids)
    print(
        f"  {space.rule}: searched {fitted.weights.tried.round(3).tolist()}, kept {fitted.weights.is_kept} "
        f"({fitted.weights.chance:.0%}); chosen {fitted.chosen}, joint better than {fitted.best_alone} in "
        f"{fitted.chance:.0%}"
    )
    evidence = space.see(test, slice(None), fitted.shares)
    seen[f"{space.rule}, written"] = summarise(compute_parts(evidence, fitted.classifier).fused, labels)
    _answer(space, validation, test, fitted.weights.tried, runs, labels, seen, f"{space.rule}, searched")
    _answer(space, validation, test, fitted.weights.shares, runs, labels, seen, f"{space.rule}, gated")


def _print(figures: dict[str, list[tuple[float, float]]], folders: int) -> None:
    alone = {name: values for name, values in figures.items() if ": " in name and ", " not in name}
    print(f"\nmean over {folders} folders, top-1 accuracy and top-3 error in %; in brackets the mean and the standard")
    print("error over folders of the top-1 difference from the best member alone by the same part")
    for name, values in figures.items():
        both = 100 * np.array(values)
        way = name.rpartition(": ")[2]
        rivals = [own for other, own in alone.items() if other.endswith(f": {way}")] or list(alone.values())
        best = max((100 * np.array(own)[:, 0] for own in rivals), key=lambda own: float(own.mean()))
        gain = both[:, 0] - best
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
        told = f"{both[:, 0].mean():5.2f}  {100 - both[:, 1].mean():5.2f}   [{gain.mean():+5.2f} +- {error:4.2f}]"
        print(f"{name:36} {told}")


if __name__ == "__main__":
    main()
