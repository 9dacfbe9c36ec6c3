"""What an exported model says of itself: texts by name, which travel in its file; read and written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from productrec.errors import ArtifactError

FORMAT_VERSION = 1
_VERSION = "format_version"  # of the notes, beside their fields
_LISTS = ("class_ids", "class_keys", "class_names")  # as JSON
_NUMBERS = ("side_px",)


@dataclass(frozen=True)
class ExportNotes:
    """What a reader of an exported file needs, beside the graph.

    ``class_ids``, ``class_keys`` and ``class_names``: of the C classes in the order of the probabilities, see
    `data.class_keys`; ``side_px``: of the square images; ``weights_digest``: of the weights that the run's checkpoint
    holds; ``precision``: float32 or int8; ``productrec``: the version that wrote the file; ``run``: the run's name.
    """

    class_ids: list[int]
    class_keys: list[str]
    class_names: list[str]
    side_px: int
    weights_digest: str
    run: str
    backbone: str
    precision: str
    productrec: str

    def to_texts(self) -> dict[str, str]:
        """Every field as text, lists as JSON, with the version of this format."""
        texts = {
            name: json.dumps(value, ensure_ascii=False) if name in _LISTS else str(value)
            for name, value in asdict(self).items()
        }
        return {_VERSION: str(FORMAT_VERSION)} | texts

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], where: str) -> ExportNotes:
        """What `to_texts` gave; names that this version does not know are passed over.

        Raises:
            ArtifactError: something is missing or damaged, or the format is newer; ``where`` begins the message.
        """
        if _VERSION not in texts:
            raise ArtifactError(f"{where}: must be a file that `productrec export` wrote; it has no notes of that.")
        try:
            version = int(texts[_VERSION])
            if version > FORMAT_VERSION:
                raise ArtifactError(
                    f"{where}: format version must be at most {FORMAT_VERSION}; got {version}. Update productrec."
                )
            values = {name: texts[name] for name in cls.__dataclass_fields__}
            lists = {name: json.loads(values[name]) for name in _LISTS}
            numbers = {name: int(values[name]) for name in _NUMBERS}
            return cls(**(values | lists | numbers))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{where}: its notes cannot be read ({error!r}). Export it again.") from None
