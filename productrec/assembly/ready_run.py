"""A trained run made ready to answer for photos: its network in torch, its index and its classifier."""

from __future__ import annotations

from pathlib import Path

from productrec.assembly.answering import ReadyRun, find_neighbours, make_ready
from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.network import load_network
from productrec.assembly.photo_batches import PhotoRecognizer
from productrec.assembly.photo_network import NetworkNotes
from productrec.assembly.resources import choose_loader_workers, claim_resources
from productrec.assembly.run_indexes import name_views
from productrec.data.view_presets import get_views
from productrec.errors import ArtifactError
from productrec.recipe import Recipe
from productrec.training.run.checkpoint import load_checkpoint


def prepare_run(run: Path, recipe: Recipe) -> ReadyRun:
    """A run ready to answer through its recipe's views.

    Raises:
        ArtifactError: no checkpoint, one that was written before class names were kept, or a damaged artefact.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    if not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    resources = claim_resources(recipe, run)
    views, side_px = recipe.predict.tta, int(checkpoint.recipe["train"]["side_px"])
    notes = NetworkNotes(checkpoint.class_keys, checkpoint.class_names, side_px, checkpoint.weights_digest)
    neighbours = find_neighbours(
        run,
        run / "index" / get_gallery_views(recipe, views),
        notes,
        views=views,
        titles=name_views(recipe, views),
        average=recipe.predict.average,
        again=f"productrec predict {run} --views {views}",
    )
    network = PhotoRecognizer(
        load_network(checkpoint).to(resources.device),
        views=get_views(views, recipe.predict.own_views),
        side_px=side_px,
        device=resources.device,
        dtype=resources.dtype,
        workers=choose_loader_workers(recipe, resources.device),
        average=recipe.predict.average,
        seed=recipe.seed,
    )
    return make_ready(run, recipe, views, notes, network, neighbours, batch_size=recipe.predict.batch_size)
