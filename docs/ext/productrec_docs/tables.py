"""Markdown out of values: tables, and what must not be read as Markdown in them."""

from collections.abc import Iterable, Sequence

_PLAIN = {"None": "null", "True": "true", "False": "false", "()": "[]"}


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, with an empty one before and behind."""
    written = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in rows:
        written.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return ["", *written, ""]


def show_default(default: str) -> str:
    """A setting's default as a recipe would write it, in backticks; what is required, and no text, as words."""
    if default == "required":
        return "**required**"
    text = _PLAIN.get(default, default)
    if text.startswith("(") and text.endswith(")"):
        text = f"[{text[1:-1].rstrip(',')}]".replace("'", "")
    return f"`{text}`" if text else "empty"


def escape(text: str) -> str:
    """Text of the code in a page: marks of Markdown outside of backticks are shown, not obeyed."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        for mark in ("\\", "*", "_", "<", ">", "[", "]", "{", "}", "$"):
            parts[number] = parts[number].replace(mark, f"\\{mark}")
    return "`".join(parts)
