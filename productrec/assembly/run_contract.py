"""The contract that a run's submissions follow; found without torch."""

from __future__ import annotations

from pathlib import Path

from productrec.competitions.contract import Contract, load_contract
from productrec.recipe import Recipe
from productrec.recipe.portable import CONTRACT


def find_contract(folder: Path, recipe: Recipe) -> Contract:
    """The contract of a run: the one in a bundle's folder, else the one that its recipe names.

    Raises:
        SubmissionError: it cannot be read.
    """
    own = folder / CONTRACT
    return load_contract(str(own) if own.is_file() else recipe.competition)
