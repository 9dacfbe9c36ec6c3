"""What a reader gives: the rows of an image table, and the class ids of labels that are texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from productrec.data.sources.files import strip_image_suffix
from productrec.data.table import CLASS_COLUMNS, IMAGE_COLUMNS, build_frame
from productrec.data.titles import join_titles
from productrec.errors import DataError, describe_offenders

_CARRIED = ("image_id", "label", "split", "url", "title", "path", "box", "group", "role", "weight")
_WHOLE_NUMBER = re.compile("-?[0-9]{1,19}")


@dataclass
class SourceRows:
    """What a reader gives: an entry an image, in the source's order, and what is known of the classes."""

    image_id: list[str] = field(default_factory=list)
    label: list[int | None] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    url: list[str | None] = field(default_factory=list)
    title: list[str | None] = field(default_factory=list)
    path: list[str | None] = field(default_factory=list)
    box: list[str | None] = field(default_factory=list)
    group: list[str | None] = field(default_factory=list)
    role: list[str | None] = field(default_factory=list)
    weight: list[float | None] = field(default_factory=list)
    class_names: dict[int, str] = field(default_factory=dict)
    class_paths: dict[int, str] = field(default_factory=dict)
    class_descriptions: dict[int, str] = field(default_factory=dict)
    numbered: bool = False  # whether class ids are numbers that the reader gave to names
    notes: list[str] = field(default_factory=list)  # how the source was understood
    warnings: list[str] = field(default_factory=list)  # what was seen in it and left out

    def add(
        self,
        image_id: str,
        split: str,
        label: int | None,
        *,
        url: str | None = None,
        title: str | Sequence[str] | None = None,
        path: str | None = None,
        box: str | None = None,
        group: str | None = None,
        role: str | None = None,
        weight: float | None = None,
    ) -> None:
        """Append one image.

        ``title``: of the image, or several, see `data.titles`; ``box``: the part of its picture; ``group``: its
        listing; ``role``: query or gallery; ``weight``: from 0 to 1, how often it is trained on.
        """
        self.image_id.append(image_id)
        self.split.append(split)
        self.label.append(label)
        self.url.append(url)
        self.title.append(None if title is None else join_titles([title] if isinstance(title, str) else title))
        self.path.append(path)
        self.box.append(box)
        self.group.append(group)
        self.role.append(role)
        self.weight.append(weight)

    def add_test_ids(self, ids: Iterable[str]) -> None:
        """Have a row of the split test for every id, as a sample submission lists them.

        A row whose id is one of them but for a file's suffix (``9.jpg`` for ``9``) takes it; other ids get new rows.
        """
        known = set(self.image_id)
        missing = [image_id for image_id in ids if image_id not in known]
        stems: dict[str, list[int]] = {}
        for row, image_id in enumerate(self.image_id):
            if missing and self.split[row] == "test":
                stems.setdefault(strip_image_suffix(image_id), []).append(row)
        for image_id in missing:
            rows = stems.get(strip_image_suffix(image_id), [])
            if len(rows) == 1:
                row = rows.pop()
                self.path[row] = self.path[row] or self.image_id[row]
                self.image_id[row] = image_id
            else:
                self.add(image_id, "test", None)

    def build_frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The image rows (paths and states still to be found) and the classes, sorted by id.

        Raises:
            DataError: a text is no Unicode, which no table can hold.
        """
        for texts in (self.image_id, self.path, self.title, self.url, self.class_names.values()):
            _check_unicode(texts)
        images = build_frame(
            IMAGE_COLUMNS,
            {name: getattr(self, name) for name in _CARRIED},
        )
        ids = sorted(
            {label for label in self.label if label is not None} | set(self.class_names) | set(self.class_paths)
        )
        classes = build_frame(
            CLASS_COLUMNS,
            {
                "id": ids,
                "name": [self.class_names.get(class_id, str(class_id)) for class_id in ids],
                "path": [self.class_paths.get(class_id) for class_id in ids],
                "description": [self.class_descriptions.get(class_id) for class_id in ids],
            },
        )
        return images, classes


def _check_unicode(texts: Iterable[str | None]) -> None:
    # File names that are no UTF-8, and JSON's lone surrogates, come as letters that cannot be written.
    wrong = [
        ascii(text)
        for text in texts
        if text is not None and not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)
    ]
    if wrong:
        raise DataError(
            f"source: ids, file names and titles must be valid Unicode; {describe_offenders(wrong)} are not. "
            "Rename them."
        )


def parse_whole_number(text: str) -> int | None:
    """``text`` as a class id, or None where it is no whole number that 64 bits hold."""
    if not _WHOLE_NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def read_class_id(value: object, what: str) -> int:
    """``value``, a number or its text, as a class id.

    Raises:
        DataError: it is no whole number that 64 bits hold; ``what`` says whose, and where it stands.
    """
    number = parse_whole_number(str(value))
    if number is None:
        raise DataError(f"{what} must be a whole number; got {str(value)[:80]!r}.")
    return number


def number_labels(labels: Sequence[str]) -> tuple[dict[str, int], bool]:
    """The class id of each label, and whether it is a number given here rather than the label itself."""
    names = sorted(set(labels))
    numbers = {name: number for name in names if (number := parse_whole_number(name)) is not None}
    if any(str(numbers.get(name)) != name for name in names):  # "007" is a name: as a number it would be another's
        return {name: number for number, name in enumerate(names)}, True
    return numbers, False
