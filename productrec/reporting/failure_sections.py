"""Sections of failures: confused pairs, single mistakes, hard and easy classes, and the tree of categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from productrec.reporting.answered import Answered
from productrec.reporting.category_results import CategoryResult
from productrec.reporting.class_names import ClassNames
from productrec.reporting.class_results import ClassResult, pick_easiest
from productrec.reporting.confusions import Confusion
from productrec.reporting.mistakes import Mistake
from productrec.reporting.page import Section
from productrec.reporting.pictures import Pictures

_SHOWN = 4  # pictures of a class, and of its mistaken images
_ON_CARD = 3
_CLASSES = 12  # hardest, and easiest
_MOST_ROWS = 3000  # of a table of classes
_MOST_NODES = 1000  # of the tree
Examples = Callable[[int], Sequence[str]]


def build_confusions(
    confusions: Sequence[Confusion], answered: Answered, names: ClassNames, examples: Examples, pictures: Pictures
) -> Section:
    """Pairs of classes side by side: examples of each, and the images that were mistaken.

    Args:
        confusions: the most confused first.
        answered: that they were found in.
        names: of the classes.
        examples: image ids of a class, such as of its training images.
        pictures: of the images.
    """
    pairs = []
    for confusion in confusions:
        sides = [
            {
                "name": names.tell(own),
                "images": images,
                "mistaken": mistaken,
                "other": names.tell(other),
                "examples": pictures.show_some(examples(own)[:_SHOWN]),
                "queries": pictures.show_some(
                    [answered.ids[row] for row in confusion.rows.tolist() if answered.labels[row] == own][:_SHOWN]
                ),
            }
            for own, other, images, mistaken in (
                (confusion.one, confusion.other, confusion.images_of_one, confusion.one_as_other),
                (confusion.other, confusion.one, confusion.images_of_other, confusion.other_as_one),
            )
        ]
        found_by = names.find_by(confusion.one, confusion.other)
        pairs.append({"sides": sides, "mistakes": confusion.mistakes, "found_by": found_by})
    data = {"pairs": pairs, "mistakes": int(answered.is_wrong.sum()), "asked": answered.title}
    return Section("confusions", "Confused pairs", "report_confusions.html.jinja", data)


def build_mistakes(
    mistakes: Sequence[Mistake],
    answered: Answered,
    names: ClassNames,
    pictures: Pictures,
    *,
    maps: Mapping[tuple[str, str], tuple[int | None, float]],
    notes: Sequence[str] = (),
) -> Section:
    """Mistakes one by one: the query, its nearest products, where the right class stood, and maps of similarity.

    Args:
        mistakes: to show.
        answered: that they are of.
        names: of the classes.
        pictures: of the images.
        maps: by the ids of two images, the number of the picture on which the first one's cells are coloured by their
            shares in its similarity to the second, and the sum of the shares; empty where none could be made.
        notes: how the maps and neighbours came about.
    """

    def list_maps(mistake: Mistake) -> list[dict[str, Any]]:
        query, nearest, right = mistake.image_id, mistake.nearest[:1], mistake.right
        wanted = [(query, near.image_id, "this image, similar to the nearest") for near in nearest]
        wanted += [(near.image_id, query, "the nearest, similar to this image") for near in nearest]
        if right is not None and right not in nearest:
            wanted.append((query, right.image_id, "this image, similar to the nearest of the right class"))
        return [
            {"picture": maps[whose, other][0], "told": told, "sum": maps[whose, other][1]}
            for whose, other, told in wanted
            if (whose, other) in maps
        ]

    shown = [
        {
            "mistake": mistake,
            "picture": pictures.show(mistake.image_id),
            "label": names.tell(mistake.label),
            "best": names.tell(mistake.best),
            "found_by": names.find_by(mistake.label, mistake.best),
            "nearest": [(near, names.tell(near.label), pictures.show(near.image_id)) for near in mistake.nearest],
            "right": None if mistake.right is None else (mistake.right, pictures.show(mistake.right.image_id)),
            "maps": list_maps(mistake),
        }
        for mistake in mistakes
    ]
    counts = {"all": int(answered.is_wrong.sum()), "labelled": int(answered.is_labelled.sum())}
    data = {"mistakes": shown, "notes": list(notes), "asked": answered.title, **counts}
    return Section("mistakes", "Mistakes", "report_mistakes.html.jinja", data)


def build_classes(
    results: Sequence[ClassResult], asked: str, names: ClassNames, examples: Examples, pictures: Pictures
) -> Section:
    """The hardest and the easiest classes with examples, and a table of all; ``asked``: whose images they have."""

    def show(result: ClassResult) -> dict[str, Any]:
        return {
            "result": result,
            "name": names.tell(result.class_id),
            "taken_for": None if result.taken_for is None else names.tell(result.taken_for),
        }

    def show_card(result: ClassResult) -> dict[str, Any]:
        return show(result) | {"examples": pictures.show_some(examples(result.class_id)[:_ON_CARD])}

    easiest = pick_easiest(list(results), _CLASSES)
    data = {
        "hardest": [show_card(result) for result in results[:_CLASSES] if result.right < result.images],
        "easiest": [show_card(result) for result in easiest if result.right],
        "rows": [show(result) for result in results[:_MOST_ROWS]],
        "classes": len(results),
        "asked": asked,
    }
    return Section("classes", "Hard and easy classes", "report_classes.html.jinja", data)


def build_categories(root: CategoryResult, asked: str) -> Section:
    """The tree of categories as a table, each node below its parent; ``asked``: whose images."""
    rows: list[dict[str, Any]] = []

    def add(node: CategoryResult, level: int, trail: str) -> None:
        rows.append({"node": node, "level": level, "trail": trail})
        for child in node.children:
            add(child, level + 1, f"{trail} {child.name}")

    add(root, 0, "")
    data = {"rows": rows[:_MOST_NODES], "nodes": len(rows), "asked": asked}
    return Section("categories", "Results by category", "report_categories.html.jinja", data)


def build_answers(answered: Sequence[Answered], names: ClassNames, *, most: int = 120_000) -> Section:
    """Every answer, to be searched by class and id: held as columns, of which a script shows the rows that fit.

    Args:
        answered: answers by split.
        names: of the classes.
        most: answers that are held; of more the wrong and the least sure ones.
    """
    count = sum(len(part.ids) for part in answered)
    answered = _keep_answers(answered, most)
    listed = np.unique(np.concatenate([np.append(part.best, part.labels[part.is_labelled]) for part in answered]))
    positions = [np.searchsorted(listed, part.best) for part in answered]
    labels = [
        np.where(part.is_labelled, np.searchsorted(listed, np.where(part.is_labelled, part.labels, listed[0])), -1)
        for part in answered
    ]
    columns = {
        "classes": [names.tell(int(class_id)) for class_id in listed],
        "splits": [part.split for part in answered],
        "split": np.repeat(np.arange(len(answered)), [len(part.ids) for part in answered]).tolist(),
        "id": [image_id for part in answered for image_id in part.ids],
        "best": np.concatenate(positions).tolist(),
        "label": np.concatenate(labels).tolist(),
        "confidence": np.concatenate([(1000 * part.confidence).round().astype(np.int64) for part in answered]).tolist(),
    }
    data = {"columns": columns, "count": count, "held": len(columns["id"])}
    return Section("answers", "All answers", "report_answers.html.jinja", data)


def _keep_answers(answered: Sequence[Answered], most: int) -> list[Answered]:
    """Up to ``most`` of all answers in their order: the wrong ones, then the least sure."""
    if sum(len(part.ids) for part in answered) <= most:
        return list(answered)
    worth = np.concatenate([np.where(part.is_wrong, -1.0, part.confidence) for part in answered])
    kept = np.zeros(len(worth), dtype=bool)
    kept[np.argsort(worth, kind="stable")[:most]] = True
    ends = np.cumsum([len(part.ids) for part in answered])[:-1]
    return [part.take(np.flatnonzero(own)) for part, own in zip(answered, np.split(kept, ends), strict=True)]
