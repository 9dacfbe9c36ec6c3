"""Parts of pages that the code writes: an empty block ```` ```{commands} ```` gives way to what is so at the build."""

import fnmatch
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from productrec.plots.figure import save
from productrec.plots.weights import draw_weight_curves
from productrec_docs.commands import write_commands
from productrec_docs.competitions import write_contract_keys, write_contracts
from productrec_docs.library import write_library
from productrec_docs.losses import write_loss_list, write_losses, write_mining
from productrec_docs.pair_weights import write_example, write_similarities
from productrec_docs.settings import write_settings

WRITTEN: dict[str, Callable[[], list[str]]] = {
    "recipe-settings": write_settings,
    "commands": write_commands,
    "loss-list": write_loss_list,
    "losses": write_losses,
    "mining-rules": write_mining,
    "contract-keys": write_contract_keys,
    "contracts": write_contracts,
    "library": write_library,
    "pair-similarities": write_similarities,
    "pair-example": write_example,
}
_CURVES = "weight-curves"
_BLOCK = re.compile(rf"^```\{{({'|'.join([*WRITTEN, _CURVES])})\}}\n```$", re.MULTILINE)

_PATTERN = re.compile(r"^([\w/]+\*)\n", re.MULTILINE)  # of pages in a table of contents, where there may be none yet


def write_parts(app: Any, docname: str, source: list[str]) -> None:
    """Put what the code writes into a page's text, before it is parsed."""

    def write(match: re.Match[str]) -> str:
        if match[1] == _CURVES:
            return _draw_curves(Path(app.doctreedir), Path(app.env.doc2path(docname)).parent)
        return "\n".join(WRITTEN[match[1]]())

    def keep(match: re.Match[str]) -> str:
        pattern = posixpath.join(posixpath.dirname(docname), match[1])
        return match[0] if fnmatch.filter(app.env.found_docs, pattern) else ""

    source[0] = _PATTERN.sub(keep, _BLOCK.sub(write, source[0]))


def _draw_curves(drawn: Path, page: Path) -> str:
    """Draw what `productrec losses --plot` draws, beside the built pages, not beside the sources, and name it."""
    drawn.mkdir(parents=True, exist_ok=True)
    save(draw_weight_curves(), drawn / "weight_curves.svg")
    address = os.path.relpath(drawn / "weight_curves.svg", page).replace(os.sep, "/")
    return f"![Three curves for each pair loss: a positive's and a negative's weight by each similarity]({address})"
