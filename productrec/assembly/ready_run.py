"""A trained run made ready to answer for photos: its network in torch, its index and its classifier."""

from __future__ import annotations

from pathlib import Path

from productrec.assembly.answering import Neighbours, ReadyRun, find_neighbours, make_ready, tell_way
from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.network import load_network
from productrec.assembly.photo_batches import PhotoRecognizer
from productrec.assembly.photo_network import NetworkNotes
from productrec.assembly.resources import choose_loader_workers, claim_resources
from productrec.assembly.run_indexes import name_views, open_remote
from productrec.data.view_presets import get_views
from productrec.errors import ArtifactError
from productrec.recipe import Recipe
from productrec.recognition.classifier_file import load_classifier
from productrec.retrieval.remote_catalogue import RemoteCatalogue
from productrec.training.run.checkpoint import load_checkpoint


def prepare_run(run: Path, recipe: Recipe) -> ReadyRun:
    """A run ready to answer through its recipe's views.

    Raises:
        ArtifactError: no checkpoint, one that was written before class names were kept, or a damaged artefact.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    if not checkpoint.class_ids:
        raise ArtifactError(
            f"{checkpoint.folder}: learned from titles alone and knows no classes. Search it: "
            f'productrec query {run} --text "WORDS", or productrec query {run} PHOTO --to titles'
        )
    if not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    resources = claim_resources(recipe, run)
    views, side_px = recipe.predict.tta, int(checkpoint.recipe["train"]["side_px"])
    notes = NetworkNotes(
        checkpoint.class_keys, checkpoint.class_names, side_px, checkpoint.weights_digest, checkpoint.class_ids
    )
    again = f"productrec predict {run} --views {views}"
    if recipe.predict.index_address is not None:
        neighbours = _find_remote(run, recipe, notes, again)
    else:
        neighbours = find_neighbours(
            run,
            run / "index" / get_gallery_views(recipe, views),
            notes,
            views=views,
            titles=name_views(recipe, views),
            average=recipe.predict.average,
            again=again,
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


def _find_remote(run: Path, recipe: Recipe, notes: NetworkNotes, again: str) -> Neighbours:
    """The catalogue at the recipe's address, the classifier and both in words.

    Raises:
        ArtifactError: they do not belong together, and why; who names an address wants that index to answer.
    """
    views = recipe.predict.tta
    if not (run / "classifier" / views).exists():
        raise ArtifactError(f"{run}: has no classifier of the views {views}. Make it: {again}")
    saved, (where, _, catalogue) = load_classifier(run / "classifier" / views), open_remote(run, recipe)
    assert isinstance(catalogue, RemoteCatalogue)
    about = catalogue.about
    pairs = {
        "weights": (notes.weights_digest, about.weights_digest),
        "views": (name_views(recipe, get_gallery_views(recipe, views)), about.views),
        "the index that the classifier was fitted with": (saved.index, about.fingerprint),
    }
    for what, (wanted, got) in pairs.items():
        if wanted != got:
            short = [value[:12] if isinstance(value, str) else value for value in (wanted, got)]
            raise ArtifactError(
                f"{where}: {what} must be those of {run}, {short[0]}; got {short[1]}. Copy the run's own index there: "
                f"productrec index copy {run} {where}"
            )
    return Neighbours(catalogue, saved, f"{tell_way(catalogue, saved, views)}; the catalogue is at {where}")
