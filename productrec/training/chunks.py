"""Large batches on small memory: a step whose network runs in chunks while its loss sees the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from productrec.models.recognizer import Recognized
from productrec.runtime import get_random_state, set_random_state
from productrec.training.mixing import Mixture

Loss = Callable[[Recognized, Tensor, Mixture | None], tuple[Tensor, dict[str, Tensor]]]


class Chunks:
    """Runs the forward and backward passes of a batch in chunks of ``size`` images.

    A loss that looks at pairs needs every embedding before any gradient: gradient caching (Gao et al., RepL4NLP 2021)
    embeds all chunks without a graph, takes the loss's gradient by embeddings and logits, and goes through the chunks
    again, each with the random state it had, so that dropout drops the same. One more forward pass buys memory that
    does not grow with the batch. Where no pairs are looked at, gradients are accumulated in a single pass.

    Batch norms see a chunk at a time, in both passes the same one, and their running statistics move once a chunk.
    Without batch norms the gradient is that of the whole batch at once.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._size, self._device = size, device

    def backward_whole(
        self,
        network: Callable[[Tensor], Recognized],
        norms: nn.Module,
        images: Tensor,
        labels: Tensor,
        compute: Callable[[Recognized], tuple[Tensor, dict[str, Tensor]] | None],
        classify: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]] | None,
        scale: Callable[[Tensor], Tensor],
        cast: Callable[[], AbstractContextManager[object]],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of a loss over the whole batch.

        Args:
            network: gives what is recognised of a chunk.
            norms: whose buffers the first pass must leave as they were.
            images: (B, S, S, 3).
            labels: (B,) class positions.
            compute: the loss and its terms of the whole batch, or None where something is not finite.
            classify: what is a mean over images, of a chunk's logits and labels, so that no more than a chunk's logits
                are held and ``compute`` sees none; None where ``compute`` wants all of them.
            scale: what a loss is multiplied with before its gradient is taken.
            cast: the block in which the network runs.

        Returns:
            The loss and its terms, detached.
        """
        states, seen = [], []
        kept = [one.clone() for one in norms.buffers()]
        with torch.no_grad(), cast():
            for chunk in self._split(images):
                states.append(get_random_state(self._device))
                recognized = network(chunk)
                none = recognized.logits[:0]
                seen.append(recognized if classify is None else Recognized(recognized.embeddings, none))
        with torch.no_grad():
            for one, earlier in zip(norms.buffers(), kept, strict=True):
                one.copy_(earlier)
        whole = Recognized(*(torch.cat(parts).requires_grad_() for parts in zip(*seen, strict=True)))
        found = compute(whole)
        if found is None:
            return torch.full((), torch.nan, device=self._device), {}
        loss, terms = found
        if loss.requires_grad:
            torch.autograd.backward(scale(loss))
        total = loss.detach()
        after = get_random_state(self._device)
        wanted = [None if one.grad is None else self._split(one.grad) for one in whole]
        if classify is None and all(part is None for part in wanted):  # nothing is to be learned from this batch
            return total, terms
        for number, (chunk, own) in enumerate(zip(self._split(images), self._split(labels), strict=True)):
            set_random_state(states[number], self._device)
            with cast():
                recognized = network(chunk)
            outputs = [(one, part[number]) for one, part in zip(recognized, wanted, strict=True) if part is not None]
            pairs: list[tuple[Tensor, Tensor | None]] = [*outputs]
            if classify is not None:
                pairs = pairs[:1]  # of the logits there was nothing to be learned yet
                share = len(chunk) / len(images)
                classified, said = classify(recognized.logits, own)
                total = total + classified.detach() * share
                for name, value in said.items():
                    terms[name] = terms.get(name, torch.zeros_like(total)) + value * share
                if classified.requires_grad:
                    pairs.append((scale(classified * share), None))
            if pairs:
                torch.autograd.backward([one for one, _ in pairs], [gradient for _, gradient in pairs])
        set_random_state(after, self._device)
        return total, terms

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Chunks of nearly equal size: a last one of a single image would be too small for batch norms."""
        return torch.tensor_split(rows, -(-len(rows) // self._size))

    def backward_apart(
        self,
        network: Callable[[Tensor], Recognized],
        images: Tensor,
        labels: Tensor,
        mixture: Mixture | None,
        compute: Loss,
        scale: Callable[[Tensor], Tensor],
        cast: Callable[[], AbstractContextManager[object]],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of a loss that is a mean over images, each apart; arguments as for `backward_whole`."""
        total, terms = torch.zeros((), device=self._device), dict[str, Tensor]()
        partners = labels if mixture is None else mixture.partners
        for chunk, own, others in zip(*map(self._split, (images, labels, partners)), strict=True):
            share = len(chunk) / len(images)
            with cast():
                recognized = network(chunk)
            loss, said = compute(recognized, own, None if mixture is None else Mixture(others, mixture.share))
            torch.autograd.backward(scale(loss * share))
            total += loss.detach() * share
            for name, value in said.items():
                terms[name] = terms.get(name, torch.zeros_like(total)) + value * share
        return total, terms
