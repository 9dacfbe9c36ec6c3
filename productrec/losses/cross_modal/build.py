"""Build the cross-modal objective: the loss, its mining, warm-up and memory, as a recipe has chosen them."""

from __future__ import annotations

from typing import Literal

from productrec.errors import RecipeError
from productrec.losses.build import MiningChoice, choose_mining
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.cross_modal.memory import CrossModalMemory
from productrec.losses.cross_modal.objective import CrossModalObjective
from productrec.losses.cross_modal.warm_up import WarmUp
from productrec.losses.declared import MetricLoss, PairLoss
from productrec.losses.own_loss import OwnLoss
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.sum_of_hinges import SumOfHinges


def build_cross_modal_loss(
    loss: MetricLoss,
    *,
    mining: MiningChoice = "auto",
    warm_up_steps: int = 0,
    warm_up: Literal["mix", "switch"] = "mix",
    memory_rows: int = 0,
    memory_start_step: int = 1000,
    memory_weight: float = 1.0,
    embedding_dim: int,
    log_information: bool = True,
    allow_code: bool = False,
) -> CrossModalObjective:
    """The objective between images and titles; called, it gives `CrossModalTerms`, the total and its parts.

    What a loss learns (``learn_temperature`` of ``nt_xent``, ``learned`` of ``pair_logistic``) is a setting of it.

    Args:
        loss: over pairs, with its settings.
        mining: rule for either direction, None for all pairs; ``auto`` is what the loss says of itself.
        warm_up_steps: training batches until the max of hinges stands alone, after a start with the sum; 0 for none.
        warm_up: whether its share grows (``mix``), or it follows on the sum at once (``switch``).
        memory_rows: embeddings of past batches, of each tower, that the other tower is compared with; 0 for none.
        memory_start_step: batches before the first is remembered.
        memory_weight: weight of the term against the memory.
        embedding_dim: D of both towers.
        log_information: whether the bound on the mutual information is computed, at the loss's temperature where it
            has one, learned or not, else at 0.07.
        allow_code: whether a loss of the user's own may be imported, which runs its code.

    Raises:
        RecipeError: a loss that has no two directions, a warm-up of another loss than ``max_of_hinges``, or a loss
            whose code is not allowed.
    """
    if isinstance(loss, OwnLoss):
        loss = loss.load(allow_code=allow_code)
    if not isinstance(loss, PairLoss):
        raise RecipeError(f"{loss.get_name()}: has centres of classes, and titles have none. Choose a loss over pairs.")
    rule = choose_mining(loss, mining, embedding_dim)
    started: WarmUp | None = None
    if warm_up_steps:
        if not isinstance(loss, MaxOfHinges):
            raise RecipeError(
                f"warm-up: leads from the sum of hinges to max_of_hinges; got {loss.get_name()}. Set its steps to 0."
            )
        started = WarmUp(CrossModalLoss(SumOfHinges(margin=loss.margin), rule), warm_up_steps, warm_up)
    memory = (
        CrossModalMemory(
            rows=memory_rows, embedding_dim=embedding_dim, start_step=memory_start_step, weight=memory_weight
        )
        if memory_rows
        else None
    )
    return CrossModalObjective(
        CrossModalLoss(loss, rule),
        warm_up=started,
        memory=memory,
        log_information=log_information,
    )
