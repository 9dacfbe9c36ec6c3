"""The catalogue: every metric loss by its file's name; nothing heavy is imported."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from productrec.losses import pair, proxy
from productrec.losses.declared import MetricLoss, PairLoss, ProxyLoss
from productrec.losses.engine.mining import MINING_RULES, MiningRule
from productrec.settings.declared import Description, describe_declared, list_declared

if TYPE_CHECKING:
    from productrec.losses.engine.weight_curves import View


@cache
def list_losses() -> dict[str, type[MetricLoss]]:
    """Every loss by its name: pair losses first, each kind in the order of names."""
    return list_declared((pair, proxy), MetricLoss, what="metric loss")


def describe_losses() -> list[Description]:
    """Every loss with its formula, its settings with their defaults, and its source."""
    return describe_declared(list_losses())


def list_pair_losses() -> dict[str, tuple[PairLoss, MiningRule | None]]:
    """Every pair loss with its default settings, and the mining that ``auto`` means for it.

    For looking at how losses weigh pairs: a mining that draws by chance, which says nothing of that, is left out.
    """
    made = {name: loss() for name, loss in list_losses().items() if issubclass(loss, PairLoss)}
    return {name: (loss, _find_fixed_mining(loss)) for name, loss in made.items()}


def _find_fixed_mining(loss: PairLoss) -> MiningRule | None:
    rule = None if loss.mined_by is None else MINING_RULES[loss.mined_by]
    return None if rule is None or rule.is_random else rule()


def list_similarities() -> dict[str, tuple[View, ...] | None]:
    """Every loss with those of General Pair Weighting's similarities that it weighs pairs by, see `find_similarities`.

    By its default settings and the mining that ``auto`` means for it. A loss with centres is looked at between an
    anchor and centres; None for one that does not weigh pairs one by one.
    """
    from productrec.losses.engine.weighing import PairWeighting
    from productrec.losses.engine.weight_curves import find_similarities

    fixed = list_pair_losses()
    similarities: dict[str, tuple[View, ...] | None] = {}
    for name, declared in list_losses().items():
        if name in fixed:
            loss, mining = fixed[name]
            similarities[name] = find_similarities(loss, mining)
            continue
        made = declared()
        assert isinstance(made, ProxyLoss), "a loss compares images with images or with centres"
        weighting = getattr(made.build(embedding_dim=2, class_count=13), "loss", None)
        if isinstance(weighting, PairWeighting):
            similarities[name] = find_similarities(weighting, positive_count=1)
        else:
            similarities[name] = None
    return similarities
