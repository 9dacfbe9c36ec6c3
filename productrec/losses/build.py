"""Build a metric loss's module: the loss, its mining and its memory, as a recipe has chosen them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from productrec.errors import RecipeError
from productrec.losses.declared import MetricLoss, PairLoss, ProxyLoss, RelatedPairLoss
from productrec.losses.engine.memory import CrossBatchMemory
from productrec.losses.engine.mining import MINING_RULES, MiningRule
from productrec.losses.engine.module import MetricModule
from productrec.losses.own_loss import OwnLoss

MiningChoice = MiningRule | Literal["auto"] | None


def build_metric_loss(
    loss: MetricLoss,
    *,
    mining: MiningChoice = "auto",
    memory_rows: int = 0,
    memory_start_step: int = 1000,
    memory_weight: float = 1.0,
    memory_momentum: float = 0.0,
    embedding_dim: int,
    class_count: int,
    class_sizes: Sequence[int] | None = None,
    allow_code: bool = False,
) -> MetricModule:
    """The module of a metric loss.

    Args:
        loss: with its settings.
        mining: rule of a pair loss, None for all pairs; ``auto`` is what the loss says of itself.
        memory_rows: embeddings of past batches that a pair loss also compares with; 0 for none.
        memory_start_step: batches before the first is remembered.
        memory_weight: weight of the term against the memory.
        memory_momentum: above 0 the memory holds what a momentum encoder says.
        embedding_dim: D.
        class_count: C, for losses with centres, or with numbers of each class.
        class_sizes: (C,) training images of each class, for margins that depend on them.
        allow_code: whether a loss of the user's own may be imported, which runs its code.

    Raises:
        RecipeError: a mining rule or a memory for a loss that takes none, or a loss whose code is not allowed.
    """
    if isinstance(loss, OwnLoss):
        loss = loss.load(allow_code=allow_code)
    name = loss.get_name()
    if isinstance(loss, ProxyLoss):
        _refuse(name, "has no pairs", "auto" if mining is None else mining, memory_rows)
        return loss.build(embedding_dim, class_count, class_sizes)
    assert isinstance(loss, PairLoss), "a loss compares images with images or with centres"
    rule = choose_mining(loss, mining, embedding_dim)
    if isinstance(loss, RelatedPairLoss):
        _refuse(name, "weighs a pair by both rows", "auto" if rule is None else rule, memory_rows)
    module = loss.build(rule, class_count)
    if not memory_rows:
        return module
    return CrossBatchMemory(
        module,
        rows=memory_rows,
        embedding_dim=embedding_dim,
        start_step=memory_start_step,
        weight=memory_weight,
        momentum=memory_momentum,
    )


def choose_mining(loss: PairLoss, mining: MiningChoice, embedding_dim: int) -> MiningRule | None:
    """The rule that is meant for a loss, for embeddings of so many dimensions."""
    if mining == "auto":
        mining = None if loss.mined_by is None else MINING_RULES[loss.mined_by]()
    return None if mining is None else mining.for_dimensions(embedding_dim)


def _refuse(name: str, reason: str, mining: MiningChoice, memory_rows: int) -> None:
    if isinstance(mining, MiningRule):
        raise RecipeError(f"loss.mining: must be auto or none for {name}, which {reason}; got {mining.get_name()}.")
    if memory_rows:
        raise RecipeError(f"loss.memory.rows: must be 0 for {name}, which {reason}; got {memory_rows}.")
