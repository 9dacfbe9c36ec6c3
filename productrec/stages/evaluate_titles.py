"""Evaluate titles: whether a split's images find their own titles, and its titles their images."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import is_fresh, load_manifest, write_artifact, write_text
from productrec.assembly.network import load_network, load_tokeniser
from productrec.assembly.resources import claim_resources
from productrec.assembly.titles import list_titles
from productrec.console import print_table, say
from productrec.data.table import load_table
from productrec.errors import ArtifactError, DataError
from productrec.metrics.cross_modal import CUTOFFS, compute_cross_modal, compute_cross_modal_folds, group_equal_titles
from productrec.metrics.intervals import compute_intervals
from productrec.models.text.embed_titles import embed_titles
from productrec.recipe import Recipe
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.training.run.checkpoint import load_checkpoint

KIND = "evaluation of titles"
SPACE = "titles"
FOLD_IMAGES = 1000
_DIRECTIONS = {"image_to_title": "image to title", "title_to_image": "title to image"}


@dataclass(frozen=True)
class TitleEvaluation:
    """Figures between the images and titles of a split, and their 95 % intervals.

    ``full``: each among all; ``folds``: means over folds of 1,000 images, empty where there are not twice as many;
    ``images`` and ``titles``: how many of each; ``intervals``: low and high end of the figures of ``full``.
    """

    images: int
    titles: int
    full: dict[str, float]
    folds: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def run_evaluate_titles(run: Path, recipe: Recipe, *, split: str = "val", draws: int = 1000) -> TitleEvaluation:
    """Evaluate a run's towers on a split whose images it has embedded plainly.

    Equal titles are right answers for each other's images; a class's other titles are not. Written to
    ``RUN/evaluations/titles/SPLIT/evaluation.json``, and left alone where nothing has changed.

    Args:
        run: the run folder.
        recipe: image table, batch size.
        split: of the table.
        draws: for the intervals; 0 for none.

    Raises:
        ArtifactError: the run has no text tower, or the split is not embedded.
        DataError: fewer than two of its images have a title.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    tokeniser = load_tokeniser(checkpoint)
    table = load_table(recipe.table, root=recipe.data.images)
    images = load_embedding_set(run / "embeddings" / "plain" / split)
    if images.weights_digest != checkpoint.weights_digest:
        raise ArtifactError(f"{run}: {split} was embedded by other weights. Embed it again: productrec predict {run}")
    folder = run / "evaluations" / SPACE / split
    inputs = {"images": images.fingerprint, "table": table.fingerprint}
    settings = {"draws": draws, "split": split}
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
        load_manifest(folder, kind=KIND)
        return TitleEvaluation(**json.loads((folder / "evaluation.json").read_text(encoding="utf-8")))
    rows = table.select([split]).set_index("image_id", drop=False).loc[images.ids]
    listed = list_titles(table, rows, str(checkpoint.recipe["model"]["text"]["reads"]))
    titled = np.array([bool(own) for own in listed])
    if titled.sum() < 2:
        raise DataError(f"{recipe.table}: at least 2 {split} images must have a title; got {int(titled.sum())}.")
    kept = [own for own in listed if own]
    every = [title for own in kept for title in own]
    owners = np.repeat(np.arange(len(kept)), [len(own) for own in kept])
    resources = claim_resources(recipe, run)
    tower = load_network(checkpoint).text
    assert tower is not None, "a checkpoint with a tokeniser has a tower"
    titles = embed_titles(
        tower.to(resources.device),
        tokeniser,
        every,
        batch_size=recipe.predict.batch_size,
        device=resources.device,
        dtype=resources.dtype,
    )
    embedded, groups = np.asarray(images.embeddings)[titled], group_equal_titles(every)
    full = compute_cross_modal(embedded, titles, owners, title_groups=groups)
    folds = {}
    if len(kept) >= 2 * FOLD_IMAGES:
        folds = compute_cross_modal_folds(
            embedded, titles, owners, fold_images=FOLD_IMAGES, title_groups=groups
        ).measure()
    intervals = compute_intervals(full.measure, full.count, draws=draws) if draws else {}
    evaluation = TitleEvaluation(len(kept), len(every), full.measure(), folds, intervals)
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings) as temporary:
        write_text(temporary / "evaluation.json", json.dumps(asdict(evaluation), indent=2) + "\n")
    return evaluation


def report_titles(evaluation: TitleEvaluation, title: str) -> None:
    """Print recalls in % and median ranks, both ways, all images together and in folds of 1,000."""
    cells = []
    for protocol, figures in (("all", evaluation.full), (f"folds of {FOLD_IMAGES:,}", evaluation.folds)):
        for direction, told in _DIRECTIONS.items() if figures else ():
            recalls = [_tell(evaluation, figures, f"{direction}_recall@{k}", protocol) for k in CUTOFFS]
            cells.append((told, protocol, *recalls, f"{figures[f'{direction}_median_rank']:.0f}"))
    columns = ("", "among", *(f"R@{k} %" for k in CUTOFFS), "median rank")
    print_table(f"{title}: {evaluation.images:,} images, {evaluation.titles:,} titles", columns, cells)
    if not evaluation.folds:
        say(f"no folds of {FOLD_IMAGES:,} images: they want at least {2 * FOLD_IMAGES:,}")


def _tell(evaluation: TitleEvaluation, figures: dict[str, float], name: str, protocol: str) -> str:
    value = f"{100 * figures[name]:.1f}"
    ends = evaluation.intervals.get(name) if protocol == "all" else None
    return value if ends is None else f"{value} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
