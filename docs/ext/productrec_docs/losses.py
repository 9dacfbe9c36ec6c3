"""Every metric loss and mining rule: formula, source, which similarities it weighs pairs by, settings."""

import inspect
from collections.abc import Iterable

from productrec.losses.catalogue import list_losses, list_similarities
from productrec.losses.declared import MetricLoss, PairLoss
from productrec.losses.engine.mining import MINING_RULES
from productrec_docs.settings import write_own_settings
from productrec_docs.tables import escape, write_table

_VIEWS = {
    "self": "its own similarity",
    "negative relative": "the anchor's other negatives",
    "positive relative": "the anchor's positives",
}
_KINDS = {"pair": "Images with images", "proxy": "Images with learned centres of classes"}


def write_loss_list() -> list[str]:
    """A table of all losses."""
    similarities = list_similarities()
    rows = [
        (f"[`{name}`](#{name_anchor(name)})", loss.kind, name_similarities(similarities[name]), escape(loss.source))
        for name, loss in list_losses().items()
    ]
    return write_table(("`loss.metric`", "kind", "a pair's weight follows", "source"), rows)


def write_losses() -> list[str]:
    """A section a loss, pair losses first."""
    similarities = list_similarities()
    lines: list[str] = []
    for kind, title in _KINDS.items():
        lines += [f"## {title}", ""]
        for name, loss in list_losses().items():
            if loss.kind == kind:
                lines += _write_loss(name, loss, similarities[name])
    return lines


def write_mining() -> list[str]:
    """A section a rule of mining."""
    lines: list[str] = []
    for name, rule in MINING_RULES.items():
        lines += [f"({_anchor_mining(name)})=", f"### `{name}`", "", escape(_first_line(rule)), ""]
        lines += write_own_settings(rule, "loss.mining")
    return lines


def name_similarities(views: Iterable[str] | None) -> str:
    """Which similarities, by their names; of a loss that does not weigh pairs one by one a dash."""
    return "–" if views is None else ", ".join(views) or "none"  # noqa: RUF001


def name_anchor(name: str) -> str:
    """Where the reference tells of a loss."""
    return f"loss-{name.replace('_', '-')}"


def _anchor_mining(name: str) -> str:
    return f"mining-{name.replace('_', '-')}"


def _write_loss(name: str, loss: type[MetricLoss], views: Iterable[str] | None) -> list[str]:
    lines = [f"({name_anchor(name)})=", f"### `{name}`", "", "```text", loss.formula, "```", ""]
    lines += [f"Source: {escape(loss.source)}."]
    if views is not None:
        told = " and ".join(_VIEWS[view] for view in views)
        lines += [f"A pair's weight follows {told}." if told else "All pairs weigh the same."]
    if issubclass(loss, PairLoss) and loss.mined_by:
        lines += [f"`loss.mining=auto` means [`{loss.mined_by}`](#{_anchor_mining(loss.mined_by)}) for it."]
    return [*lines, *write_own_settings(loss, "loss.metric")]


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]
