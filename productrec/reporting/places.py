"""Paths in what a page tells, which is handed on: below or near the current folder they stand without what is above."""

from __future__ import annotations

import os
import re

_PATH = re.compile(r"""(?<![\w./:~-])/[^\s:;,()'"`]+""")


def shorten_paths(text: str) -> str:
    """A text in which absolute paths are relative to the current folder, where that is shorter."""
    here = os.getcwd()
    if here != os.sep:  # first, since a folder's name may hold what otherwise ends a path
        text = re.sub(rf"(?<![\w./:~-]){re.escape(here)}{os.sep}", "", text)
    return _PATH.sub(lambda found: min(os.path.relpath(found[0]), found[0], key=len), text)
