"""Tracking: the figures of a training, written for TensorBoard and Weights & Biases too; the one user of either."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from productrec.artifacts import write_text
from productrec.console import warn
from productrec.errors import RecipeError, describe_error

_PROJECT = "productrec"  # unless WANDB_PROJECT says another
_INSTALL = "pip install 'productrec[track]'"


class Tracker(NamedTuple):
    """One of them: its name, what writes figures after so many steps, and what closes it."""

    name: str
    write: Callable[[int, dict[str, float]], None]
    close: Callable[[], None]


class Trackers:
    """Writes to all of them; one that fails is told once and left out: no training ends for a picture of it."""

    def __init__(self, trackers: Iterable[Tracker] = ()) -> None:
        self._trackers = list(trackers)

    def write(self, step: int, figures: dict[str, float], *, kind: str) -> None:
        """Figures after so many steps, as ``KIND/NAME``; nothing, where there are none."""
        named = {f"{kind}/{name}": value for name, value in figures.items()}
        for tracker in list(self._trackers) if named else ():
            try:
                tracker.write(step, named)
            except Exception as error:  # of a full disk, a lost connection, a foreign library
                warn(f"{tracker.name}: no longer written to ({describe_error(error)}). metrics.jsonl goes on.")
                self._trackers.remove(tracker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._trackers:
            try:
                tracker.close()
            except Exception as fault:
                warn(f"{tracker.name}: could not be closed ({describe_error(fault)}).")


def start_trackers(
    names: Iterable[str], folder: Path, *, name: str, settings: dict[str, Any], first_step: int
) -> Trackers:
    """Start what a recipe names.

    Args:
        names: ``tensorboard`` (its files land in ``folder/tensorboard``) and ``wandb`` (in ``folder/wandb``; the
            environment says whose account, ``WANDB_MODE=offline`` does without).
        folder: the run's.
        name: the run's.
        settings: to show with it.
        first_step: steps done before; a resume replaces what was written of later ones, in TensorBoard, and goes on
            with the same run in Weights & Biases, which leaves out steps it has.

    Raises:
        RecipeError: it is not installed, or cannot be started.
    """
    start = {"tensorboard": _start_tensorboard, "wandb": _start_wandb}
    return Trackers([start[tracker](folder, name, settings, first_step) for tracker in names])


def _start_tensorboard(folder: Path, name: str, settings: dict[str, Any], first_step: int) -> Tracker:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RecipeError(f"train.track: tensorboard must be installed; it is not. {_INSTALL}") from None
    writer = SummaryWriter(folder / "tensorboard", purge_step=first_step + 1)

    def write(step: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            writer.add_scalar(key, value, step)

    return Tracker("tensorboard", write, writer.close)


def _start_wandb(folder: Path, name: str, settings: dict[str, Any], first_step: int) -> Tracker:
    try:
        import wandb
    except ImportError:
        raise RecipeError(f"train.track: wandb must be installed; it is not. {_INSTALL}") from None
    known = folder / "wandb-id.txt"
    if not known.exists():
        write_text(known, secrets.token_hex(8))
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            id=known.read_text(encoding="utf-8"),
            name=name,
            dir=folder,
            config=settings,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except (wandb.Error, OSError) as error:
        raise RecipeError(
            f"train.track: wandb cannot be started ({describe_error(error)}). Log in with `wandb login`, set "
            "WANDB_MODE=offline, or leave it out."
        ) from None
    return Tracker("wandb", lambda step, figures: run.log(figures, step=step), run.finish)
