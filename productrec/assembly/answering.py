"""A run that answers for photos: its network, its catalogue and the classifier fitted for it, ready to be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from productrec.artifacts import load_manifest
from productrec.assembly.evidence import get_gallery_views
from productrec.assembly.network import load_network
from productrec.assembly.photo_batches import PhotoRecognizer, Seen
from productrec.assembly.resources import claim_resources
from productrec.assembly.run_indexes import name_views, open_remote
from productrec.class_order import ClassOrder
from productrec.data.images import Images
from productrec.errors import ArtifactError
from productrec.recipe import Recipe
from productrec.recognition.classifier import Evidence
from productrec.recognition.classifier_file import SavedClassifier, load_classifier
from productrec.recognition.grown import fuse_grown
from productrec.recognition.open_set import believe
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.recognition.reranked import Reranker, build_reranker
from productrec.recognition.vote import compute_softmax
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.embedding_set import EmbeddingSet, read_weights_digest
from productrec.retrieval.index import INDEX_KIND, has_keys
from productrec.retrieval.remote_catalogue import RemoteCatalogue
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint


class Answered(NamedTuple):
    """A batch of photos.

    ``rows`` (B,) of the photos; ``probabilities`` (B, C + E) in the order of the run's keys; ``neighbours`` and
    ``similarities`` (B, K): rows of the catalogue, K is 0 where there is none; ``believed`` (B,): whether each is taken
    to be of a known class at all, None where no threshold was fitted; ``broken``: reasons by row.
    """

    rows: list[int]
    probabilities: np.ndarray
    neighbours: np.ndarray
    similarities: np.ndarray
    believed: np.ndarray | None
    broken: dict[int, str]


@dataclass(frozen=True)
class KnownClasses:
    """The classes that a run can name.

    ``keys`` and ``names``: of the checkpoint's C classes, then of the E that the catalogue has grown by and the head
    does not know; ``positions``: of each of the catalogue's classes among these, -1 where it is none of them;
    ``prototypes`` (C + E, D): of these classes; ``is_removed`` (C,): classes that were taken out of the catalogue.
    """

    keys: list[str]
    names: list[str]
    positions: np.ndarray
    prototypes: np.ndarray
    is_removed: np.ndarray


@dataclass(frozen=True)
class LivingReranker:
    """A kept re-ranking, ready for the ``rows`` (M,), ascending, that a catalogue holds now."""

    rows: np.ndarray
    reranker: Reranker

    def rerank(self, evidence: Evidence, embeddings: np.ndarray, rows: np.ndarray) -> Evidence:
        """As `Reranker.rerank`; ``rows`` (Q, K) are the catalogue's."""
        return self.reranker.rerank(evidence, embeddings, np.searchsorted(self.rows, rows))


@dataclass(frozen=True)
class ReadyRun:
    """A run ready to answer through its recipe's views.

    ``way``: how it answers, in words; ``living``: None where no re-ranking was kept.
    """

    run: Path
    recipe: Recipe
    checkpoint: Checkpoint
    recognizer: PhotoRecognizer
    catalogue: Catalogue | RemoteCatalogue | None
    saved: SavedClassifier | None
    way: str
    known: KnownClasses
    living: LivingReranker | None = None

    def refresh(self) -> ReadyRun:
        """The run with what other processes have grown or removed since; itself where there was nothing."""
        if self.catalogue is None or not self.catalogue.refresh():
            return self
        known = _gather_classes(self.checkpoint, self.catalogue, self.saved)
        return replace(self, known=known, living=_prepare_living(self.checkpoint, self.catalogue, self.saved, known))

    def answer(self, photos: Images, *, batch_size: int, neighbours: int = 0) -> Iterator[Answered]:
        """Answer for photos, batch by batch; ``neighbours``: how many are to be named at least."""
        for seen in self.recognizer.go_through(photos, self.recipe, batch_size=batch_size):
            yield self._tell(seen, neighbours)

    def answer_cuts(self, photos: Sequence[Sequence[np.ndarray]], *, neighbours: int = 0) -> Answered:
        """Answer for one batch of photos, each given by its squares of ``recognizer.cut``; else as `answer`."""
        return self._tell(self.recognizer.see(photos), neighbours)

    def _tell(self, seen: Seen, neighbours: int) -> Answered:
        ids = [str(row) for row in seen.rows]
        return Answered(seen.rows, *self._fuse(ids, seen.embeddings, seen.logits, neighbours), seen.broken)

    def _fuse(
        self, ids: list[str], embeddings: np.ndarray, logits: np.ndarray, neighbours: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        if self.catalogue is None or self.saved is None:
            nothing = np.empty((len(ids), 0))
            return compute_softmax(logits), nothing.astype(np.int64), nothing.astype(np.float32), None
        side_px = int(self.checkpoint.recipe["train"]["side_px"])
        queries = EmbeddingSet(ids, embeddings, logits, [], [], self.checkpoint.weights_digest, {}, "", side_px)
        depth = 0 if self.saved.reranked is None else self.saved.reranked.depth
        rows, similarities = self.catalogue.search(queries, max(self.saved.classifier.vote.k, depth, neighbours))
        evidence = Evidence(
            logits,
            self.known.positions[self.catalogue.get_classes(rows)],
            similarities,
            compare_prototypes(embeddings, self.known.prototypes),
            _order_categories(self.checkpoint, self.saved),
        )
        grown = {"grown_count": len(self.known.keys) - logits.shape[1], "is_removed": self.known.is_removed}
        fused = fuse_grown(evidence, self.saved.classifier, **grown)
        unknown = self.saved.unknown
        # Whether a photo is of a known product is told by what the first search found: a re-ranking draws a photo of
        # an unknown product towards what it is near to.
        believed = None if unknown is None or not rows.shape[1] else believe(evidence, fused, unknown)
        if self.saved.reranked is not None and self.living is not None:
            seen = self.living.rerank(evidence, embeddings, rows)
            fused = fuse_grown(seen, self.saved.reranked.classifier, **grown)
        return fused, rows, similarities, believed


def prepare_run(run: Path, recipe: Recipe) -> ReadyRun:
    """A run ready to answer.

    Raises:
        ArtifactError: no checkpoint, one that was written before class names were kept, or a damaged artefact.
    """
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    if not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    resources = claim_resources(recipe, run)
    catalogue, saved, way = _load_neighbours(run, recipe, checkpoint)
    known = _gather_classes(checkpoint, catalogue, saved)
    return ReadyRun(
        run=run,
        recipe=recipe,
        checkpoint=checkpoint,
        recognizer=PhotoRecognizer(
            load_network(checkpoint).to(resources.device),
            views=recipe.predict.tta,
            side_px=int(checkpoint.recipe["train"]["side_px"]),
            device=resources.device,
            dtype=resources.dtype,
        ),
        catalogue=catalogue,
        saved=saved,
        way=way,
        known=known,
        living=_prepare_living(checkpoint, catalogue, saved, known),
    )


def _gather_classes(
    checkpoint: Checkpoint, catalogue: Catalogue | RemoteCatalogue | None, saved: SavedClassifier | None
) -> KnownClasses:
    """The classes that a run can name as its catalogue is now."""
    keys, names = checkpoint.class_keys, checkpoint.class_names
    if catalogue is None or saved is None:
        nothing = np.empty((0, 0), np.float32)
        return KnownClasses(keys, names, np.empty(0, np.int64), nothing, np.zeros(len(keys), dtype=bool))
    grown = [key for key in catalogue.names if key not in catalogue.removed and key not in set(keys)]
    known = saved.prototypes[ClassOrder(saved.keys).positions_of(keys)]
    rows = catalogue.get_grown_rows()
    more = build_prototypes(rows.embeddings, ClassOrder(grown).positions_of(rows.keys), len(grown), shrinkage=0.0)
    return KnownClasses(
        keys + grown,
        names + [catalogue.names[key] for key in grown],
        ClassOrder(keys + grown).positions_of(catalogue.keys),
        np.concatenate([known, more.reshape(len(grown), known.shape[1])]),
        np.isin(keys, list(catalogue.removed)),
    )


def _prepare_living(
    checkpoint: Checkpoint,
    catalogue: Catalogue | RemoteCatalogue | None,
    saved: SavedClassifier | None,
    known: KnownClasses,
) -> LivingReranker | None:
    """The kept re-ranking, ready for what the catalogue holds.

    None where none was kept, all rows are gone, or the catalogue is in a server, which would have to send all of them.
    """
    if not isinstance(catalogue, Catalogue) or saved is None or saved.reranked is None or not len(catalogue):
        return None
    rows = catalogue.list_alive()
    reranker = build_reranker(
        saved.reranked.method,
        catalogue.get_embeddings(rows),
        known.positions[catalogue.get_classes(rows)],
        known.prototypes,
        _order_categories(checkpoint, saved),
        depth=saved.reranked.depth,
        grown_count=len(known.keys) - len(checkpoint.class_keys),
    )
    return LivingReranker(rows, reranker)


def _order_categories(checkpoint: Checkpoint, saved: SavedClassifier) -> list[int] | None:
    """A number for the category of each of the checkpoint's classes; None where all are of one."""
    if saved.categories is None:
        return None
    order = ClassOrder(saved.keys).positions_of(checkpoint.class_keys)
    return [saved.categories[position] for position in order]


def _load_neighbours(
    run: Path, recipe: Recipe, checkpoint: Checkpoint
) -> tuple[Catalogue | RemoteCatalogue | None, SavedClassifier | None, str]:
    """The gallery's catalogue and the classifier, where these belong together, and both in words."""
    views = recipe.predict.tta
    gallery, folder = run / "index" / get_gallery_views(recipe, views), run / "classifier" / views
    again = f"productrec predict {run} --views {views}"
    if recipe.predict.index_address is not None:
        return _load_remote(run, recipe, checkpoint, again)
    if not folder.exists() or not gallery.exists():
        alone = f"the head alone, through the views {views}; {again} makes what neighbours need to vote too"
        return None, None, alone
    index, saved = load_manifest(gallery, kind=INDEX_KIND), load_classifier(folder)
    belongs = (
        saved.index == index.fingerprint
        and read_weights_digest(gallery, index) == checkpoint.weights_digest
        and sorted(saved.keys) == sorted(checkpoint.class_keys)
    )
    if not belongs or not has_keys(gallery):
        return None, None, f"the head alone, since its index is of an earlier time; {again} makes it anew"
    catalogue = Catalogue(gallery)
    return catalogue, saved, _tell_way(catalogue, saved, views)


def _load_remote(
    run: Path, recipe: Recipe, checkpoint: Checkpoint, again: str
) -> tuple[RemoteCatalogue, SavedClassifier, str]:
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
        "weights": (checkpoint.weights_digest, about.weights_digest),
        "views": (name_views(get_gallery_views(recipe, views)), about.views),
        "the index that the classifier was fitted with": (saved.index, about.fingerprint),
    }
    for what, (wanted, got) in pairs.items():
        if wanted != got:
            short = [value[:12] if isinstance(value, str) else value for value in (wanted, got)]
            raise ArtifactError(
                f"{where}: {what} must be those of {run}, {short[0]}; got {short[1]}. Copy the run's own index there: "
                f"productrec index copy {run} {where}"
            )
    return catalogue, saved, f"{_tell_way(catalogue, saved, views)}; the catalogue is at {where}"


def _tell_way(catalogue: Catalogue | RemoteCatalogue, saved: SavedClassifier, views: str) -> str:
    fitted = {"val": "as fitted on validation", "out of fold": "as fitted out of fold"}.get(
        str(saved.fitted.get("on")), "by default"
    )
    told = saved.tell() if isinstance(catalogue, Catalogue) else saved.classifier.tell()  # no re-ranking in a server
    way = f"{told}, {fitted}, through the views {views}"
    if changed := catalogue.describe_changes():
        way += f"; the catalogue has changed since: {changed}"
    return way
