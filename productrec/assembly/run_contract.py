"""The contract that a run's submissions follow; found without torch."""

from __future__ import annotations

from pathlib import Path

from productrec.competitions.contract import Contract, load_contract
from productrec.recipe import Recipe
from productrec.recipe.portable import CONTRACT


def name_contract(folder: Path, recipe: Recipe) -> str:
    """The name of a run's contract, or its file in a bundle's folder, as `load_contract` takes it."""
    own = folder / CONTRACT
    return str(own) if own.is_file() else recipe.competition


def find_contract(folder: Path, recipe: Recipe) -> Contract:
    """The contract of a run: the one in a bundle's folder, else the one that its recipe names.

    Raises:
        SubmissionError: it cannot be read.
    """
    return load_contract(name_contract(folder, recipe))
