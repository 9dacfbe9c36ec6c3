"""The classification head in shards: each rank keeps some of the classes, and a step compares with a sample of them."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from productrec.losses.engine.batch import check_batch, check_label_range
from productrec.losses.engine.gradient import hand_over_gradients, keep_gradients
from productrec.models.recognizer import ClassificationHead, Recognizer
from productrec.runtime import autocast
from productrec.training.ranks.group import Ranks

_BLOCK_CLASSES = 1024  # whose first weights are drawn together, so that they are the same on any number of ranks


class ShardedHead(nn.Module):
    """A `ClassificationHead` for more classes than one device can train (Partial FC; An et al., CVPR 2022).

    Every rank keeps the weights of an equal number of classes, their gradients and what the optimiser keeps of them,
    and computes their logits for the images of all ranks; the softmax goes over all shards. With ``negative_share``
    under 1 a step compares with a random sample of the classes, those of the batch among them: the softmax is then over
    these alone. To validate and to save, the weights of all classes are put together on every rank.

    Departure: rows that were not sampled have no gradient, but the optimiser still moves them by what it remembers.

    While it trains it gives features in place of logits, `compute_loss` wants these; `assemble` gives the network that
    recognises.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        feature_dim: int,
        class_count: int,
        *,
        dropout: float,
        negative_share: float,
        ranks: Ranks,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """``negative_share``: of a rank's classes that a step compares with at least, in (0, 1]; ``dtype``: of logits,
        before the softmax, which is float32.
        """
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self._class_count, self._negative_share, self._ranks = class_count, negative_share, ranks
        self._dtype = dtype
        self._rows = -(-class_count // ranks.size)  # the last shards may hold rows of no class
        self._start = ranks.rank * self._rows
        first = _draw_rows(self._start, self._rows, feature_dim)
        self.weight, self.bias = nn.Parameter(first[:, :-1].contiguous()), nn.Parameter(first[:, -1].contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) features, as `compute_loss` wants them."""
        kept: Tensor = self.dropout(features)
        return kept

    def compute_loss(self, features: Tensor, labels: Tensor, *, label_smoothing: float) -> Tensor:
        """Mean cross-entropy over the images of all ranks; all must call it together.

        The value is the same on every rank. Gradients of the weights are whole; those of the features come back times
        the number of ranks, for gradients that are averaged.

        Args:
            features: (B, F), as many on every rank.
            labels: (B,) class positions among all classes.
            label_smoothing: share of the target spread evenly over the classes that are compared with.

        Raises:
            TrainingError: shapes do not fit, labels are not integers or, on the CPU, out of range.
        """
        check_batch("classification loss", features, labels)
        check_label_range("classification loss", labels, self._class_count)
        everyone = self._ranks.gather_rows(features, is_partial=True)
        columns = self._ranks.gather_rows(labels.long()) - self._start
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        compared = self._class_count
        if self._negative_share < 1:
            chosen, columns = self._choose(columns)
            weight, bias = weight[chosen], bias[chosen]
            compared = sum(self._count_chosen(rank, len(everyone)) for rank in range(self._ranks.size))
        else:
            own = self._count_classes(self._ranks.rank)
            weight, bias = weight[:own], bias[:own]
            columns = torch.where((columns >= 0) & (columns < own), columns, -1)
        with autocast(everyone.device, self._dtype):
            logits = F.linear(everyone, weight, bias).float()
        loss: Tensor = _ShardedCrossEntropy.apply(logits, columns, self._ranks, label_smoothing, compared)
        return loss

    def _choose(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Own classes that a step compares with, ascending, and where in them each label is, -1 for others' labels."""
        own = self._count_classes(self._ranks.rank)
        is_own = (columns >= 0) & (columns < own)
        chance = torch.rand(self._rows + 1, device=columns.device)
        chance[torch.where(is_own, columns, own)] = 2.0  # labels come first; those of others land beyond the own ones
        chance = chance[:own]
        count = self._count_chosen(self._ranks.rank, len(columns))
        chosen = chance.topk(count).indices.sort().values
        positions = torch.searchsorted(chosen, columns.contiguous())
        return chosen, torch.where(is_own, positions, -1)

    def _count_classes(self, rank: int) -> int:
        return max(0, min(self._rows, self._class_count - rank * self._rows))

    def _count_chosen(self, rank: int, images: int) -> int:
        """So many that every class of the batch is among them, without looking how many these are."""
        own = self._count_classes(rank)
        return min(own, max(math.ceil(self._negative_share * own), images))

    @torch.no_grad()
    def assemble(self) -> ClassificationHead:
        """The plain head of all classes, on this device; all ranks must call it together."""
        with torch.device("meta"):  # else first weights would be drawn, and the random state moves on
            whole = ClassificationHead(1, 1, 0.0)
        for name in ("weight", "bias"):
            shards = self._ranks.gather_tensors(getattr(self, name).detach())
            setattr(whole.linear, name, nn.Parameter(torch.cat(shards)[: self._class_count], requires_grad=False))
        whole.linear.out_features, whole.linear.in_features = whole.linear.weight.shape
        whole.train(self.training)
        return whole


def assemble_network(network: nn.Module) -> nn.Module:
    """A recognizer that gives logits of all classes, and shares everything else; any other network as it is."""
    if not isinstance(network, Recognizer) or not isinstance(network.head, ShardedHead):
        return network
    whole = copy.copy(network)
    whole._modules = dict(network._modules)
    whole.head = network.head.assemble()
    return whole


def list_shard(head: ShardedHead, optimizer: torch.optim.Optimizer, average: nn.Module | None) -> dict[str, Tensor]:
    """All that a rank keeps for its classes alone, by name: weights, what the optimiser keeps of them, averages.

    ``average``: the averaged network, where there is one.
    """
    own = dict[str, Tensor]()
    for name, parameter in head.named_parameters():
        own[name] = parameter.detach()
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            if isinstance(value, Tensor) and value.ndim:  # a count of steps is the same everywhere
                own[f"optimizer.{name}.{key}"] = value
        if average is not None:
            own[f"average.{name}"] = average.get_parameter(f"head.{name}").detach()
    return own


def gather_shards(own: dict[str, Tensor], ranks: Ranks) -> list[dict[str, Tensor]]:
    """What `list_shard` gives on every rank, in their order, on the CPU; all must call it together.

    Only the first rank, which saves them, keeps them; the others get none.
    """
    parts = dict[str, list[Tensor]]()
    for name, value in own.items():
        gathered = ranks.gather_tensors(value)
        if ranks.is_first:
            parts[name] = [part.cpu() for part in gathered]
    if not ranks.is_first:
        return []
    return [{name: values[rank] for name, values in parts.items()} for rank in range(ranks.size)]


class _ShardedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of logits (N, K) whose other columns other ranks hold; ``columns`` -1 where the label does."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, columns: Tensor, ranks: Ranks, smoothing: float, compared: int) -> Tensor:
        count, own = logits.shape
        tops = logits.amax(dim=1) if own else logits.new_full((count,), -torch.inf)
        tops = ranks.reduce(tops, "max")
        exponentials = (logits - tops[:, None]).exp_()
        is_own = columns >= 0
        given = logits.gather(1, columns.clamp(min=0)[:, None])[:, 0] if own else logits.new_zeros(count)
        given = torch.where(is_own, given, 0.0)
        totals, given, sums = ranks.reduce(torch.stack([exponentials.sum(dim=1), given, logits.sum(dim=1)]), "sum")
        losses = totals.log() + tops - (1 - smoothing) * given - smoothing / compared * sums
        gradient = exponentials.div_(totals[:, None] * count).sub_(smoothing / compared / count)  # no copy: it is large
        if own:
            share = (smoothing - 1) / count * is_own[:, None].to(logits.dtype)
            gradient.scatter_add_(1, columns.clamp(min=0)[:, None], share)
        loss: Tensor = losses.mean()
        keep_gradients(ctx, loss, (gradient,), (logits,))
        return loss

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_over_gradients(ctx, outer), None, None, None, None)


def _draw_rows(start: int, count: int, feature_dim: int) -> Tensor:
    """First weights and biases (count, F + 1), as of `nn.Linear`; a block of classes is drawn by itself alone."""
    seed = int(torch.randint(2**62, ()))
    bound = 1 / math.sqrt(feature_dim)
    blocks = []
    for block in range(start // _BLOCK_CLASSES, -(-(start + count) // _BLOCK_CLASSES)):
        generator = torch.Generator().manual_seed(seed + block)
        drawn = torch.rand(_BLOCK_CLASSES, feature_dim + 1, generator=generator)
        first = block * _BLOCK_CLASSES
        blocks.append(drawn[max(0, start - first) : start + count - first])
    return (2 * torch.cat(blocks) - 1) * bound
