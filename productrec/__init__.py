"""productrec: tell near-identical products apart, from a competition's files to a scored submission.

``import productrec`` is light. ``productrec.ingest``, ``load_recipe``, ``train``, ``predict``, ``submit``, ``load`` and
``silence`` are functions of `productrec.library`, which is imported when one of them is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from productrec.library import ingest, load, load_recipe, predict, silence, submit, train

__version__ = "0.1.0"
__all__ = ["ingest", "load", "load_recipe", "predict", "silence", "submit", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from productrec.runtime import prepare_process

    prepare_process()  # before torch is imported
    from productrec import library

    return getattr(library, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
