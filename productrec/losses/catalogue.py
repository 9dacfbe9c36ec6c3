"""The catalogue: every metric loss by its file's name; nothing heavy is imported."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import NamedTuple

from productrec.losses import pair, proxy
from productrec.losses.declared import MetricLoss, PairLoss
from productrec.losses.engine.mining import MINING_RULES, MiningRule


class Description(NamedTuple):
    """A loss as a list shows it."""

    name: str
    formula: str
    settings: str
    source: str


@cache
def list_losses() -> dict[str, type[MetricLoss]]:
    """Every loss by its name: pair losses first, each kind in the order of names."""
    losses = {}
    for package in (pair, proxy):
        for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
            module = importlib.import_module(f"{package.__name__}.{name}")
            declared = [
                value
                for value in vars(module).values()
                if isinstance(value, type) and issubclass(value, MetricLoss) and value.__module__ == module.__name__
            ]
            if len(declared) != 1:
                raise TypeError(f"{module.__name__}: must declare one metric loss; got {len(declared)}")
            losses[name] = declared[0]
    return losses


def describe_losses() -> list[Description]:
    """Every loss with its formula, its settings with their defaults, and its source."""
    described = []
    for name, loss in list_losses().items():
        settings = ", ".join(f"{field} {info.default}" for field, info in loss.model_fields.items())
        described.append(Description(name, loss.formula, settings, loss.source))
    return described


def list_pair_losses() -> dict[str, tuple[PairLoss, MiningRule | None]]:
    """Every pair loss with its default settings, and the mining that ``auto`` means for it."""
    made = {name: loss() for name, loss in list_losses().items() if issubclass(loss, PairLoss)}
    return {
        name: (loss, None if loss.mined_by is None else MINING_RULES[loss.mined_by]()) for name, loss in made.items()
    }
