"""Joint: several runs' embeddings become one space, whose neighbours and prototypes give class probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import compute_digest, is_fresh
from productrec.assembly.evidence import build_objective, compute_prior, fit_unknown
from productrec.assembly.joint_space import JointSpace, JointSplit, find_labelled, load_joint_space, load_joint_split
from productrec.assembly.table_state import digest_rows
from productrec.competitions.contract import Contract, load_contract
from productrec.console import say, warn
from productrec.ensembling.blend import resolve_weights
from productrec.ensembling.concatenation import join_parts
from productrec.ensembling.joint_file import KIND as FITTED_KIND
from productrec.ensembling.joint_file import SavedJoint, load_joint, save_joint
from productrec.ensembling.joint_fitting import JOINT, UNFITTED, answer_joint, fit_joint
from productrec.ensembling.joint_search import JointRule
from productrec.recipe import Recipe
from productrec.recognition.open_set import believe
from productrec.recognition.probabilities import KIND, write_probabilities
from productrec.recognition.scores import score_answers
from productrec.retrieval.embedding_set import KIND as SET_KIND
from productrec.retrieval.embedding_set import EmbeddingSet, write_embedding_set

_BLOCK_ROWS = 4096
_TITLES = {"vote": "vote", "prototypes": "prototypes", "fused": "vote and prototypes"}


def run_joint(
    runs: Mapping[Path, Recipe], out: Path, *, rule: JointRule, weights: Sequence[float] | None = None
) -> SavedJoint:
    """Fit a joint space of several runs on validation images, ``OUT/joint``, and write ``OUT/predictions/joint/SPLIT``.

    An image that cannot be read gets the share of each class among the gallery's images. Of concatenated embeddings,
    those of gallery, validation and test images are kept as sets in ``OUT/embeddings/joint``.

    Args:
        runs: run folders of one image table, with embedding sets of gallery, validation and test images through their
            recipes' views, and their recipes; the first one's grids and contract are taken.
        out: folder of the ensemble.
        rule: how similarities become one.
        weights: one a run; None to search them.

    Raises:
        ArtifactError: runs of other tables, classes or images, or an embedding set that is missing or damaged.
    """
    space = load_joint_space(runs, rule)
    recipe = next(iter(runs.values()))
    contract = load_contract(recipe.competition)
    given = None if weights is None else resolve_weights(space.names, weights)
    splits = {split: load_joint_split(space, runs, split) for split in ("val", "test")}
    saved = _fit(space, splits["val"], out / "joint", recipe, contract, given)
    shares = np.array([saved.answering[name] for name in space.names])
    prior = compute_prior(space.table, space.class_ids, recipe.predict.gallery_splits)
    for split, known in splits.items():
        if len(space.table.select([split], usable=False)):
            _write(space, split, known, out / "predictions" / JOINT / split, recipe, saved, shares, prior)
    if rule == "concat":
        own = np.array([saved.weights[name] for name in space.names])
        _keep(space, "gallery", space.gallery, own, out)
        for split, known in splits.items():
            if known is not None:
                _keep(space, split, known.queries, own, out)
    return saved


def _fit(
    space: JointSpace,
    validation: JointSplit | None,
    folder: Path,
    recipe: Recipe,
    contract: Contract,
    given: np.ndarray | None,
) -> SavedJoint:
    inputs = space.inputs | (validation.inputs if validation else {})
    settings: dict[str, Any] = {
        "rule": space.rule,
        "weights": None if given is None else given.tolist(),
        "neighbours": space.neighbours,
        "k_grid": list(recipe.predict.k_grid),
        "power_grid": list(recipe.predict.power_grid),
        "competition": contract.scored_by.key,
        "unknown": [contract.unknown_label, contract.unknown_share],
    }
    if is_fresh(folder, kind=FITTED_KIND, inputs=inputs, settings=settings):
        return load_joint(folder)
    equal = np.full(len(space.names), 1 / len(space.names)) if given is None else given
    rows, labels = find_labelled(space, validation) if validation is not None else (np.empty(0, int), np.empty(0, int))
    if validation is None or space.is_trained_on_validation or not (labels >= 0).any():
        named = _name(space, equal)
        warn(f"no labelled validation images that no run was trained on; joint space by default: {UNFITTED.tell()}")
        saved = SavedJoint(space.rule, named, named, JOINT, "fused", UNFITTED)
    else:
        saved = _fit_on(space, validation, rows, labels, recipe, contract, given)
    save_joint(folder, saved, inputs=inputs, settings=settings)
    return load_joint(folder)


def _fit_on(
    space: JointSpace,
    validation: JointSplit,
    rows: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    contract: Contract,
    given: np.ndarray | None,
) -> SavedJoint:
    objective = build_objective(contract)
    blocks = space.find_candidates(validation, rows) if given is None else []
    fitted = fit_joint(
        lambda shares, some: space.see(validation, rows[some], shares),
        lambda shares: space.answer(blocks, labels, shares),
        space.names,
        labels,
        objective,
        k_grid=recipe.predict.k_grid,
        power_grid=recipe.predict.power_grid,
        shares=given,
    )
    name, part = fitted.best_alone
    return SavedJoint(
        rule=space.rule,
        weights=_name(space, fitted.weights.shares),
        answering=_name(space, fitted.shares),
        chosen=fitted.chosen,
        part=fitted.part,
        classifier=fitted.classifier,
        searched=None if given is not None else _name(space, fitted.weights.tried),
        weights_chance=fitted.weights.chance,
        are_kept=fitted.weights.is_kept,
        best_alone=f"{name}, {_TITLES[part]}",
        chance=fitted.chance,
        scores={
            who: {part: score_answers(one, metric=contract.scored_by) for part, one in parts.items()}
            for who, parts in fitted.answers.items()
        },
        images=len(rows),
        unknown=fit_unknown(fitted.evidence, labels, fitted.classifier, contract),
    )


def _write(
    space: JointSpace,
    split: str,
    known: JointSplit | None,
    folder: Path,
    recipe: Recipe,
    saved: SavedJoint,
    shares: np.ndarray,
    prior: np.ndarray,
) -> None:
    ids = space.table.select([split], usable=False)["image_id"].tolist()
    known_ids = known.ids if known else []
    fallback = sorted(set(ids) - set(known_ids))
    inputs = space.inputs | {"joint": saved.fingerprint} | (known.inputs if known else {})
    settings = {"rule": space.rule, "weights": saved.answering, "split": split}
    validation = saved.scores.get(saved.chosen, {}).get(saved.part)
    doubted: list[str] | None = None if saved.unknown is None else []
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
        return
    with write_probabilities(
        folder,
        ids=ids,
        class_ids=space.class_ids,
        names=space.table.get_class_names(space.class_ids),
        fallback=fallback,
        made={
            "joint": space.rule,
            "ensemble": saved.answering,
            "views": JOINT,
            "classifier": saved.classifier.describe(),
            "validation": asdict(validation) if validation else None,
        },
        inputs=inputs,
        settings=settings,
        keys=space.keys,
        table=recipe.table,
        rows=digest_rows(space.table, split),
        doubted=doubted,
    ) as values:
        row_of = {image_id: row for row, image_id in enumerate(ids)}
        rows = np.array([row_of[image_id] for image_id in known_ids], dtype=np.int64)
        values[np.setdiff1d(np.arange(len(ids)), rows)] = prior
        for start in range(0, len(rows), _BLOCK_ROWS):
            assert known is not None
            block = slice(start, start + _BLOCK_ROWS)
            evidence = space.see(known, block, shares)
            answered = answer_joint(evidence, saved.classifier)
            values[rows[block]] = answered
            if doubted is not None and saved.unknown is not None:
                believed = believe(evidence, answered, saved.unknown)
                doubted += [known_ids[start + row] for row in np.flatnonzero(~believed).tolist()]
    if fallback and split == "test":
        warn(f"{len(fallback)} {split} images cannot be read (first: {fallback[0]}); they get the class prior.")


def _keep(space: JointSpace, name: str, sets: Sequence[EmbeddingSet], shares: np.ndarray, out: Path) -> None:
    """Keep concatenated embeddings as a set like any other, which can be searched and evaluated."""
    folder = out / "embeddings" / JOINT / name
    named = _name(space, shares)
    inputs = {f"of {who}": one.fingerprint for who, one in zip(space.names, sets, strict=True)}
    inputs["table"] = space.table.fingerprint
    settings = {"weights": named}
    if is_fresh(folder, kind=SET_KIND, inputs=inputs, settings=settings):
        return
    with write_embedding_set(
        folder,
        sets[0].ids,
        dim=sum(one.embeddings.shape[1] for one in sets),
        class_ids=space.class_ids,
        keep_logits=False,
        views=[f"{who}: {view}" for who, one in zip(space.names, sets, strict=True) for view in one.views],
        weights_digest=compute_digest([named, [one.weights_digest for one in sets]]),
        inputs=inputs,
        settings=settings,
    ) as writer:
        for start in range(0, len(sets[0].ids), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            joined = join_parts([one.embeddings[block] for one in sets], shares)
            writer.write(np.arange(start, start + len(joined)), joined, np.empty((len(joined), 0), np.float32))


def _name(space: JointSpace, shares: np.ndarray) -> dict[str, float]:
    return dict(zip(space.names, np.round(shares, 6).tolist(), strict=True))


def report(saved: SavedJoint) -> None:
    """Say which weights stand, what answers, and how surely the joint space beats the best model alone."""

    def tell(weights: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())

    beside = ""
    if saved.weights_chance is not None and saved.searched is not None:
        verdict = "found by a search" if saved.are_kept else f"left out: {tell(saved.searched)}"
        beside = f" ({verdict}, which gained in {saved.weights_chance:.0%} of paired bootstraps)"
    say(f"joint space ({saved.rule}): {tell(saved.weights)}{beside}")
    if saved.chance is not None:
        say(
            f"it is better than the best model alone ({saved.best_alone}) in {saved.chance:.0%} of paired bootstraps "
            f"of {saved.images:,} validation images"
        )
    answers = "the joint space" if saved.chosen == JOINT else f"{saved.chosen} alone, which is surely better"
    say(f"what is written: {answers}, by {saved.classifier.tell()}")
