"""Class numbers: those that a reader gave to names stay with the names when a source is ingested again."""

from __future__ import annotations

from collections.abc import Mapping

from productrec.data.class_keys import get_class_identity
from productrec.data.sources.rows import SourceRows


def keep_class_numbers(rows: SourceRows, known: Mapping[str, int], first_free: int) -> bool:
    """Give every class that is known by its name the number it had, and every other a number that none has had.

    Nothing changes where no class is known: the source is another.

    Args:
        rows: of a reader that numbers names.
        known: numbers by identity, of the table that is written over.
        first_free: above every number that was ever given in that table.

    Returns:
        Whether some class was known.
    """
    identities = {
        number: get_class_identity(name, rows.class_paths.get(number)) for number, name in rows.class_names.items()
    }
    if not set(identities.values()) & set(known):
        return False
    numbers: dict[int, int] = {}
    for number, identity in sorted(identities.items()):
        numbers[number] = known.get(identity, first_free)
        first_free += identity not in known
    rows.label = [None if label is None else numbers[label] for label in rows.label]
    for name in ("class_names", "class_paths", "class_descriptions"):
        setattr(rows, name, {numbers[number]: text for number, text in getattr(rows, name).items()})
    return True
