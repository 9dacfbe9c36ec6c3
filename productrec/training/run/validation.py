"""Validation during training: figures of a network on held-out images, head and embedding apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from productrec.data.dataset import ViewBatch
from productrec.errors import Interrupted
from productrec.metrics.classification import compute_label_ranks
from productrec.metrics.retrieval import compute_self_retrieval
from productrec.models.inference import ViewRecognizer
from productrec.runtime import StopRequest
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.resources import Resources


@dataclass(frozen=True)
class Validation:
    """Validates one network after the other on the same images; fields are as the arguments of `validate_network`."""

    loader: Iterable[ViewBatch]
    labels: np.ndarray
    class_ids: np.ndarray
    is_query: np.ndarray | None
    resources: Resources

    def measure(self, network: nn.Module, stop: StopRequest | None = None) -> dict[str, float]:
        """Figures of a network; all ranks call it together.

        Raises:
            Interrupted: a stop is wanted.
        """
        return validate_network(
            network,
            self.loader,
            self.labels,
            self.class_ids,
            device=self.resources.device,
            dtype=self.resources.dtype,
            is_query=self.is_query,
            ranks=self.resources.ranks,
            stop=stop,
        )


def validate_network(
    network: nn.Module,
    loader: Iterable[ViewBatch],
    labels: np.ndarray,
    class_ids: np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
    is_query: np.ndarray | None = None,
    ranks: Ranks | None = None,
    stop: StopRequest | None = None,
) -> dict[str, float]:
    """Top-1 accuracy and top-3 error of the head, Recall@1 and MAP@R of the embedding among the validation images.

    Args:
        network: a recognizer; left in the mode it was in.
        loader: plain views of N images, or of this rank's slice of them.
        labels: (N,) class ids, also ones the network does not know.
        class_ids: (C,) class ids in the order of the logits.
        device: where to compute.
        dtype: of activations.
        is_query: (N,) bool, images that are looked for among the others alone; None where each is, among all others.
        ranks: that share the images, see `slice_of_rank`; all get the same figures.
        stop: looked at between batches; several ranks, which must go on together, do not look.

    Returns:
        ``top_1_accuracy``, ``top_3_error``, ``recall@1`` and ``map@r``, fractions, of the images that can be read; the
        first two only where the network knows a class of theirs, the last two only where one has another to find.

    Raises:
        Interrupted: a stop is wanted.
    """
    ranks = ranks or Ranks()
    if ranks.size == 1 and stop is not None:
        loader = _stop_between(loader, stop)
    own = slice_of_rank(len(labels), ranks)
    mine = recognise_images(network, loader, device=device, dtype=dtype, labels=labels[own], class_ids=class_ids)
    seen = gather_images(mine, len(labels), ranks)
    known = labels[seen.rows]
    figures = {}
    if np.isin(labels, class_ids).any():  # else, as in SOP, the head cannot be judged
        figures["top_1_accuracy"] = float(np.mean(seen.label_ranks == 0))
        figures["top_3_error"] = float(np.mean(seen.label_ranks >= min(3, len(class_ids))))
    roles = None if is_query is None else is_query[seen.rows]
    if not can_retrieve(known, roles):
        return figures
    return figures | compute_self_retrieval(seen.embeddings, known, is_query=roles)


def can_retrieve(labels: np.ndarray, is_query: np.ndarray | None) -> bool:
    """Whether any image of labels (N,) has another of its class to find, see `validate_network`."""
    if is_query is None:
        return bool(np.unique(labels, return_counts=True)[1].max() > 1)
    return bool(np.isin(labels[is_query], labels[~is_query]).any())


def _stop_between(batches: Iterable[ViewBatch], stop: StopRequest) -> Iterator[ViewBatch]:
    for batch in batches:
        if stop.wanted:
            raise Interrupted("stopped in validation.", stop.exit_code)
        yield batch


def slice_of_rank(count: int, ranks: Ranks) -> slice:
    """The rows of ``count`` that are this rank's: without padding, put together in the order of ranks."""
    edges = [count * rank // ranks.size for rank in range(ranks.size + 1)]
    return slice(edges[ranks.rank], edges[ranks.rank + 1])


class RecognisedImages(NamedTuple):
    """Rows (N,) of the images that can be read, their embeddings (N, D), and how many classes rank before their label.

    ``label_ranks`` (N,) are C where the label is not among the classes, and empty where no labels were asked for.
    """

    rows: list[int]
    embeddings: np.ndarray
    label_ranks: np.ndarray


def recognise_images(
    network: nn.Module,
    loader: Iterable[ViewBatch],
    *,
    device: torch.device,
    dtype: torch.dtype,
    labels: np.ndarray | None = None,
    class_ids: np.ndarray | None = None,
) -> RecognisedImages:
    """Recognise images through the plain view; the network is left in the mode it was in.

    No more than a batch's logits are held at a time. ``labels`` (N,) are class ids, ``class_ids`` (C,) those of the
    logits.
    """
    was_training = network.training
    network.eval()
    embeddings: list[Tensor] = []
    label_ranks: list[np.ndarray] = [np.empty(0, np.int64)]
    kept: list[int] = []
    recognise = ViewRecognizer(network, [(0, False, 0)], device=device, dtype=dtype)
    for batch in loader:
        plain, _ = recognise(batch.cuts)
        good = [position for position, row in enumerate(batch.rows.tolist()) if row not in batch.broken]
        rows = batch.rows[good].tolist()
        embeddings.append(plain.embeddings[good])
        if labels is not None and class_ids is not None and rows:
            label_ranks.append(
                compute_label_ranks(plain.logits[good].numpy(), class_ids, labels[rows], where="validation")
            )
        kept += rows
    network.train(was_training)
    together = torch.cat(embeddings).numpy() if kept else np.empty((0, 0), np.float32)
    return RecognisedImages(kept, together, np.concatenate(label_ranks))


def gather_images(own: RecognisedImages, count: int, ranks: Ranks) -> RecognisedImages:
    """What all ranks recognised, each its `slice_of_rank` of ``count`` images, in their order."""
    start = slice_of_rank(count, ranks).start
    gathered = ranks.gather_objects(([row + start for row in own.rows], own.embeddings, own.label_ranks))
    parts = [part for part in gathered if part[0]] or gathered[:1]  # a rank may have had no image to read
    rows, embeddings, label_ranks = zip(*parts, strict=True)
    return RecognisedImages(
        [row for some in rows for row in some], np.concatenate(embeddings), np.concatenate(label_ranks)
    )
