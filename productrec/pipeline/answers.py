"""Answers as a contract asks for them: class probabilities, matches, or the figures of a research protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from productrec.assembly.embedding_requests import EmbeddingRequest
from productrec.assembly.evaluation import Wanted
from productrec.assembly.matching import list_expansions, list_match_requests
from productrec.competitions.contract import load_contract
from productrec.console import say, warn
from productrec.data.table import load_table
from productrec.pipeline.predict import predict_runs
from productrec.pipeline.score_table import print_scores
from productrec.pipeline.select import Selected, check_is_no_run, keep_recipe
from productrec.pipeline.titles import has_classes, prepare_searches, report_validation_titles
from productrec.recipe import Recipe
from productrec.recognition.scores import Scores
from productrec.stages.embed import run_embed
from productrec.stages.evaluate import choose_protocol, list_gallery, report, run_evaluate
from productrec.stages.match import Matched, run_match
from productrec.stages.match import report as report_matches


@dataclass(frozen=True)
class Answers:
    """What a prediction came to.

    ``folder``: what can be submitted; None where there are no test images, or the contract wants no CSV.
    ``validation``: of class probabilities, scores by run and by way to predict (head, vote, ..., fused, tta);
    ``ensembled``: those of several runs as one; ``has_classes``: false of runs that learned from titles alone.
    """

    folder: Path | None
    validation: dict[str, dict[str, Scores]] = field(default_factory=dict)
    ensembled: Scores | None = None
    has_classes: bool = True


def answer_runs(selected: Selected, *, weights: Sequence[float] | None = None) -> Answers:
    """Answer the test images as the recipe's contract asks, and print what that is worth."""
    if not all(has_classes(folder, recipe) for folder, recipe in selected.runs.items()):
        prepare_searches(selected)
        return Answers(None, has_classes=False)
    answers = load_contract(selected.recipe.competition).answers
    if answers == "matches":
        matched = match_runs(selected, weights=weights)
        report_matches(matched)
        return Answers(None if matched.matches is None else matched.matches.folder)
    if answers == "retrieval":
        evaluate_protocol(selected)
        return Answers(None)
    predicted = predict_runs(selected, weights=weights)
    print_scores(predicted)
    report_validation_titles(selected)
    folder = predicted.folder / "test" if predicted.test_images else None
    ensembled = None if predicted.ensembled is None else predicted.ensembled.validation
    return Answers(folder, predicted.validation, ensembled)


def match_runs(selected: Selected, *, weights: Sequence[float] | None = None) -> Matched:
    """Embed each run's images and match the test images by all runs together.

    Raises:
        ProductrecError: see `run_match`.
    """
    list_expansions(selected.recipe)  # a re-ranking that cannot be used is told before anything is embedded
    for folder, recipe in selected.runs.items():
        table = load_table(recipe.table, root=recipe.data.images)
        run_embed(folder, recipe, list_match_requests(recipe, table))
    if len(selected.runs) > 1:
        check_is_no_run(selected.folder)
    matched = run_match(selected.runs, selected.folder, weights=selected.weigh(weights))
    if len(selected.runs) > 1 and not (selected.folder / "recipe.yaml").exists():
        keep_recipe(selected.folder, selected.recipe)
    return matched


def warn_of_seen_classes(recipe: Recipe) -> None:
    """Warn, before anything is trained, where matches will be fitted on classes that were trained on."""
    if load_contract(recipe.competition).answers != "matches":
        return
    table = load_table(recipe.table, root=recipe.data.images)
    held, trained = (set(table.select([split])["label"].dropna().astype(int)) for split in ("val", "train"))
    if held & trained:
        warn(
            f"{recipe.table}: validation images are of classes that are trained on, so that the threshold of matches "
            "will be too high for new ones. data.hold_out=classes holds whole classes out."
        )


def evaluate_protocol(selected: Selected) -> None:
    """The retrieval table of each run's test images, or, where there are none, of its validation images."""
    for folder, recipe in selected.runs.items():
        table = load_table(recipe.table, root=recipe.data.images)
        split = "test" if len(table.select(["test"])) else "val"
        protocol = choose_protocol(table, split, recipe.predict.gallery_splits)
        requests = [EmbeddingRequest(split, recipe.predict.tta, True)]
        if protocol == "gallery":
            gallery = list_gallery(recipe, split, recipe.predict.tta)
            requests += [EmbeddingRequest(other, seen, False) for other, seen in gallery.items()]
        run_embed(folder, recipe, requests)
        wanted = replace(Wanted(), cutoffs=(1, 10, 100, 1000), clustering=False)
        evaluation = run_evaluate(
            folder, recipe, split=split, views=recipe.predict.tta, protocol=protocol, wanted=wanted
        )
        report(evaluation, f"{folder.name}, {split}")
        say(f"no CSV: {load_contract(recipe.competition).title} is a research protocol, and this is its table")
