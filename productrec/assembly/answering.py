"""What answers for photos: a network, its catalogue and the classifier fitted for both, ready to be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from productrec.artifacts import MANIFEST_NAME, load_manifest
from productrec.assembly.photo_network import NetworkNotes, PhotoNetwork, Seen
from productrec.class_order import ClassOrder
from productrec.data.images import Images
from productrec.recipe import Recipe
from productrec.recognition.classifier import Evidence
from productrec.recognition.classifier_file import SavedClassifier, load_classifier
from productrec.recognition.distractors import compare_distractors
from productrec.recognition.grown import fuse_grown
from productrec.recognition.open_set import believe
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.recognition.reranked import Reranker, build_reranker
from productrec.recognition.vote import compute_softmax
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.embedding_set import KIND as SET_KIND
from productrec.retrieval.embedding_set import EmbeddingSet, read_weights_digest
from productrec.retrieval.index import INDEX_KIND, has_keys
from productrec.retrieval.remote_catalogue import RemoteCatalogue


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


class Neighbours(NamedTuple):
    """What stands beside a network: the catalogue, the classifier fitted with it, and both in words."""

    catalogue: Catalogue | RemoteCatalogue | None
    saved: SavedClassifier | None
    way: str


@dataclass(frozen=True)
class ReadyRun:
    """A run, or an exported file, ready to answer.

    ``run``: its folder, or the file; ``recipe``: of the run, None for a file that stands alone; ``views``: preset that
    photos are seen through; ``batch_size``: photos at a time; ``network``: that looks, ``notes``: what it is;
    ``catalogue``: None where no neighbours are at hand; ``saved``: None where the head answers alone; ``way``: how it
    answers, in words; ``living``: None where no re-ranking was kept.
    """

    run: Path
    recipe: Recipe | None
    views: str
    batch_size: int
    notes: NetworkNotes
    network: PhotoNetwork
    catalogue: Catalogue | RemoteCatalogue | None
    saved: SavedClassifier | None
    way: str
    known: KnownClasses
    living: LivingReranker | None = None

    def refresh(self) -> ReadyRun:
        """The run with what other processes have grown or removed since; itself where there was nothing."""
        if self.catalogue is None or not self.catalogue.refresh():
            return self
        known = _gather_classes(self.notes, self.catalogue, self.saved)
        return replace(self, known=known, living=_prepare_living(self.notes, self.catalogue, self.saved, known))

    def answer(self, photos: Images, *, batch_size: int, neighbours: int = 0) -> Iterator[Answered]:
        """Answer for photos, batch by batch; ``neighbours``: how many are to be named at least."""
        for seen in self.network.go_through(photos, batch_size=batch_size):
            yield self._tell(seen, neighbours)

    def answer_cuts(self, photos: Sequence[Sequence[np.ndarray]], *, neighbours: int = 0) -> Answered:
        """Answer for one batch of photos, each given by its squares of ``network.cut``; else as `answer`."""
        return self._tell(self.network.see(photos), neighbours)

    def _tell(self, seen: Seen, neighbours: int) -> Answered:
        ids = [str(row) for row in seen.rows]
        return Answered(seen.rows, *self._fuse(ids, seen.embeddings, seen.logits, neighbours), seen.broken)

    def _fuse(
        self, ids: list[str], embeddings: np.ndarray, logits: np.ndarray, neighbours: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        if self.catalogue is None:
            nothing = np.empty((len(ids), 0))
            return compute_softmax(logits), nothing.astype(np.int64), nothing.astype(np.float32), None
        notes = self.notes
        queries = EmbeddingSet(ids, embeddings, logits, [], [], notes.weights_digest, {}, "", notes.side_px)
        if self.saved is None:
            return compute_softmax(logits), *self.catalogue.search(queries, neighbours), None
        depth = 0 if self.saved.reranked is None else self.saved.reranked.depth
        rows, similarities = self.catalogue.search(queries, max(self.saved.classifier.vote.k, depth, neighbours))
        evidence = Evidence(
            logits,
            self.known.positions[self.catalogue.get_classes(rows)],
            similarities,
            compare_prototypes(embeddings, self.known.prototypes),
            _order_categories(notes, self.saved),
            None if self.saved.distractors is None else compare_distractors(embeddings, self.saved.distractors),
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


def make_ready(
    asked: Path,
    recipe: Recipe | None,
    views: str,
    notes: NetworkNotes,
    network: PhotoNetwork,
    neighbours: Neighbours,
    *,
    batch_size: int,
) -> ReadyRun:
    """A network with what was found of its neighbours, ready to answer; arguments as in `ReadyRun`."""
    catalogue, saved, way = neighbours
    known = _gather_classes(notes, catalogue, saved)
    living = _prepare_living(notes, catalogue, saved, known)
    return ReadyRun(asked, recipe, views, batch_size, notes, network, catalogue, saved, way, known, living)


def _gather_classes(
    notes: NetworkNotes, catalogue: Catalogue | RemoteCatalogue | None, saved: SavedClassifier | None
) -> KnownClasses:
    """The classes that a run can name as its catalogue is now."""
    keys, names = notes.class_keys, notes.class_names
    if catalogue is None or saved is None:
        nothing = np.empty((0, 0), np.float32)
        positions = ClassOrder(keys).positions_of([] if catalogue is None else catalogue.keys)
        return KnownClasses(keys, names, positions, nothing, np.zeros(len(keys), dtype=bool))
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


def find_neighbours(
    run: Path, gallery: Path, notes: NetworkNotes, *, views: str, titles: Sequence[str], average: str, again: str
) -> Neighbours:
    """The gallery's catalogue and the classifier, where these belong together and to the network, and all in words.

    Args:
        run: the run folder, with the classifier.
        gallery: the index.
        notes: of the network.
        views: preset that photos are seen through.
        titles: of its views, and
        average: what of the head is averaged over them; both may have changed since the classifier was fitted.
        again: the command that makes index and classifier anew.

    Raises:
        ArtifactError: one of them is damaged.
    """
    folder = run / "classifier" / views
    if not folder.exists() or not gallery.exists():
        alone = f"the head alone, through the views {views}; {again} makes what neighbours need to vote too"
        return Neighbours(None, None, alone)
    index, saved = load_manifest(gallery, kind=INDEX_KIND), load_classifier(folder)
    belongs = (
        saved.index == index.fingerprint
        and read_weights_digest(gallery, index) == notes.weights_digest
        and sorted(saved.keys) == sorted(notes.class_keys)
        and all(seen == (list(titles), average) for seen in _list_seen(run / "embeddings" / views, average))
    )
    if not belongs or not has_keys(gallery):
        return Neighbours(None, None, f"the head alone, since its index is of an earlier time; {again} makes it anew")
    catalogue = Catalogue(gallery)
    return Neighbours(catalogue, saved, tell_way(catalogue, saved, views))


def tell_way(catalogue: Catalogue | RemoteCatalogue, saved: SavedClassifier, views: str) -> str:
    """How a catalogue and the classifier that was fitted with it answer, in words."""
    fitted = {"val": "as fitted on validation", "out of fold": "as fitted out of fold"}.get(
        str(saved.fitted.get("on")), "by default"
    )
    told = saved.tell() if isinstance(catalogue, Catalogue) else saved.classifier.tell()  # no re-ranking in a server
    way = f"{told}, {fitted}, through the views {views}"
    if changed := catalogue.describe_changes():
        way += f"; the catalogue has changed since: {changed}"
    return way


def _prepare_living(
    notes: NetworkNotes,
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
        _order_categories(notes, saved),
        depth=saved.reranked.depth,
        grown_count=len(known.keys) - len(notes.class_keys),
    )
    return LivingReranker(rows, reranker)


def _order_categories(notes: NetworkNotes, saved: SavedClassifier) -> list[int] | None:
    """A number for the category of each of the network's classes; None where all are of one."""
    if saved.categories is None:
        return None
    order = ClassOrder(saved.keys).positions_of(notes.class_keys)
    return [saved.categories[position] for position in order]


def _list_seen(folder: Path, average: str) -> Iterator[tuple[list[str], str]]:
    """The views that each embedding set of a preset was seen through, and what was averaged, where they are several."""
    for path in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
        manifest = load_manifest(path.parent, kind=SET_KIND)
        titles = [str(view) for view in manifest.notes["views"]]
        yield titles, manifest.settings.get("average", "logits") if len(titles) > 1 else average
