"""Names that settings choose from and that stand in no settings file: told without importing what they name."""

from __future__ import annotations

from importlib import resources


def list_formats() -> tuple[str, ...]:
    """Formats of a source: the names of the files in `productrec.data.sources.formats`, sorted."""
    files = resources.files("productrec.data.sources.formats").iterdir()
    names = (file.name.removesuffix(".py") for file in files if file.name.endswith(".py"))
    return tuple(sorted(name for name in names if not name.startswith("_")))
