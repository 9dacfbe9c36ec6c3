"""The run folder: what it was started as, a line an epoch, and the mark that it is finished."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from productrec.artifacts import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    compute_versions,
    explain_storage_errors,
    load_manifest,
    write_json,
    write_text,
)
from productrec.console import say
from productrec.errors import ArtifactError, describe_offenders
from productrec.locking import hold_lock
from productrec.settings.text import flatten

KIND = "run"
_STARTED = "started.json"
_LOCK = ".lock"
_UNSAID = ("learning_rate_factor", "raw_")  # in the file alone, or a line would be too long to read


def claim_run_folder(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep a run folder for this training; a process that is killed gives it back at once.

    Raises:
        ArtifactError: another training runs in it.
    """
    return hold_lock(
        folder / _LOCK,
        f"{folder}: another training runs in this folder, and goes on untouched. Wait until it ends, or give this one "
        "another name (name=...).",
    )


def check_run_folder(
    folder: Path, settings: dict[str, Any], *, resume: bool, defaults: dict[str, Any] | None = None
) -> bool:
    """Whether the run of these settings is finished already; refuses a folder that holds something else.

    Args:
        folder: the run's.
        settings: everything that decides the run's content, the table's fingerprint too.
        resume: whether a run that was stopped may go on.
        defaults: what a setting is taken to have been that did not exist yet when the run was started.

    Raises:
        ArtifactError: another run stands there (its differing settings are named), or this one was stopped and
            ``resume`` is false.
    """
    if not folder.exists() or (folder.is_dir() and all(entry.name == _LOCK for entry in folder.iterdir())):
        return False
    started = folder / _STARTED
    if not started.exists():
        raise ArtifactError(
            f"{folder}: holds files that are no run. Choose another name (name=...), or empty the folder."
        )
    earlier = flatten(_parse(started, started.read_text(encoding="utf-8", errors="replace")))
    wanted = flatten(json.loads(json.dumps(settings)))
    known = flatten(json.loads(json.dumps(defaults or {}))) | earlier
    checkpoints = folder / "checkpoints"
    has_begun = (folder / MANIFEST_NAME).exists() or (checkpoints.is_dir() and any(checkpoints.iterdir()))
    if not has_begun:  # it died before the first checkpoint, and its settings may have been why
        return False
    changed = [key for key in dict.fromkeys([*earlier, *wanted]) if known.get(key) != wanted.get(key)]
    if changed:
        raise ArtifactError(
            f"{folder}: already holds another run; settings that differ: {describe_offenders(changed)}. "
            "Give this one another name (name=...), or remove the folder."
        )
    if (folder / MANIFEST_NAME).exists():
        return True
    if not resume and any((folder / "checkpoints" / name).exists() for name in ("last", "before")):
        raise ArtifactError(
            f"{folder}: holds a run that was stopped. Go on with --resume, or give another name (name=...)."
        )
    return False


def start_run(folder: Path, settings: dict[str, Any], recipe: str) -> None:
    """Write what the run is: the recipe as YAML, and the settings that decide its content."""
    write_text(folder / "recipe.yaml", recipe)
    write_json(folder / _STARTED, settings)


def finish_run(
    folder: Path, settings: dict[str, Any], figures: dict[str, float], soup: dict[str, float] | None = None
) -> None:
    """Mark the run as finished, with the figures of its best checkpoint, and of its soup where one was tried."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "inputs": {"table": settings["table"]},
        "settings": settings,
        "files": {},
        "notes": {"figures": figures} | ({} if soup is None else {"soup": soup}),
        "versions": compute_versions(),
    }
    write_json(folder / MANIFEST_NAME, manifest)


def load_figures(folder: Path) -> dict[str, float]:
    """Figures of a finished run's best checkpoint.

    Raises:
        ArtifactError: no finished run there.
    """
    figures: dict[str, float] = load_manifest(folder, kind=KIND).notes.get("figures", {})
    return figures


def load_epochs(folder: Path) -> list[dict[str, float]]:
    """The figures of every finished epoch of a run."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return [_parse(path, line) for line in lines]


class RunLog:
    """``metrics.jsonl`` and ``train.log``: a line an epoch; a resume drops the lines of epochs it runs again."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self._metrics, self._text = folder / "metrics.jsonl", folder / "train.log"
        kept = []
        if self._metrics.exists():
            lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            # A kill may have left half a line at the end.
            whole = [line for line in lines if line.endswith("\n")]
            kept = [line for line in whole if _parse(self._metrics, line).get("epoch", first_epoch) < first_epoch]
        write_text(self._metrics, "".join(kept))
        self._started = time.monotonic()

    def write(self, epoch: int, figures: dict[str, float]) -> None:
        """Append the figures of a finished epoch (from 0) and say them."""
        seconds = round(time.monotonic() - self._started, 1)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items() if not name.startswith(_UNSAID))
        line = f"epoch {epoch + 1}  {shown}"
        with explain_storage_errors(self._metrics):
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch, "seconds": seconds, **figures}) + "\n")
            with self._text.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')}  {line}\n")
        say(line)


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ArtifactError(
            f"{path}: is damaged ({error}). Mend it by hand, or remove the folder and train anew."
        ) from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: must hold values by name; got {type(value).__name__}. Mend it, or train anew.")
    return value
