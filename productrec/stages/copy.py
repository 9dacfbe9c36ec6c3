"""Copy: an index goes from a run's files to a Milvus server, or back, and is compared on arrival."""

from __future__ import annotations

from pathlib import Path

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.run_indexes import list_indexes, name_remote, open_address
from productrec.console import say, show_progress
from productrec.errors import ArtifactError, RecipeError
from productrec.recipe import Recipe
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.choice import Wanted
from productrec.retrieval.copying import copy_to_files, copy_to_server
from productrec.retrieval.milvus import MilvusKind, parse_address
from productrec.retrieval.remote_catalogue import RemoteCatalogue


def run_copy_out(
    source: Path, recipe: Recipe | None, address: str, *, kind: MilvusKind = "flat", views: str | None = None
) -> list[str]:
    """Copy the indexes of a run, or the index in a folder, to a server.

    Args:
        source: run folder, or folder of an index.
        recipe: of the run, for the recall that an approximate index must reach; None for a folder.
        address: of the server, and perhaps of the one index that is copied.
        kind: of the server's index.
        views: of the gallery, where only one of the run's indexes is meant.

    Returns:
        The addresses of the copies.

    Raises:
        ArtifactError: there is no index, or what arrived differs.
        RecipeError: the address names one index and several are meant.
        StorageError: the server does not answer.
    """
    place = parse_address(address)
    is_index = recipe is None and (source / MANIFEST_NAME).is_file()
    folders = [source] if is_index else [one for one in list_indexes(source) if views in (None, one.name)]
    if not folders:
        raise ArtifactError(f"{source}: has no index of the views {views}. Predict with them first.")
    if place.name is not None and len(folders) > 1:
        names = " or ".join(folder.name for folder in folders)
        raise RecipeError(f"{address}: must be the name of one index; {source} has several. Add --views {names}.")
    recall, targets = 0.97 if recipe is None else recipe.predict.index_recall, []
    for folder in folders:
        name = place.name or (name_remote(source.parent, source.name) if is_index else name_remote(source, folder.name))
        target = place._replace(name=name)
        catalogue = Catalogue(folder)
        with show_progress(f"copying {folder.name}", 2 * len(catalogue)) as bar:
            remote, contents = copy_to_server(catalogue, target, kind=kind, recall=recall, on_rows=bar.advance)
        targets.append(str(target))
        say(f"index {folder} copied to {target}: {contents.describe()}, the same on both sides{_tell_recall(remote)}")
    return targets


def _tell_recall(remote: RemoteCatalogue) -> str:
    about = remote.about
    if about.kind == "flat" or about.recall is None:
        return ""
    looks = "open candidates" if about.kind == "hnsw" else "lists"
    return f"; {about.kind}, {about.effort} {looks} a query: recall@10 {about.recall:.3f} on its own rows"


def run_copy_back(address: str, target: Path, recipe: Recipe | None) -> None:
    """Copy an index of a server into a run, whose index of these views it then stands for, or into a folder.

    Args:
        address: of the server, with the name of the index.
        target: run folder, or folder for the index.
        recipe: of the run; None for a folder.

    Raises:
        ArtifactError: the run has no index of these views, or what arrived differs.
        StorageError: the server does not answer, or the disk refuses.
    """
    opened = open_address(parse_address(address))
    assert isinstance(opened.catalogue, RemoteCatalogue)
    folder, recall = target, 0.97
    if recipe is not None:
        folder, recall = target / "index" / opened.views, recipe.predict.index_recall
        if not folder.exists():
            raise ArtifactError(f"{target}: has no index of the views {opened.views}. Predict first, or name a folder.")
    wanted: Wanted = "auto" if recipe is None else recipe.predict.index
    with show_progress(f"copying {opened.views}", 2 * len(opened.catalogue)) as bar:
        _, contents = copy_to_files(opened.catalogue, folder, kind=wanted, recall=recall, on_rows=bar.advance)
    say(f"index {address} copied to {folder}: {contents.describe()}, the same on both sides")
