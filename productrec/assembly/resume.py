"""What a run is: the settings that decide its content, which a resume compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from productrec.artifacts import compute_digest, load_manifest
from productrec.recipe import Recipe
from productrec.recognition.probabilities import KIND as PROBABILITIES

# Settings that may differ between a run and its resumption: they change where and how fast, not what is computed.
_FREE_ON_RESUME = (
    ("device",),
    ("runs",),
    ("train", "workers"),
    ("train", "timeout_minutes"),
    ("train", "track"),
    ("predict",),
    ("submit",),
    ("data",),
    ("competition",),
)


def get_decisive_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide a run's content."""
    settings = recipe.dump()
    for path in _FREE_ON_RESUME:
        section = settings
        for key in path[:-1]:
            section = section[key]
        section.pop(path[-1])
    # What these files hold counts, not their names.
    if recipe.train.pseudo_labels is not None:
        settings["train"]["pseudo_labels"] = load_manifest(recipe.train.pseudo_labels, kind=PROBABILITIES).fingerprint
    augmentation = Path(recipe.train.augmentation)
    if augmentation.is_file():
        settings["train"]["augmentation"] = compute_digest(augmentation.read_bytes())
    return settings
