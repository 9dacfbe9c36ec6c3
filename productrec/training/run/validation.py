"""Validation during training: figures of a network on held-out images, head and embedding apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from productrec.class_order import ClassOrder
from productrec.data.dataset import ViewBatch
from productrec.errors import Interrupted
from productrec.metrics.answers import NO_ANSWERS, Answers, join, summarise_logits
from productrec.metrics.competition import CompetitionMetric
from productrec.metrics.retrieval import compute_self_retrieval
from productrec.models.inference import ViewRecognizer
from productrec.runtime import StopRequest
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.resources import Resources
from productrec.training.run.title_validation import TitleValidation


@dataclass(frozen=True)
class Validation:
    """Validates one network after the other on the same images; fields are as the arguments of `validate_network`."""

    loader: Iterable[ViewBatch]
    labels: np.ndarray
    class_ids: np.ndarray
    is_query: np.ndarray | None
    resources: Resources
    metric: CompetitionMetric | None = None
    titles: TitleValidation | None = None

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
            metric=self.metric,
            titles=self.titles,
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
    metric: CompetitionMetric | None = None,
    titles: TitleValidation | None = None,
) -> dict[str, float]:
    """Figures of the head, and of the embedding among the validation images.

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
        metric: the competition's own; None for none.
        titles: of the images, for a network with a text tower; None for none.

    Returns:
        ``top_1_accuracy``, ``top_3_error``, ``recall@1`` and ``map@r``, fractions, of the images that can be read; the
        first two only where the network knows a class of theirs, the last two only where one has another to find.
        With the first two, where there is a metric: it by its key, and ``competition``, the mean of it (1 less an
        error) and the top-1 accuracy. With titles, see `TitleValidation`.

    Raises:
        Interrupted: a stop is wanted.
    """
    ranks = ranks or Ranks()
    if ranks.size == 1 and stop is not None:
        loader = _stop_between(loader, stop)
    own = slice_of_rank(len(labels), ranks)
    judged = labels[own] if len(class_ids) else None
    mine = recognise_images(network, loader, device=device, dtype=dtype, labels=judged, class_ids=class_ids)
    seen = gather_images(mine, len(labels), ranks)
    known = labels[seen.rows]
    figures = {}
    if np.isin(labels, class_ids).any():  # else, as in SOP, the head cannot be judged
        figures = _judge_head(seen.answers, metric)
    roles = None if is_query is None else is_query[seen.rows]
    if titles is not None:
        figures |= titles.measure(network, seen.embeddings, seen.rows, device=device, dtype=dtype)
    if not can_retrieve(known, roles):
        return figures
    return figures | compute_self_retrieval(seen.embeddings, known, is_query=roles)


def _judge_head(answers: Answers, metric: CompetitionMetric | None) -> dict[str, float]:
    top_1 = CompetitionMetric("top_1_accuracy").measure(answers)
    figures = {"top_1_accuracy": top_1, "top_3_error": CompetitionMetric("top_k_error", 3).measure(answers)}
    if metric is not None:
        value = metric.measure(answers)
        figures |= {metric.key: value, "competition": (metric.orient(value) + top_1) / 2}
    return figures


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
    """Rows (N,) of the images that can be read, their embeddings (N, D), and what the head answers to them.

    ``answers`` are none where no labels were asked for.
    """

    rows: list[int]
    embeddings: np.ndarray
    answers: Answers


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
    answers = [NO_ANSWERS]
    kept: list[int] = []
    recognise = ViewRecognizer(network, [(0, False, 0)], device=device, dtype=dtype)
    for batch in loader:
        plain, _ = recognise(batch.cuts)
        good = [position for position, row in enumerate(batch.rows.tolist()) if row not in batch.broken]
        rows = batch.rows[good].tolist()
        embeddings.append(plain.embeddings[good])
        if labels is not None and class_ids is not None and rows:
            positions = ClassOrder(class_ids).positions_of(labels[rows])
            answers.append(summarise_logits(plain.logits[good].numpy(), positions))
        kept += rows
    network.train(was_training)
    together = torch.cat(embeddings).numpy() if kept else np.empty((0, 0), np.float32)
    return RecognisedImages(kept, together, join(answers))


def gather_images(own: RecognisedImages, count: int, ranks: Ranks) -> RecognisedImages:
    """What all ranks recognised, each its `slice_of_rank` of ``count`` images, in their order."""
    start = slice_of_rank(count, ranks).start
    gathered = ranks.gather_objects(([row + start for row in own.rows], own.embeddings, own.answers))
    parts = [part for part in gathered if part[0]] or gathered[:1]  # a rank may have had no image to read
    rows, embeddings, answers = zip(*parts, strict=True)
    return RecognisedImages([row for some in rows for row in some], np.concatenate(embeddings), join(answers))
