"""The reporter: what a person, the run's files and trackers are told of a training's steps and epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from productrec.console import show_progress, warn
from productrec.runtime import measure_memory
from productrec.training.ranks.resources import Resources
from productrec.training.run.display import StepDisplay
from productrec.training.run.run_folder import RunLog
from productrec.training.run.tracking import Trackers, start_trackers
from productrec.training.run.watch import describe_rise
from productrec.training.step.trainer import Progress


class Reporter:
    """Progress bar, ``metrics.jsonl``, ``train.log`` and trackers; only the first rank writes to files and trackers.

    ``warning``: what there is to tell of a loss that went up, by the newest epoch; empty where it did not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        settings: dict[str, Any],
        track: Sequence[str],
        epochs: int,
        steps_per_epoch: int,
        resources: Resources,
    ) -> None:
        """What will be told.

        Args:
            folder: the run's.
            name: the run's.
            settings: every setting, for trackers.
            track: names of trackers.
            epochs: of the whole training.
            steps_per_epoch: of each rank.
            resources: device whose memory is shown, and ranks whose images are counted.
        """
        self._folder, self._name, self._settings, self._track = folder, name, settings, track
        self._epochs, self._steps_per_epoch, self._resources = epochs, steps_per_epoch, resources
        self._log: RunLog | None = None
        self._trackers = Trackers()
        self._display: StepDisplay | None = None
        self.warning = ""

    @contextmanager
    def open(self, progress: Progress) -> Iterator[None]:
        """Begin to tell, from where a training is; lines of epochs that it will run again are dropped.

        Raises:
            RecipeError: a tracker cannot be started.
        """
        ranks = self._resources.ranks
        self._log = RunLog(self._folder, progress.epoch) if ranks.is_first else None
        self._trackers = start_trackers(
            self._track if ranks.is_first else (),
            self._folder,
            name=self._name,
            settings=self._settings,
            first_step=progress.step,
        )
        with self._trackers, show_progress("training", self._epochs * self._steps_per_epoch, "steps") as bar:
            bar.advance(progress.step)
            measure = partial(measure_memory, self._resources.device)
            self._display = StepDisplay(bar, self._epochs, ranks.size, measure)
            yield

    def show_step(self, progress: Progress, images: int, figures: dict[str, float]) -> None:
        """Tell of a step on so many ``images`` of each rank; ``figures`` are empty but once in a while."""
        if self._display is not None:
            self._display(progress.epoch, images, figures)
        self._trackers.write(progress.step, figures, kind="step")

    def report_epoch(self, progress: Progress, epoch: int, figures: dict[str, float]) -> None:
        """Tell of a finished epoch (from 0), and warn once of a loss that went up."""
        if self._log is not None:
            self._log.write(epoch, figures)
        was_told, self.warning = bool(self.warning), describe_rise(progress, figures)
        if self.warning and not was_told:
            warn(f"epoch {epoch + 1}: {self.warning}")
        self._trackers.write(progress.step, figures, kind="epoch")
