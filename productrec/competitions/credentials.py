"""Where the credentials for uploads lie, and whether others can read them; their content is read by `kaggle` alone."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from productrec.errors import UploadError

HOW_TO_GET = (
    "Make a token in the settings of your Kaggle account (kaggle.com/settings, API) and put it into "
    "~/.kaggle/access_token, chmod 600, or into the variable KAGGLE_API_TOKEN; an older kaggle.json goes to "
    "~/.kaggle/kaggle.json"
)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def find_credentials() -> str:
    """Where the client will find credentials, in the client's own order: a variable's name or a file's path.

    Raises:
        UploadError: nowhere, or one of the files can be read by other users of the machine.
    """
    token = os.environ.get("KAGGLE_API_TOKEN") or ""
    home = Path.home() / ".kaggle"
    named = Path(token) if token and _is_file(Path(token)) else None
    tokens = [path for path in (named, home / "access_token", home / "access_token.txt") if path and _is_file(path)]
    keys = [path for path in (_find_folder() / "kaggle.json", home / "credentials.json") if _is_file(path)]
    for path in (*tokens, *keys):
        _check_mode(path)
    places = ["KAGGLE_API_TOKEN"] if token and named is None else []
    places += map(str, tokens)
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        places.append("KAGGLE_USERNAME and KAGGLE_KEY")
    places += map(str, keys)
    if not places:
        raise UploadError(f"upload: credentials must be there; found none. {HOW_TO_GET}.")
    return places[0]


def _check_mode(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name != "nt" and mode & _OTHERS:
        raise UploadError(
            f"{path}: credentials must be readable by their owner alone (mode 600); got mode {mode:o}. "
            f"Run: chmod 600 {shlex.quote(str(path))}"
        )


def _find_folder() -> Path:
    """The folder of the client's kaggle.json."""
    given = os.environ.get("KAGGLE_CONFIG_DIR")
    if given:
        return Path(given)
    home = Path.home() / ".kaggle"
    if sys.platform.startswith("linux") and not home.exists():
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    return home


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a token that is too long for a path
        return False
