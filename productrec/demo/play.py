"""Demo: draws a competition and plays it to the end, then scores every way to predict on labels nobody has seen."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from productrec.artifacts import write_json
from productrec.competitions.contract import load_contract
from productrec.console import say, show_progress
from productrec.demo.drawn.competition import draw_competition
from productrec.errors import ArtifactError
from productrec.pipeline.play import check_recipe_code, ingest_recipe, train_recipe
from productrec.pipeline.predict import predict_runs
from productrec.pipeline.score_table import TITLES, print_score_rows
from productrec.pipeline.select import select_runs
from productrec.recipe import Recipe, load_recipe
from productrec.recognition.classifier import PARTS
from productrec.recognition.probabilities import load_probabilities
from productrec.recognition.scores import Scores, compute_scores
from productrec.stages.submit import submit_recipe


@dataclass(frozen=True)
class Played:
    """A demo: its runs, the CSV, a test image, and the scores of each way to predict on the hidden test labels."""

    runs: list[Path]
    submission: Path
    photo: Path
    scores: dict[str, Scores]


def run_demo(
    out: Path,
    *,
    skus: int,
    train_images: int,
    val_images: int,
    test_images: int,
    difficulty: float,
    seed: int,
    overrides: Sequence[str] = (),
    jobs: int | None = 1,
    allow_code: bool = False,
) -> Played:
    """Draw, ingest, train two models, embed, index, classify with views, ensemble, submit, and score on hidden labels.

    Args:
        out: folder of everything; a demo of the same options that was stopped there goes on.
        skus: products to draw.
        train_images: of each product, on average.
        val_images: of each product.
        test_images: of each product.
        difficulty: 0 to 1.
        seed: decides the drawings and the weights.
        overrides: ``key=value`` changes of the demo's recipe.
        jobs: models that train at once; that of `train_recipe`.
        allow_code: whether they may name a loss outside productrec.

    Returns:
        What was played.

    Raises:
        ArtifactError: ``out`` holds something else.
    """
    with resources.as_file(resources.files("productrec.demo") / "demo.yaml") as path:
        folders = [f"data.source={out / 'competition'}", f"data.table={out / 'table'}", f"runs={out / 'runs'}"]
        recipe = load_recipe(path, [*folders, f"submit.out={out / 'submission.csv'}", f"seed={seed}", *overrides])
    options = {
        "skus": skus,
        "train_images": train_images,
        "val_images": val_images,
        "test_images": test_images,
        "difficulty": difficulty,
        "seed": seed,
    }
    check_recipe_code(recipe, allow_code=allow_code)
    hidden = _draw(out, options)
    ingest_recipe(recipe)
    train_recipe(recipe, resume=True, jobs=jobs, allow_code=allow_code)
    predicted = predict_runs(select_runs(recipe))
    submission = submit_recipe(recipe, predicted.folder / "test")
    scores = score_hidden(recipe, predicted.folder, hidden)
    print_score_rows("hidden labels of the test images", scores.items())
    say(f"submission: {submission.path}")
    runs = list(select_runs(recipe).runs)
    for folder in runs:
        say(f"run: {folder}")
    photo = out / "competition" / "images" / min(hidden)
    return Played(runs, submission.path, photo, scores)


def score_hidden(recipe: Recipe, ensemble: Path, hidden: dict[str, int]) -> dict[str, Scores]:
    """Scores of every member and way to predict, and of the ensemble, on hidden labels by image id."""
    metric = load_contract(recipe.competition).scored_by
    folders = {}
    for run, member in select_runs(recipe).runs.items():
        predictions = run / "predictions"
        answer = load_probabilities(predictions / "plain" / "test").made["part"]
        for part in PARTS[: PARTS.index(answer) + 1]:
            folder = predictions / "plain" if part == answer else predictions / "plain" / "parts" / part
            folders[f"{run.name}: {TITLES[part]}"] = folder / "test"
        folders[f"{run.name}: {TITLES['tta']}"] = predictions / member.predict.tta / "test"
    folders["ensembled"] = ensemble / "test"
    scores = {}
    for way, folder in folders.items():
        probabilities = load_probabilities(folder)
        labels = np.array([hidden[image_id] for image_id in probabilities.ids], dtype=np.int64)
        scores[way] = compute_scores(probabilities.values, probabilities.class_ids, labels, metric=metric)
    return scores


def _draw(out: Path, options: dict[str, float]) -> dict[str, int]:
    """Draw the competition unless it is there already; returns the hidden labels by image id."""
    noted = out / "demo.json"
    competition = out / "competition"
    if noted.exists():
        earlier = json.loads(noted.read_text(encoding="utf-8"))
        if earlier != options:
            raise ArtifactError(f"{out}: holds a demo of other options, {earlier}. Choose another folder with --out.")
    elif out.exists() and any(out.iterdir()):
        raise ArtifactError(f"{out}: holds files that are no demo. Choose another folder with --out.")
    if not competition.exists():
        write_json(noted, options)
        total = int(options["skus"] * (options["train_images"] + options["val_images"] + options["test_images"]))
        with show_progress("drawing", total) as bar:
            draw_competition(competition, on_progress=bar.advance, **options)  # type: ignore[arg-type]
    with (competition / "hidden" / "test_labels.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: int(row["class"]) for row in csv.DictReader(file)}
