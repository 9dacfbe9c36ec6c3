"""Passes: forward and backward through a batch, whole or in chunks, beside destroyed copies, with other ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from productrec.data.title_batches import TitleBatch
from productrec.models.recognizer import Recognized, Recognizer
from productrec.runtime import autocast
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.sharded_head import ShardedHead
from productrec.training.step.chunks import Chunks
from productrec.training.step.objective import JointLoss
from productrec.training.tricks.mixing import Mixture


class Passes:
    """What it takes to have the gradients of a batch's loss.

    ``newest``: embeddings and labels of the newest batch that the metric term saw, those of all ranks; ``met_metric``:
    whether the batch at hand is in a memory by now.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        objective: JointLoss,
        *,
        device: torch.device,
        dtype: torch.dtype,
        chunk_size: int,
        compile_network: bool,
        ranks: Ranks,
        keys_of: nn.Module | None,
    ) -> None:
        """``keys_of``: the momentum encoder, where the metric term wants its keys."""
        self._recognizer, self._objective, self._ranks, self._keys_of = recognizer, objective, ranks, keys_of
        both = recognizer.recognise_both
        self._network: Callable[[Tensor], Recognized] = recognizer
        self._extract: Callable[[Tensor], Tensor] = recognizer.extract_features
        self._recognise_both: Callable[[Tensor, Tensor], tuple[Recognized, Tensor]] = both
        if compile_network:
            self._network, self._recognise_both = torch.compile(recognizer), torch.compile(both)
            self._extract = torch.compile(recognizer.extract_features)
        self._device, self._dtype = device, dtype
        self.chunk_size = chunk_size
        self.newest: tuple[Tensor, Tensor] | None = None
        self.met_metric = False

    def run(
        self,
        images: Tensor,
        labels: Tensor,
        mixture: Mixture | None,
        step: int,
        scale: Callable[[Tensor], Tensor],
        titles: TitleBatch | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Leave the gradients of a batch's loss with the parameters.

        Args:
            images: (B, S, S, 3) uint8, on the device.
            labels: (B,) class positions.
            mixture: of a mixed batch.
            step: decides how images are destroyed.
            scale: what a loss is multiplied with before its gradient is taken.
            titles: of the images, on the device; None without a text tower. A mixed batch has no title term.

        Returns:
            The loss and its terms, detached.
        """
        self.met_metric = False
        if self.chunk_size and self.chunk_size < len(images):
            return self._run_in_chunks(images, labels, mixture, scale, titles)
        keys = None if mixture is not None else self._compute_keys(images)
        jigsaw = self._objective.jigsaw if mixture is None else None
        if jigsaw is None:
            with self._cast():
                recognized = self._network(images)
            loss, terms = self._compute(recognized, labels, mixture, keys, titles)
        else:
            destroyed, origins = jigsaw.destroy(images, step, self._ranks.rank)
            with self._cast():
                recognized, maps = self._recognise_both(images, destroyed)
            both = torch.cat([labels, labels])
            loss, terms = self._compute(recognized, labels, None, keys, titles, class_labels=both)
            puzzle, puzzle_terms = jigsaw(maps, origins)
            loss, terms = loss + puzzle, terms | puzzle_terms
        if loss.requires_grad:
            torch.autograd.backward(scale(loss))
        return loss.detach(), terms

    def _run_in_chunks(
        self,
        images: Tensor,
        labels: Tensor,
        mixture: Mixture | None,
        scale: Callable[[Tensor], Tensor],
        titles: TitleBatch | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        network = self._recognizer
        statistics = list(network.backbone.buffers())
        learns = any(
            parameter.requires_grad for part in (network.backbone, network.pooling) for parameter in part.parameters()
        )
        chunks = Chunks(self.chunk_size, self._extract, statistics, self._cast, self._device, learns=learns)
        heads = {"neck": network.neck, "head": network.head}
        if mixture is not None or not self._objective.looks_at_pairs:
            return chunks.backward_apart(
                images, labels, mixture, **heads, classify=self._objective.classify, scale=scale
            )
        keys = self._compute_keys(images)
        return chunks.backward_whole(
            images,
            labels,
            **heads,
            compare=lambda embeddings: self._compare(Recognized(embeddings, embeddings[:0]), labels, keys, titles),
            classify=self._objective.classify,
            splits_logits=not isinstance(network.head, ShardedHead),  # which takes all ranks' features at once
            scale=scale,
        )

    def _compute(
        self,
        recognized: Recognized,
        labels: Tensor,
        mixture: Mixture | None,
        keys: Tensor | None,
        titles: TitleBatch | None,
        class_labels: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``class_labels``: of the logits, where they are of more images than the embeddings, which have ``labels``."""
        known = labels if class_labels is None else class_labels
        if mixture is not None or not self._objective.looks_at_pairs:
            if self._is_bad(recognized):
                return recognized.logits.new_full((), torch.nan), {}
            return self._compute_apart(recognized, known, mixture)
        compared = self._compare(recognized, labels, keys, titles)
        if compared is None:
            return recognized.logits.new_full((), torch.nan), {}
        classification, class_terms = self._objective.classify(recognized.logits, known)
        return compared[0] + classification, compared[1] | class_terms

    def _compare(
        self, recognized: Recognized, labels: Tensor, keys: Tensor | None, titles: TitleBatch | None
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The terms over pairs; None where something is not finite. Pairs are those of the whole batch, on any rank."""
        if self._is_bad(recognized):
            return None
        everyone, every_label = self._ranks.gather_rows(recognized.embeddings), self._ranks.gather_rows(labels)
        self.newest, self.met_metric = (everyone.detach(), every_label), True
        every_key = None if keys is None else self._ranks.gather_rows(keys)
        loss, terms = self._objective.compare(everyone, every_label, every_key)
        if titles is None or self._recognizer.text is None:
            return loss, terms
        compared = self._compare_titles(everyone, titles)
        return None if compared is None else (loss + compared[0], terms | compared[1])

    def _compare_titles(self, images: Tensor, titles: TitleBatch) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The title term of all ranks' images (N, D) and this rank's titles; None where a title is not finite."""
        assert self._recognizer.text is not None
        with self._cast():
            embedded = self._recognizer.text(titles.ids, titles.lengths)
        if self._is_bad(Recognized(embedded, embedded[:0])):
            return None
        every_title = self._ranks.gather_rows(embedded)
        present, groups = self._ranks.gather_rows(titles.present), self._ranks.gather_rows(titles.groups)
        return self._objective.compare_titles(images[present], every_title[present], groups[present])

    def _is_bad(self, recognized: Recognized) -> bool:
        """Whether something is not finite, on any rank; looked for where losses would refuse it, on a CPU."""
        return self._device.type == "cpu" and self._ranks.agree([not _is_finite(recognized)], self._device)[0]

    def _compute_apart(
        self, recognized: Recognized, labels: Tensor, mixture: Mixture | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        computed: tuple[Tensor, dict[str, Tensor]] = self._objective(recognized, labels, mixture)
        return computed

    @torch.no_grad()
    def _compute_keys(self, images: Tensor) -> Tensor | None:
        if self._keys_of is None:
            return None
        with self._cast():
            keys = [self._keys_of(part).embeddings for part in torch.split(images, self.chunk_size or len(images))]
        return torch.cat(keys)

    def rehearse(self, images: Tensor) -> None:
        """Go forward and back through images (B, S, S, 3) for the memory that takes; the norms' statistics move."""
        images = images.to(self._device)
        with self._cast():
            recognized = self._network(images if self._objective.jigsaw is None else torch.cat([images, images]))
        # A frozen backbone leaves some without a gradient.
        learned = [output.sum() for output in recognized if output.requires_grad]
        if learned:
            torch.autograd.backward(learned)
        self._recognizer.zero_grad(set_to_none=True)

    def rehearse_losses(self, images: Tensor, labels: Tensor, chunk_size: int) -> None:
        """Likewise through the losses of a whole batch, in chunks where there is a size for them; not beside others."""
        kept, self.chunk_size = self.chunk_size, chunk_size
        try:
            self.run(images.to(self._device), labels.to(self._device), None, 0, lambda loss: loss)
        finally:
            self.chunk_size = kept
            self._recognizer.zero_grad(set_to_none=True)
            self._objective.zero_grad(set_to_none=True)

    def _cast(self) -> AbstractContextManager[object]:
        return autocast(self._device, self._dtype)


def _is_finite(recognized: Recognized) -> bool:
    return bool(recognized.embeddings.isfinite().all()) and bool(recognized.logits.isfinite().all())
