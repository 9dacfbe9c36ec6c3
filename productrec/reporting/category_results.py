"""Results by category: the tree of categories with the images below each node, and how many of them are named right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from productrec.metrics.wilson import compute_wilson_interval
from productrec.reporting.class_results import ClassResult


@dataclass
class CategoryResult:
    """A node of the tree: its ``name``, the classes and images below it, and the images that are named right.

    ``right_within``: images that are named some class below the node, the right one or another: what a mistake costs
    no more than. ``children``: nodes below, in the order of their names.
    """

    name: str
    classes: int = 0
    images: int = 0
    right: int = 0
    right_within: int = 0
    children: list[CategoryResult] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Share of the images that is named right."""
        return self.right / max(1, self.images)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return compute_wilson_interval(self.accuracy, max(1, self.images))


def build_category_results(
    results: Sequence[ClassResult],
    paths: Mapping[int, str],
    confused: Mapping[tuple[int, int], int],
) -> CategoryResult | None:
    """The root of the tree of categories; None where no class has one.

    Args:
        results: of the classes.
        paths: categories of each class from the root on, with ``/`` between them; a class that hangs from the root
            itself may be left out.
        confused: how many images of a class (first) were named another (second).
    """
    trails = {result.class_id: _split(paths.get(result.class_id, "")) for result in results}
    if not any(trails.values()):
        return None
    others = {class_id: _split(path) for class_id, path in paths.items()}
    root = CategoryResult("all")
    for result in results:
        for node in _walk(root, trails[result.class_id]):
            node.classes += 1
            node.images += result.images
            node.right += result.right
            node.right_within += result.right
    for (label, named), times in confused.items():
        own, other = trails.get(label, ()), others.get(named, ())
        for level, node in enumerate(_walk(root, own)):
            if own[:level] == other[:level]:
                node.right_within += times
    _sort(root)
    return root


def _split(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _walk(root: CategoryResult, trail: tuple[str, ...]) -> list[CategoryResult]:
    """The nodes from the root to a trail's end; those that are not there yet are made."""
    nodes = [root]
    for name in trail:
        known = next((child for child in nodes[-1].children if child.name == name), None)
        if known is None:
            known = CategoryResult(name)
            nodes[-1].children.append(known)
        nodes.append(known)
    return nodes


def _sort(node: CategoryResult) -> None:
    node.children.sort(key=lambda child: child.name)
    for child in node.children:
        _sort(child)
