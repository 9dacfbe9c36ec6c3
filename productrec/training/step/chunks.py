"""Large batches on small memory: the backbone runs in chunks, while heads and losses see the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from productrec.runtime import get_random_state, set_random_state
from productrec.training.tricks.mixing import Mixture

Loss = tuple[Tensor, dict[str, Tensor]]  # a loss, and its terms


class Chunks:
    """Runs the forward and backward passes of a batch in chunks of ``size`` images.

    A loss that looks at pairs needs every embedding before any gradient, and the neck's batch norm needs every feature:
    gradient caching (Gao et al., RepL4NLP 2021) extracts the pooled features of all chunks without a graph, takes the
    gradient of neck, heads and losses by them over the whole batch at once, and goes through the chunks again, each
    with the random state it had, so that dropout drops the same. One more forward pass buys memory that does not grow
    with the batch, but for its features. Where nothing before the features learns there is no second pass, and where no
    pairs are looked at, gradients are accumulated in a single one.

    The gradient is that of the whole batch at once, for backbones without batch norms and for those whose norms keep
    their statistics (``train.freeze_norms``). Other batch norms of the backbone see a chunk at a time, in both passes
    the same one, and their running statistics move once a chunk.
    """

    def __init__(
        self,
        size: int,
        extract: Callable[[Tensor], Tensor],
        statistics: Sequence[Tensor],
        cast: Callable[[], AbstractContextManager[object]],
        device: torch.device,
        *,
        learns: bool,
    ) -> None:
        """What every batch needs.

        Args:
            size: images of a chunk at most.
            extract: gives the pooled features (B, F) of images (B, S, S, 3).
            statistics: buffers that ``extract`` moves, which the pass without a graph must leave as they were.
            cast: the block in which networks run.
            device: where all is.
            learns: whether ``extract`` has anything that requires a gradient.
        """
        self._size, self._extract, self._statistics = size, extract, statistics
        self._cast, self._device, self._learns = cast, device, learns

    def backward_whole(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        neck: nn.Module,
        head: nn.Module,
        compare: Callable[[Tensor], Loss | None],
        classify: Callable[[Tensor, Tensor], Loss],
        splits_logits: bool,
        scale: Callable[[Tensor], Tensor],
    ) -> Loss:
        """Gradients of a loss over the whole batch.

        Args:
            images: (B, S, S, 3).
            labels: (B,) class positions.
            neck: from features to embeddings.
            head: from features to logits, each image by itself.
            compare: the metric term of the batch's embeddings, or None where something is not finite.
            classify: the classification term of logits and labels, a mean over images.
            splits_logits: whether that may be had of a chunk at a time, so that no more than its logits are held.
            scale: what a loss is multiplied with before its gradient is taken.

        Returns:
            The loss and its terms, detached.
        """
        states, seen = [], []
        moved = self._statistics if self._learns else ()  # by the second pass, where there is one
        kept = [buffer.clone() for buffer in moved]
        with torch.no_grad(), self._cast():
            for chunk in self._split(images):
                states.append(get_random_state(self._device))
                seen.append(self._extract(chunk))
        with torch.no_grad():
            for buffer, earlier in zip(moved, kept, strict=True):
                buffer.copy_(earlier)
        features = torch.cat(seen).requires_grad_(self._learns)
        del seen
        computed = self._backward_heads(features, labels, neck, head, compare, classify, splits_logits, scale)
        if computed is None:
            return torch.full((), torch.nan, device=self._device), {}
        after = get_random_state(self._device)
        wanted = features.grad
        del features
        if wanted is not None:
            for state, chunk, gradient in zip(states, self._split(images), self._split(wanted), strict=True):
                set_random_state(state, self._device)
                with self._cast():
                    again = self._extract(chunk)
                torch.autograd.backward(again, gradient)
            set_random_state(after, self._device)
        return computed

    def _backward_heads(
        self,
        features: Tensor,
        labels: Tensor,
        neck: nn.Module,
        head: nn.Module,
        compare: Callable[[Tensor], Loss | None],
        classify: Callable[[Tensor, Tensor], Loss],
        splits_logits: bool,
        scale: Callable[[Tensor], Tensor],
    ) -> Loss | None:
        """The loss by features (B, F), whose gradient is left with them and with what learns in the heads."""
        with self._cast():
            embeddings = neck(features)
        compared = compare(embeddings)
        if compared is None:
            return None
        loss, terms = compared
        if loss.requires_grad:
            torch.autograd.backward(scale(loss))
        total = loss.detach()
        pieces = self._split if splits_logits else lambda rows: (rows,)
        for some, own in zip(pieces(features), pieces(labels), strict=True):
            share = len(own) / len(labels)
            with self._cast():
                logits = head(some)
            loss, own_terms = classify(logits, own)
            if loss.requires_grad:
                torch.autograd.backward(scale(loss * share))
            total = total + loss.detach() * share
            _add(terms, own_terms, share)
        return total, terms

    def backward_apart(
        self,
        images: Tensor,
        labels: Tensor,
        mixture: Mixture | None,
        *,
        neck: nn.Module,
        head: nn.Module,
        classify: Callable[[Tensor, Tensor, Mixture | None], Loss],
        scale: Callable[[Tensor], Tensor],
    ) -> Loss:
        """Gradients of the classification term alone, a chunk at a time; arguments as for `backward_whole`.

        The neck sees the whole batch for its statistics alone.
        """
        total, terms, seen = torch.zeros((), device=self._device), dict[str, Tensor](), []
        partners = labels if mixture is None else mixture.partners
        for chunk, own, others in zip(*map(self._split, (images, labels, partners)), strict=True):
            share = len(chunk) / len(images)
            with self._cast():
                features = self._extract(chunk)
                logits = head(features)
            seen.append(features.detach())
            loss, own_terms = classify(logits, own, None if mixture is None else Mixture(others, mixture.share))
            if loss.requires_grad:
                torch.autograd.backward(scale(loss * share))
            total += loss.detach() * share
            _add(terms, own_terms, share)
        with torch.no_grad(), self._cast():
            neck(torch.cat(seen))
        return total, terms

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Chunks of nearly equal size: a last one of a single image would be too small for batch norms."""
        return torch.tensor_split(rows, -(-len(rows) // self._size))


def _add(terms: dict[str, Tensor], own: dict[str, Tensor], share: float) -> None:
    for name, value in own.items():
        terms[name] = terms.get(name, torch.zeros_like(value)) + value * share
