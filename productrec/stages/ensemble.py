"""Ensemble: the class probabilities of several runs become one, after checking that they speak of the same things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import is_fresh
from productrec.assembly.evidence import NO_LABEL, get_labels
from productrec.assembly.labelled_members import LabelledMembers, load_labelled
from productrec.assembly.table_state import check_current, digest_rows
from productrec.console import warn
from productrec.data.table import ImageTable
from productrec.ensembling.blend import RULES, Blend, blend_probabilities, check_same_order, weigh
from productrec.ensembling.choosing import BEST, WAY_TITLES, WAYS, BlendFit, ChosenBlend, choose_blend
from productrec.ensembling.diversity import compare_models
from productrec.ensembling.ensemble_file import KIND as ENSEMBLE_KIND
from productrec.ensembling.ensemble_file import SavedEnsemble, get_ensemble_folder, load_ensemble, save_ensemble
from productrec.metrics.competition import CompetitionMetric
from productrec.recognition.objective import Objective
from productrec.recognition.probabilities import KIND, ClassProbabilities, load_probabilities, write_probabilities
from productrec.recognition.scores import Scores, compute_scores, score_answers

AUTO = "auto"
_GIVEN = "weights as given"


@dataclass(frozen=True)
class Ensembled:
    """Scores of an ensemble on validation images, and on test images whose labels are known; None without such.

    Where its weights were fitted on validation images, the former are of answers by what was fitted on others.
    ``saved``: how it came about.
    """

    validation: Scores | None
    test: Scores | None
    saved: SavedEnsemble | None = None


def run_ensemble(
    members: Mapping[str, Path],
    out: Path,
    table: ImageTable,
    *,
    metric: CompetitionMetric,
    how: str = AUTO,
    weights: Sequence[float] | None = None,
) -> Ensembled:
    """Blend the members' predictions split by split into ``OUT/SPLIT``; how is kept in ``FOLDER/ensemble/VIEWS``.

    The blend is fitted on training images out of fold where every member was trained in folds too, else on validation
    images; without either, members weigh alike.

    Args:
        members: name and prediction folder (holding ``val`` and ``test``) of each.
        out: folder of the ensemble's predictions, ``FOLDER/predictions/VIEWS``.
        table: image table, for the labels.
        metric: the competition's own.
        how: one of `WAYS`, or ``auto`` for what is best in nested validation.
        weights: one a member, of a mean (geometric or of ranks, where ``how`` is that); None: as ``how`` says.

    Returns:
        Scores, where all members have probabilities.

    Raises:
        ArtifactError: image ids or class orders differ, a member's predictions are of another state of the table, or
            the weights do not fit.
    """
    names = list(members)
    given = None if weights is None else weigh(names, weights, how)
    by_split: dict[str, list[ClassProbabilities]] = {}
    for split in ("val", "test"):
        folders = [folder / split for folder in members.values()]
        if not all(folder.exists() for folder in folders) or not len(table.select([split], usable=False)):
            continue
        parts = [load_probabilities(folder) for folder in folders]
        check_same_order(names, [part.ids for part in parts], "image ids")
        check_same_order(names, [part.class_ids for part in parts], "class order")
        for part in parts:
            check_current(part, table)
        by_split[split] = parts
    if not by_split:
        return Ensembled(None, None)
    # Nothing is written where any of them is refused.
    class_ids = next(iter(by_split.values()))[0].class_ids
    saved = _settle(members, out, table, class_ids, metric=metric, how=how, given=given)
    told = saved.fitted.get("scores", {}).get(saved.fitted.get("way"))
    scores: dict[str, Scores | None] = {"val": None, "test": None}
    if told is not None and saved.fitted["on"] == "val":
        scores["val"] = Scores(**told)
    for split, parts in by_split.items():
        blended = _blend(names, parts, saved, out / split, split, table, scores["val"])
        if scores[split] is None:
            scores[split] = _score(blended, table, metric)
    return Ensembled(scores["val"], scores["test"], saved)


def _settle(
    members: Mapping[str, Path],
    out: Path,
    table: ImageTable,
    class_ids: list[int],
    *,
    metric: CompetitionMetric,
    how: str,
    given: Blend | None,
) -> SavedEnsemble:
    """How the members become one, fitted where it is not yet."""
    names, folder = list(members), get_ensemble_folder(out.parents[1], out.name)
    labelled = load_labelled(members, table, class_ids)
    inputs = {"table": table.fingerprint} | ({} if labelled is None else labelled.inputs)
    settings: dict[str, Any] = {"how": how, "competition": metric.key, "members": names}
    if given is not None:
        settings["weights"] = list(given.weights)
    if is_fresh(folder, kind=ENSEMBLE_KIND, inputs=inputs, settings=settings):
        return load_ensemble(folder)
    blend, fitted = _fit(names, labelled, Objective(metric.name, metric.k), how, given)
    save_ensemble(folder, names, blend, fitted=fitted, inputs=inputs, settings=settings)
    return load_ensemble(folder)


def _fit(
    names: list[str], labelled: LabelledMembers | None, objective: Objective, how: str, given: Blend | None
) -> tuple[Blend, dict[str, Any]]:
    if labelled is None:
        if given is None and how not in RULES:
            warn("ensemble: no labelled images that its members were not trained on; they weigh alike")
        return given or weigh(names, None, how), {}
    ways: dict[str, BlendFit] = {BEST: WAYS[BEST]}
    if given is not None:
        way = _GIVEN
        ways[way] = lambda parts, labels, objective: given
    else:
        way = how
        ways = dict(WAYS) if how == AUTO else ways | {how: WAYS[how]}
    chosen = choose_blend(labelled.parts, labelled.labels, objective, ways=ways, groups=labelled.groups)
    way = chosen.way if way == AUTO else way
    return chosen.trials[way].blend, _describe(names, labelled, chosen, way, objective)


def _describe(
    names: list[str], labelled: LabelledMembers, chosen: ChosenBlend, way: str, objective: Objective
) -> dict[str, Any]:
    metric = objective.scoring
    diversity = compare_models(labelled.parts, labelled.labels, chosen.alone, objective)
    return {
        "on": labelled.on,
        "images": len(labelled.labels),
        "way": way,
        "told": WAY_TITLES.get(way, way),
        "scores": {name: asdict(score_answers(trial.answers, metric=metric)) for name, trial in chosen.trials.items()},
        "log_loss": {name: float(trial.answers.log_loss.mean()) for name, trial in chosen.trials.items()},
        "chances": {name: trial.chance for name, trial in chosen.trials.items()},
        "blends": {name: trial.blend.describe(names) for name, trial in chosen.trials.items()},
        "members": {
            name: asdict(score_answers(answers, metric=metric))
            for name, answers in zip(names, chosen.alone, strict=True)
        },
        "diversity": diversity.describe(names),
    }


def _blend(
    names: list[str],
    parts: list[ClassProbabilities],
    saved: SavedEnsemble,
    out: Path,
    split: str,
    table: ImageTable,
    scores: Scores | None,
) -> ClassProbabilities:
    inputs = {f"member {name}": part.fingerprint for name, part in zip(names, parts, strict=True)}
    inputs |= {"table": table.fingerprint, "ensemble": saved.fingerprint}
    settings = {**saved.blend.describe(names), "split": split}
    views = {part.made.get("views") for part in parts}
    if not is_fresh(out, kind=KIND, inputs=inputs, settings=settings):
        with write_probabilities(
            out,
            ids=parts[0].ids,
            class_ids=parts[0].class_ids,
            names=parts[0].names,
            fallback=sorted({image_id for part in parts for image_id in part.fallback}),
            made={
                "ensemble": settings["weights"],
                "rule": saved.blend.rule,
                "views": views.pop() if len(views) == 1 else None,
                "validation": asdict(scores) if scores else None,
            },
            inputs=inputs,
            settings=settings,
            keys=parts[0].keys,
            table=parts[0].table,
            rows=digest_rows(table, split),
            doubted=_gather_doubted(parts, np.array(saved.blend.weights)),
        ) as values:
            blend_probabilities([part.values for part in parts], saved.blend, values)
    return load_probabilities(out)


def _gather_doubted(parts: list[ClassProbabilities], shares: np.ndarray) -> list[str] | None:
    """Ids that members of more than half of the weight doubt; None where a member with weight cannot tell."""
    heard = [(part, share) for part, share in zip(parts, shares.tolist(), strict=True) if share]
    if any(part.doubted is None for part, _ in heard):
        return None
    doubts: dict[str, float] = {}
    for part, share in heard:
        for image_id in part.doubted or ():
            doubts[image_id] = doubts.get(image_id, 0.0) + share
    half = float(shares.sum()) / 2
    return [image_id for image_id in parts[0].ids if doubts.get(image_id, 0.0) > half]


def _score(blended: ClassProbabilities, table: ImageTable, metric: CompetitionMetric) -> Scores | None:
    rows = table.images.set_index("image_id").loc[blended.ids]
    labels = get_labels(table, blended.ids)
    readable = (rows["status"] == "ok").to_numpy(dtype=bool) & (labels != NO_LABEL)
    if not np.isin(labels[readable], blended.class_ids).any():  # accuracies of 0 would say nothing
        return None
    return compute_scores(blended.values[readable], blended.class_ids, labels[readable], metric=metric)
