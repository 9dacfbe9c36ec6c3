"""Class keys: what a class is known by in every state of its table, so that a run finds its classes again in another.

A table's class ids are the source's own, or positions among the sorted class names, which move when a class is added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import pandas as pd

from productrec.data.table import ImageTable
from productrec.errors import ArtifactError, describe_offenders


def get_class_identity(name: str, path: str | None) -> str:
    """What a class is known by from one table to another: its path in the category tree and its name."""
    return name if not path or "/" in name else f"{path}/{name}"


def identify_classes(classes: pd.DataFrame) -> dict[int, str]:
    """The identity of each class of a table, by its id; where several have one, the id stands behind it."""
    identities = {
        int(class_id): get_class_identity(str(name), path if isinstance(path, str) else None)
        for class_id, name, path in zip(classes["id"], classes["name"], classes["path"], strict=True)
    }
    counts = Counter(identities.values())
    return {number: text if counts[text] == 1 else f"{text} ({number})" for number, text in identities.items()}


def get_class_keys(table: ImageTable, class_ids: Collection[int]) -> list[str]:
    """Keys of classes, in the order given: the name with its categories where ids are positions, else the id itself."""
    if not table.numbered:
        return [str(class_id) for class_id in class_ids]
    keys = identify_classes(table.classes)
    return [keys[class_id] for class_id in class_ids]


def match_classes(keys: Sequence[str], table: ImageTable, *, where: str) -> list[int]:
    """The id that each class has in the table now, in the order of its keys.

    Raises:
        ArtifactError: a class is not in the table; ``where`` begins the message.
    """
    ids = table.classes["id"].tolist()
    present = dict(zip(get_class_keys(table, ids), ids, strict=True))
    unknown = [key for key in keys if key not in present]
    if unknown:
        raise ArtifactError(
            f"{where}: its classes must be in the image table; {describe_offenders(unknown)} are not. Take the table "
            "it was made with, give a renamed class its old name in the source and ingest again, or train anew."
        )
    return [int(present[key]) for key in keys]
