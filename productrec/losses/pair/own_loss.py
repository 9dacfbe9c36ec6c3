"""A loss of the user's own: imported by its path where that is allowed, and looked at before anything of it is called.

Importing a module runs it, so a recipe from somebody else could run any command. What lies in `productrec.losses` is
imported freely; anything else only where the person at the command line says so.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from productrec.errors import RecipeError
from productrec.losses.pair.pairwise import PairwiseLoss

_OURS = "productrec.losses."
_ENGINE = "/productrec/losses/"


def check_code_allowed(path: str, *, allow_code: bool) -> None:
    """Refuse ``package.module:Name`` outside of productrec's losses, unless code is allowed; imports nothing.

    Raises:
        RecipeError: it is not allowed.
    """
    if ":" in path and not path.startswith(_OURS) and not allow_code:
        raise RecipeError(
            f"loss.metric: must be code of productrec's own; got {path}, and importing it would run it. If you know "
            "what is in it, add --allow-code to the command."
        )


def build_own_loss(path: str, settings: Mapping[str, Any], *, allow_code: bool) -> Any:
    """Import the class that ``package.module:Name`` names and make one, with ``settings`` as keyword arguments.

    The class is looked at first: it must be a `PairwiseLoss`, or have the methods of a `PairLoss` (``weigh``) or of a
    `RelatedPairLoss` (``summarise`` and ``weigh_related``).

    Raises:
        RecipeError: code is not allowed, the path leads to no such class, or it cannot be made with these settings.
    """
    check_code_allowed(path, allow_code=allow_code)
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module's own lines raise anything
        where = explain_own_error(path, error)
        raise RecipeError(
            f"loss.metric: {where}"
            if where
            else f"loss.metric: {path} cannot be imported ({type(error).__name__}: {error}). Its folder must be on "
            "PYTHONPATH, or installed."
        ) from error
    if not inspect.isclass(found) or not _is_loss(found):
        raise RecipeError(
            f"loss.metric: {path} must be a class with a method weigh(positives, negatives); got "
            f"{'the class' if inspect.isclass(found) else type(found).__name__} {getattr(found, '__name__', name)}, "
            "which was not called. See docs/losses.md."
        )
    try:
        return found(**settings)
    except TypeError as error:
        where = explain_own_error(path, error)
        raise RecipeError(f"loss.metric {path}: its settings do not fit ({where or error}).") from error
    except RecipeError:
        raise
    except Exception as error:
        where = explain_own_error(path, error)
        raise RecipeError(f"loss.metric: {where or f'{path} cannot be made ({error!r}).'}") from error


def _is_loss(found: type) -> bool:
    def has(*names: str) -> bool:
        return all(callable(getattr(found, name, None)) for name in names)

    return issubclass(found, PairwiseLoss) or has("weigh") or has("summarise", "weigh_related")


def explain_own_error(path: str, error: BaseException) -> str | None:
    """What went wrong in a loss of the user's own, with its file and line; None where ``error`` came from elsewhere.

    An error that the engine raises over what the loss gave back counts as the loss's.
    """
    if ":" not in path or path.startswith(_OURS):
        return None
    said = f"{type(error).__name__}: {error}".splitlines()[0][:300].rstrip(". :")
    file = getattr(sys.modules.get(path.partition(":")[0]), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    if own:
        return f"{path} failed at {own[-1].filename}:{own[-1].lineno} ({said})."
    if any(_ENGINE in frame.filename and "own_loss" not in frame.filename for frame in frames):
        return f"{path} gave back what the engine cannot use ({said}). See docs/losses.md for the shapes."
    return None
