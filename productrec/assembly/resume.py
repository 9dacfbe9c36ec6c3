"""What a run is: the settings that decide its content, which a resume compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from productrec.artifacts import compute_digest, load_manifest
from productrec.recipe import Recipe, select_settings
from productrec.recognition.probabilities import KIND as PROBABILITIES


def get_decisive_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide a run's content, by dotted key."""
    settings = select_settings(recipe, "run")
    # What these files hold counts, not their names.
    if recipe.train.pseudo_labels is not None:
        settings["train.pseudo_labels"] = load_manifest(recipe.train.pseudo_labels, kind=PROBABILITIES).fingerprint
    augmentation = Path(recipe.train.augmentation)
    if augmentation.is_file():
        settings["train.augmentation"] = compute_digest(augmentation.read_bytes())
    return settings
