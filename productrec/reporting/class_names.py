"""Names of classes as a page shows them, and the text that its filter finds them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassNames:
    """The names of classes by their ids; a class without a name is told by its id."""

    names: Mapping[int, str]

    def tell(self, class_id: int) -> str:
        """The name of a class with its id behind it, or the id alone where there is no other name."""
        name = self.names.get(class_id) or str(class_id)
        return f"class {class_id}" if name == str(class_id) else f"{name} ({class_id})"

    def find_by(self, *class_ids: int) -> str:
        """What the filter finds an element of these classes by."""
        return " ".join(self.tell(class_id) for class_id in dict.fromkeys(class_ids))
