"""Settings of the submission."""

from __future__ import annotations

from pathlib import Path

from productrec.settings.fields import Settings, setting


class SubmitSettings(Settings):
    """Where the CSV lands."""

    decides = "submission"
    commands = ("train", "submit")

    out: Path | None = setting(None, "CSV to write; default submissions/NAME.csv")
    sample: Path | None = setting(
        None, "sample submission; default the one in the source folder; none: compare with none"
    )
