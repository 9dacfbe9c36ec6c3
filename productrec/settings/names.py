"""Names that settings may have and that files give: told by the files' names, importing none of them."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

AUTO = "auto"  # of a source's format: whichever its files show


@cache
def list_formats() -> tuple[str, ...]:
    """The formats that a source may have, sorted: the names of the modules in ``productrec/data/sources/formats``."""
    folder = import_module("productrec.data.sources.formats")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__)))
