"""The catalogue: every re-ranking by its file's name; FAISS and scipy are not imported."""

from __future__ import annotations

from functools import cache

from productrec.retrieval.reranking import methods
from productrec.retrieval.reranking.declared import Reranking
from productrec.settings.declared import Description, describe_declared, list_declared


@cache
def list_rerankings() -> dict[str, type[Reranking]]:
    """Every re-ranking by its name, in the order of names."""
    return list_declared((methods,), Reranking, what="re-ranking")  # type: ignore[type-abstract]


def describe_rerankings() -> list[Description]:
    """Every re-ranking with its formula, its settings with their defaults, and its source."""
    return describe_declared(list_rerankings())
