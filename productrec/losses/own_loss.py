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
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, model_serializer

from productrec.errors import RecipeError
from productrec.losses.declared import MetricLoss, PairLoss, RelatedPairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.text import NAME

if TYPE_CHECKING:
    from torch import Tensor

_OURS = "productrec.losses."
_ENGINE = "/productrec/losses/"


def check_code_allowed(loss: MetricLoss | None, *, allow_code: bool) -> None:
    """Refuse a loss from outside of productrec, unless code is allowed; imports nothing.

    Raises:
        RecipeError: it is not allowed.
    """
    if isinstance(loss, OwnLoss) and not loss.path.startswith(_OURS) and not allow_code:
        raise RecipeError(
            f"loss.metric: must be code of productrec's own; got {loss.path}, and importing it would run it. If you "
            "know what is in it, add --allow-code to the command."
        )


class OwnLoss(MetricLoss):
    """``package.module:Name`` of a class, and the keyword arguments that one is made with; nothing is imported here."""

    model_config = ConfigDict(extra="allow")
    kind = "pair"
    formula = source = "of your own"

    path: str = Field(description="package.module:Name")

    @model_serializer(mode="wrap")
    def _dump(self, handler: Any) -> dict[str, Any]:
        return {NAME: self.path, **(self.model_extra or {})}

    def load(self, *, allow_code: bool) -> MetricLoss:
        """Import the class and make one.

        The class is looked at first: it must be a `PairLoss`, or have the methods of a `PairWeighting` (``compute`` or
        ``weigh``) or of a `RelatedPairWeighting` (``summarise`` and ``weigh_related``).

        Raises:
            RecipeError: code is not allowed, the path leads to no such class, or it cannot be made with these settings.
        """
        check_code_allowed(self, allow_code=allow_code)
        own = _make(self.path, dict(self.model_extra or {}))
        if isinstance(own, MetricLoss):
            return own
        return _AdaptedRelated(own=own) if hasattr(own, "summarise") else _Adapted(own=own)


class _Adapted(PairLoss):
    """A plain class with ``compute`` or ``weigh``, as the engine asks for it."""

    own: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name in ("few_columns", "needs_unit_norm"):
            if hasattr(self.own, name):
                object.__setattr__(self, name, getattr(self.own, name))

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        computed: Tensor | tuple[Tensor, Tensor] = self.own.compute(positives, negatives)
        return computed

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        if not hasattr(self.own, "weigh"):
            return super().weigh(positives, negatives)
        weighed: Weighed = self.own.weigh(positives, negatives)
        return weighed

    def __repr__(self) -> str:
        return repr(self.own)


class _AdaptedRelated(RelatedPairLoss):
    """A plain class with ``summarise`` and ``weigh_related``."""

    own: Any

    def summarise(self, positives: Tensor, negatives: Tensor) -> Tensor:
        summary: Tensor = self.own.summarise(positives, negatives)
        return summary

    def weigh_related(self, positives: Tensor, negatives: Tensor, own: Tensor, others: Tensor) -> Weighed:
        weighed: Weighed = self.own.weigh_related(positives, negatives, own, others)
        return weighed


def _make(path: str, settings: Mapping[str, Any]) -> Any:
    module, _, name = path.partition(":")
    try:
        candidate = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module's own lines raise anything
        where = _explain(path, error)
        raise RecipeError(
            f"loss.metric: {where}"
            if where
            else f"loss.metric: {path} cannot be imported ({type(error).__name__}: {error}). Its folder must be on "
            "PYTHONPATH, or installed."
        ) from error
    if not inspect.isclass(candidate) or not _is_loss(candidate):
        raise RecipeError(
            f"loss.metric: {path} must be a class with a method compute(positives, negatives) or weigh; got "
            f"{'the class' if inspect.isclass(candidate) else type(candidate).__name__} "
            f"{getattr(candidate, '__name__', name)}, which was not called. See docs/losses.md."
        )
    try:
        return candidate(**settings)
    except TypeError as error:
        where = _explain(path, error)
        raise RecipeError(f"loss.metric {path}: its settings do not fit ({where or error}).") from error
    except RecipeError:
        raise
    except Exception as error:
        where = _explain(path, error)
        raise RecipeError(f"loss.metric: {where or f'{path} cannot be made ({error!r}).'}") from error


def _is_loss(candidate: type) -> bool:
    def has(*names: str) -> bool:
        return all(callable(getattr(candidate, name, None)) for name in names)

    return issubclass(candidate, MetricLoss) or has("compute") or has("weigh") or has("summarise", "weigh_related")


def explain_own_error(loss: MetricLoss | None, error: BaseException) -> str | None:
    """What went wrong in a loss of the user's own, with its file and line; None where ``error`` came from elsewhere.

    An error that the engine raises over what the loss gave back counts as the loss's.
    """
    if not isinstance(loss, OwnLoss) or loss.path.startswith(_OURS):
        return None
    return _explain(loss.path, error)


def _explain(path: str, error: BaseException) -> str | None:
    message = f"{type(error).__name__}: {error}".splitlines()[0][:300].rstrip(". :")
    file = getattr(sys.modules.get(path.partition(":")[0]), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    if own:
        return f"{path} failed at {own[-1].filename}:{own[-1].lineno} ({message})."
    if any(_ENGINE in frame.filename and "own_loss" not in frame.filename for frame in frames):
        return f"{path} gave back what the engine cannot use ({message}). See docs/losses.md for the shapes."
    return None
