"""What a download is asked for, within which limits, and what it answers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields
from typing import NamedTuple

from productrec.errors import RecipeError

_LONGEST_STEM = 48


class Request(NamedTuple):
    """One image to fetch; a ``url`` that is None or empty gives an outcome too."""

    image_id: str
    url: str | None


@dataclass(frozen=True)
class DownloadLimits:
    """Bounds of a download.

    Attributes:
        connections: connections open at the same time.
        connections_per_host: of these, to the same host.
        attempts: tries of one URL, the first one included.
        redirects: redirects followed in one attempt.
        most_bytes: size of a file, after any content encoding is undone.
        deadline_s: seconds for one attempt, from looking up the host to the last byte, redirects included.
        connect_s: of these, seconds for one connection to be made.
        pause_s: pause before the second attempt; it doubles with each further one and is then varied by half.
        longest_pause_s: no pause is longer, whatever a server's Retry-After asks for.
    """

    connections: int = 64
    connections_per_host: int = 8
    attempts: int = 4
    redirects: int = 5
    most_bytes: int = 32 << 20
    deadline_s: float = 60.0
    connect_s: float = 15.0
    pause_s: float = 1.0
    longest_pause_s: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), _LEAST.get(field.name, 1)
            if not value >= least or (value == 0 and field.name in ("deadline_s", "connect_s")):
                raise RecipeError(f"download: {field.name} must be at least {least}; got {value!r}. Raise it.")


_LEAST = {"redirects": 0, "deadline_s": 0.001, "connect_s": 0.001, "pause_s": 0, "longest_pause_s": 0}


@dataclass(frozen=True)
class Outcome:
    """What became of one request; a line of the ledger, so it holds nothing that differs between equal runs.

    Attributes:
        image_id: the request's.
        url: the request's; None where it had none.
        reason: why there is no file, in a few words; None where there is one.
        may_pass: whether a later run may succeed where this one failed.
        format: format found in the file's first bytes, for instance ``"JPEG"``.
        size: the file's bytes.
        sha256: the file's digest.
    """

    image_id: str
    url: str | None
    reason: str | None = None
    may_pass: bool = False
    format: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the file is there."""
        return self.reason is None


def get_file_name(image_id: str) -> str:
    """Name of an image's file below the download's folder.

    Made of what is harmless in the id, for the eye, and of the id's digest, which keeps names apart: ids that differ
    only in case, hold slashes or NUL, or are very long get names that are valid and distinct on every file system. The
    ending says nothing of the format: that is in the content.
    """
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    stem = re.sub(r"[^a-z0-9]+", "-", image_id[:_LONGEST_STEM].lower()).strip("-")
    return f"{stem or 'image'}-{digest}.img"
