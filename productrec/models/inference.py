"""Inference: batches of cut views to one embedding and one row of logits an image, and the plain view's beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from productrec.models.recognizer import Recognized
from productrec.runtime import autocast

_CHUNK_BYTES = 256 << 20  # of activations at a time, on a CPU
_LIVE = 3  # activations as large as the largest that live at once: what a layer reads, writes, and keeps aside


class ViewRecognizer:
    """Recognises batch after batch of images through several views.

    On a CPU the network sees no more images at a time than have some hundred MB of activations: larger batches gain no
    speed there, and the memory that they take and give back costs some.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Sequence[tuple[int, bool, int]],
        *,
        device: torch.device,
        dtype: torch.dtype,
        average: str = "logits",
    ) -> None:
        """Prepare for the views of ``plan``.

        Args:
            network: a recognizer in evaluation mode, on ``device``.
            plan: for each view the number of its cut, whether it is mirrored, and then by how many quarters it is
                turned to the left; the first view is the plain one.
            device: where to compute.
            dtype: of activations.
            average: over views, ``logits`` or ``probabilities``.
        """
        if not plan:
            raise ValueError("ViewRecognizer: plan must name at least the plain view; got none.")
        self._network, self._plan, self._device, self._dtype = network, plan, device, dtype
        self._by_probabilities = average == "probabilities" and len(plan) > 1
        self._chunks: dict[tuple[int, ...], int] = {}

    @torch.inference_mode()
    def __call__(self, cuts: Sequence[Tensor]) -> tuple[Recognized, Recognized]:
        """Recognise images through all views.

        Args:
            cuts: one (B, S, S, 3) uint8 tensor a distinct cut.

        Returns:
            The plain view's embeddings and logits, and those of all views together: the mean embedding brought back to
            unit norm, the mean of the logits; or, of ``probabilities``, the logarithm of their mean, whose softmax
            they are. On the CPU, in float32.
        """
        moved: dict[int, Tensor] = {}
        seen: list[Recognized] = []
        for number, mirrored, turns in self._plan:
            if number not in moved:
                moved[number] = cuts[number].to(self._device, non_blocking=True)
            recognized = self._recognise(_turn(moved[number], mirrored, turns))
            if not seen:
                seen = [recognized, Recognized(recognized.embeddings.clone(), self._get_terms(recognized).clone())]
                continue
            seen[1].embeddings.add_(recognized.embeddings)
            if self._by_probabilities:  # a sum of logarithms' exponents, since a probability may be too small to hold
                torch.logaddexp(seen[1].logits, self._get_terms(recognized), out=seen[1].logits)
            else:
                seen[1].logits.add_(recognized.logits)
        plain, sums = seen
        count = len(self._plan)
        logits = sums.logits - math.log(count) if self._by_probabilities else sums.logits / count
        together = Recognized(F.normalize(sums.embeddings, dim=1).cpu(), logits.cpu())
        return Recognized(plain.embeddings.cpu(), plain.logits.cpu()), together

    def _recognise(self, images: Tensor) -> Recognized:
        """What the network says of the images (B, S, S, 3), as many at a time as suit the device."""
        shape = tuple(images.shape[1:])
        if self._device.type != "cpu" or not len(images):
            return self._forward(images)
        if shape not in self._chunks:
            with autocast(self._device, self._dtype):
                own = getattr(self._network, "_orig_mod", self._network)  # compiling for the one image takes a minute
                self._chunks[shape] = max(1, _CHUNK_BYTES // (_LIVE * measure_largest(own, images[:1])))
        parts = [self._forward(chunk) for chunk in torch.split(images, self._chunks[shape])]
        return parts[0] if len(parts) == 1 else Recognized(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _get_terms(self, recognized: Recognized) -> Tensor:
        return F.log_softmax(recognized.logits, dim=1) if self._by_probabilities else recognized.logits

    def _forward(self, images: Tensor) -> Recognized:
        with autocast(self._device, self._dtype):
            recognized: Recognized = self._network(images)
        return recognized


def _turn(images: Tensor, mirrored: bool, turns: int) -> Tensor:
    """Images (B, S, S, 3) mirrored, then turned by quarters to the left."""
    if mirrored:
        images = images.flip(2)
    return torch.rot90(images, turns, dims=(1, 2)) if turns else images


def measure_largest(network: nn.Module, images: Tensor) -> int:
    """Bytes of the largest tensor that any layer of a network gives for ``images``, or of what it is given."""
    largest = images.numel() * 4

    def look(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * output.element_size())

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return largest
