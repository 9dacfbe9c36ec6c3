"""The catalogue: every re-ranking by its file's name; FAISS and scipy are not imported."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import NamedTuple

from productrec.retrieval.reranking import methods
from productrec.retrieval.reranking.declared import Reranking


class Description(NamedTuple):
    """A re-ranking as a list shows it."""

    name: str
    formula: str
    settings: str
    source: str


@cache
def list_rerankings() -> dict[str, type[Reranking]]:
    """Every re-ranking by its name, in the order of names."""
    rerankings = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(methods.__path__)):
        module = importlib.import_module(f"{methods.__name__}.{name}")
        declared = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Reranking) and value.__module__ == module.__name__
        ]
        if len(declared) != 1:
            raise TypeError(f"{module.__name__}: must declare one re-ranking; got {len(declared)}")
        rerankings[name] = declared[0]
    return rerankings


def describe_rerankings() -> list[Description]:
    """Every re-ranking with its formula, its settings with their defaults, and its source."""
    described = []
    for name, reranking in list_rerankings().items():
        settings = ", ".join(f"{field} {info.default}" for field, info in reranking.model_fields.items())
        described.append(Description(name, reranking.formula, settings, reranking.source))
    return described
