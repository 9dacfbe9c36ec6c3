"""An exported file made ready to answer for photos, without torch: alone, or with the index of the run it is of."""

from __future__ import annotations

from pathlib import Path

from productrec.artifacts import load_manifest
from productrec.assembly.answering import Neighbours, ReadyRun, find_neighbours, make_ready
from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.photo_network import NetworkNotes
from productrec.data.own_views import SUFFIXES, name_own
from productrec.data.view_presets import PRESETS, get_views
from productrec.errors import ArtifactError, RecipeError
from productrec.models.export_notes import ExportNotes
from productrec.recipe import Recipe, load_recipe
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.embedding_set import read_weights_digest
from productrec.retrieval.index import INDEX_KIND, has_keys

_BATCH = 32


def prepare_file(path: Path, *, views: str | None = None, index: Path | None = None) -> ReadyRun:
    """An exported file ready to answer.

    Args:
        path: of the file.
        views: preset to look through; None for that of the run's recipe where the file can, else the index's.
        index: folder of the index to find near products in, ``RUN/index/VIEWS``; None for that of the run which the
            file lies in, where it lies in one.

    Raises:
        ArtifactError: the file cannot be loaded, or the ``index`` is none, is damaged, or is not of the file's network.
        RecipeError: ONNX Runtime is not installed, or the file cannot look through the views.
    """
    try:
        from productrec.assembly.exported_photos import ExportedRecognizer, can_look_through
        from productrec.exported import ExportedModel
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"{path}: an exported file needs libraries that are not installed: {error.name}. "
            "Install them: uv pip install 'productrec[export]'"
        ) from None
    model = ExportedModel(path)
    told = model.notes
    notes = NetworkNotes(told.class_keys, told.class_names, told.side_px, told.weights_digest, told.class_ids)
    run = _find_run(path) if index is None else index.absolute().parent.parent
    recipe = None if run is None or not (run / "recipe.yaml").is_file() else load_recipe(run / "recipe.yaml")
    own = {} if recipe is None else recipe.predict.own_views
    if views is None:
        views = _choose_views(recipe, index)
        if not can_look_through(get_views(views, own)):
            views = _choose_views(None, index)
    elif views.endswith(SUFFIXES):
        own, views = {**own, name_own(views): views}, name_own(views)
    seen = get_views(views, own)
    titles = [view.title for view in seen]
    average = "logits" if recipe is None else recipe.predict.average
    if index is not None:
        neighbours = _take_index(index, views, titles, average, notes, told)
    elif run is None or recipe is None:
        neighbours = Neighbours(None, None, f"the head alone, through the views {views}; --index names an index")
    elif told.precision != "float32":
        neighbours = Neighbours(None, None, f"the head alone, since {_describe_precision(told)}")
    else:
        gallery = run / "index" / get_gallery_views(recipe, views)
        again = f"productrec predict {run} --views {views}"
        neighbours = find_neighbours(run, gallery, notes, views=views, titles=titles, average=average, again=again)
    network = ExportedRecognizer(
        model,
        views=seen,
        average=average,
        seed=0 if recipe is None else recipe.seed,
    )
    return make_ready(path, recipe, views, notes, network, neighbours, batch_size=_BATCH)


def _find_run(path: Path) -> Path | None:
    """The run that a file lies in, as `productrec export` leaves it there: ``RUN/export/NAME.onnx``."""
    folder = path.parent if path.parent.name else path.absolute().parent
    return folder.parent if folder.name == "export" and (folder.parent / "recipe.yaml").is_file() else None


def _choose_views(recipe: Recipe | None, index: Path | None) -> str:
    """The recipe's views, where they go with the index; else the index's own."""
    own = "plain" if index is None or index.name not in PRESETS else index.name
    if recipe is None:
        return own
    views = recipe.predict.tta
    return views if index is None or get_gallery_views(recipe, views) == index.name else own


def _take_index(
    index: Path, views: str, titles: list[str], average: str, notes: NetworkNotes, told: ExportNotes
) -> Neighbours:
    """An index that was asked for; with the classifier of its run, where one was fitted with it.

    Raises:
        ArtifactError: it is none, or not of the file's network.
    """
    manifest = load_manifest(index, kind=INDEX_KIND)
    if told.precision != "float32":
        raise ArtifactError(f"{index}: cannot be searched by this file, since {_describe_precision(told)}.")
    weights, side_px = read_weights_digest(index, manifest), manifest.notes.get("side_px")
    if weights != notes.weights_digest:
        raise ArtifactError(
            f"{index}: must be of the network that was exported; got weights {weights[:12]}, and the file's are "
            f"{notes.weights_digest[:12]}. Name the index of the same run, or export the run again."
        )
    if side_px is not None and side_px != notes.side_px:
        raise ArtifactError(
            f"{index}: its images must be squares of side_px {notes.side_px}, as the file's; got {side_px}."
        )
    if not has_keys(index):
        raise ArtifactError(f"{index}: was written before class keys were kept in it. Predict with the run again.")
    run = index.absolute().parent.parent
    again = f"productrec predict {run} --views {views}"
    found = find_neighbours(run, index, notes, views=views, titles=titles, average=average, again=again)
    if found.catalogue is not None:
        return found
    way = (
        f"the head alone, through the views {views}, beside the nearest products; no classifier was fitted with {index}"
    )
    return Neighbours(Catalogue(index), None, way)


def _describe_precision(told: ExportNotes) -> str:
    return f"the embeddings of a file of {told.precision} are others than its run's"
