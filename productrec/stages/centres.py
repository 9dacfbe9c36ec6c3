"""Centres: how many of a run's learned centres stayed apart, and what merging the others costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from productrec.artifacts import load_manifest, write_artifact, write_json
from productrec.console import print_table, say
from productrec.data.table import load_table
from productrec.errors import ArtifactError
from productrec.losses.centres.merging import Prototypes, find_nearest_classes, merge_centres, pack_prototypes
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.recipe import build_recipe
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.training.run.checkpoint import load_checkpoint

KIND = "prototypes"


@dataclass(frozen=True)
class Merged:
    """What merging did: ``counts``: (C,) centres left of each class; top-1 accuracy by centres, before and after."""

    folder: Path
    per_class: int
    counts: Tensor
    before: float
    after: float
    images: int


def run_centres(run: Path, *, distance: float) -> Merged:
    """Merge the centres of a run's best checkpoint and measure both on its validation images.

    Args:
        run: a run folder whose validation images are embedded, as ``productrec predict`` does.
        distance: centres of a class joined by steps of at most this become one.

    Returns:
        What was found; ``prototypes/`` of the run holds the merged centres (C, K, D) and how many each was merged from.

    Raises:
        ArtifactError: no centres, no embedded validation images, or they are of other weights.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / "best")
    centres, sizes = checkpoint.load_centres()
    recipe = build_recipe(checkpoint.recipe)
    embedded = run / "embeddings" / "plain" / "val"
    if not embedded.exists():
        raise ArtifactError(f"{run}: its validation images are not embedded yet; run productrec predict {run} first.")
    known = load_embedding_set(embedded)
    if known.weights_digest != checkpoint.weights_digest:
        raise ArtifactError(f"{embedded}: is of other weights; run productrec predict {run} again.")
    table = load_table(recipe.table, root=recipe.data.images)
    if load_manifest(embedded).inputs.get("table") != table.fingerprint:
        raise ArtifactError(f"{run}: the image table has changed since; run productrec predict {run} again.")
    rows = table.select(["val"]).set_index("image_id")
    labels = rows.loc[known.ids, "label"].to_numpy(dtype=np.int64)
    class_ids = np.array(checkpoint.match_classes(table))
    embeddings = torch.from_numpy(np.array(known.embeddings))
    metric = recipe.loss.metric
    gamma = metric.gamma if isinstance(metric, SoftTriple) else 0.0

    def measure(prototypes: Prototypes) -> float:
        return float(np.mean(class_ids[find_nearest_classes(embeddings, prototypes, gamma).numpy()] == labels))

    whole = merge_centres(centres, 0.0, sizes)
    merged = pack_prototypes(merge_centres(centres, distance, sizes))
    folder = run / "prototypes"
    notes = {"top_1_accuracy": measure(merged), "top_1_accuracy_before": measure(whole), "images": len(labels)}
    inputs = {"weights": checkpoint.weights_digest, "embeddings": known.fingerprint}
    with write_artifact(folder, kind=KIND, inputs=inputs, settings={"distance": distance}, notes=notes) as temporary:
        np.save(temporary / "centres.npy", merged.centres.numpy())
        np.save(temporary / "sizes.npy", merged.sizes.numpy())
        write_json(temporary / "classes.json", class_ids.tolist())
    return Merged(
        folder,
        centres.shape[1],
        merged.counts,
        notes["top_1_accuracy_before"],
        notes["top_1_accuracy"],
        len(labels),
    )


def report(merged: Merged) -> None:
    """Say how many classes have how many centres left, and both accuracies."""
    numbers, classes = torch.unique(merged.counts, return_counts=True)
    print_table(
        "centres left of each class",
        ("centres", "classes"),
        [(str(number), f"{count:,}") for number, count in zip(numbers.tolist(), classes.tolist(), strict=True)],
    )
    total, left = len(merged.counts) * merged.per_class, int(merged.counts.sum())
    say(
        f"{left:,} of {total:,} centres left, {left / len(merged.counts):.2f} a class; top-1 accuracy by centres on "
        f"{merged.images:,} validation images {merged.before:.3f} before, {merged.after:.3f} after. "
        f"Written: {merged.folder}"
    )
