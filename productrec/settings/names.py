"""Names that settings choose from and that more than the recipe knows; those that files give, by their names alone."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Literal

Schedule = Literal["cosine", "flat", "step"]  # of the learning rate
Sampler = Literal["auto", "pk", "shuffle", "balanced", "square_root", "mixed"]  # of training batches
Precision = Literal["auto", "float32", "bfloat16", "float16"]  # of activations
AUTO = "auto"  # of a source's format: whichever its files show


@cache
def list_formats() -> tuple[str, ...]:
    """The formats that a source may have, sorted: the names of the modules in ``productrec/data/sources/formats``."""
    folder = import_module("productrec.data.sources.formats")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__)))
