"""Every setting of a recipe, from the types that declare them."""

from itertools import groupby

from productrec.recipe.loss import CHOICES
from productrec.recipe.whole import Recipe
from productrec.settings.fields import SettingInfo, Settings, walk_settings
from productrec_docs.tables import escape, show_default, write_table

HEADER = ("setting", "values", "default", "what it is")
_SECTIONS = {
    "data": "the image table",
    "model": "the network",
    "loss": "what is learned",
    "train": "the training",
    "predict": "from a trained run to class probabilities",
    "match": "which images are of one product",
    "submit": "the CSV",
}


def write_settings() -> list[str]:
    """The page's sections: one a section of a recipe, with a table of its settings, and a target for each."""
    lines: list[str] = []
    infos = list(walk_settings(Recipe))
    whole = [info for info in infos if "." not in info.key]
    lines += ["## The whole recipe", *write_rows(whole)]
    for section, within in groupby(
        (info for info in infos if "." in info.key), key=lambda info: info.key.split(".")[0]
    ):
        title = _SECTIONS.get(section, "")
        lines += [f"## `{section}`" + (f": {title}" if title else ""), *write_rows(list(within))]
    return lines


def write_rows(infos: list[SettingInfo]) -> list[str]:
    """A table of settings; what a setting decides stands below its meaning."""
    return write_table(HEADER, [_write_row(info) for info in infos])


def write_own_settings(choice: type[Settings], prefix: str) -> list[str]:
    """A table of a loss's or a rule's own settings; nothing where it has none."""
    infos = list(walk_settings(choice, f"{prefix}."))
    if not infos:
        return ["", "It has no settings.", ""]
    rows = [(f"`{info.key}`", escape(info.kind), show_default(info.default), escape(info.meaning)) for info in infos]
    return write_table(HEADER, rows)


def name_target(key: str) -> str:
    """Where a page of the reference tells of a setting."""
    return f"setting-{key.replace('.', '-').replace('_', '-')}"


def _write_row(info: SettingInfo) -> tuple[str, str, str, str]:
    target = f'<span id="{name_target(info.key)}"></span>'
    decides = "where and how fast, no result" if info.decides == "nothing" else f"the {info.decides}"
    commands = ", ".join(f"`{name}`" for name in info.commands)
    meaning = escape(info.meaning)
    if info.key in CHOICES:
        meaning += "; its settings: [losses](losses.md)"
    notes = f"<small>Decides {decides}. Taken by {commands}.</small>"
    return f"{target}`{info.key}`", escape(info.kind), show_default(info.default), f"{meaning}<br>{notes}"
