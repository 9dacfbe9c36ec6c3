"""Class folders: SOURCE/CLASS/*.jpg, or SOURCE/train/CLASS/*.jpg with val and test beside it."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from productrec.data.sources.files import IMAGE_FOLDERS, IMAGE_SUFFIXES, list_folders
from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows
from productrec.data.sources.unpacked import match_split
from productrec.data.table import SPLITS
from productrec.errors import DataError, describe_offenders

_NO_CLASSES = {*IMAGE_FOLDERS, "image", "img", "imgs", "photos", "pictures", "pics", "jpg", "jpeg", "png"}


def read_folders(source: Path, options: ReadOptions) -> SourceRows:
    """Read class folders; a class is the folder an image lies in, nested folders are its categories.

    Folders named train, val (valid, validation, dev) and test, in any case, are splits where train is among them; they
    may lie in a single folder of the source. An image's id is its path relative to its split's folder for test, and to
    ``source`` otherwise. Test images may lie flat; where one of their folders is a class, their folders are labels.
    Class ids are the positions of the class paths in sorted order.

    Raises:
        DataError: no image lies in a class folder, or two folders are one split.
    """
    rows = SourceRows(numbered=True)
    splits = find_split_folders(source)
    entries: list[tuple[str, str, str | None, str]] = []
    for split, root in (splits or {"train": source}).items():
        for path in _list_images(root):
            label = path.relative_to(root).parent.as_posix()
            relative = path.relative_to(source).as_posix()
            if split == "test":
                entries.append((path.relative_to(root).as_posix(), split, None if label == "." else label, relative))
            elif label != ".":
                entries.append((relative, split, label, relative))
    learned = {label for _, split, label, _ in entries if split != "test" and label is not None}
    if not learned:
        raise DataError(
            f"{source}: must hold one folder of images a class; no image ({', '.join(IMAGE_SUFFIXES)}) lies in one."
        )
    tested = {label for _, split, label, _ in entries if split == "test" and label is not None}
    if not tested & learned:  # folders of another kind
        entries = [
            (image_id, split, None if split == "test" else label, path) for image_id, split, label, path in entries
        ]
        tested = set()
    labels = sorted(learned | tested)
    numbers = {label: number for number, label in enumerate(labels)}
    leaves = Counter(label.rpartition("/")[2] for label in labels)
    for label, number in numbers.items():
        categories, _, name = label.rpartition("/")
        # Two branches may use one name for a leaf; the whole path tells them apart.
        rows.class_names[number] = name if leaves[name] == 1 else label
        if categories:
            rows.class_paths[number] = categories
    for image_id, split, known_label, relative_path in entries:
        rows.add(image_id, split, None if known_label is None else numbers[known_label], path=relative_path)
    if splits:
        shown = ", ".join(f"{split} from {root.relative_to(source).as_posix()}/" for split, root in splits.items())
        rows.notes.append(f"class folders: {shown}")
        _tell_unread(source, splits, rows)
    else:
        rows.notes.append("class folders: every folder with images is a class; there is no train/ among them")
    return rows


def find_split_folders(source: Path) -> dict[str, Path]:
    """The folder of each split, train first; empty where no folder is named train.

    Raises:
        DataError: two folders are one split, or there are val and test without train.
    """
    inner = list_folders(source)
    for root in (source, *(inner if len(inner) == 1 else ())):
        folders: dict[str | None, list[Path]] = {}
        for folder in list_folders(root):
            folders.setdefault(match_split(folder.name, whole=True), []).append(folder)
        splits = {split: folders[split] for split in SPLITS if split in folders}
        twice = [folder.name for roots in splits.values() if len(roots) > 1 for folder in roots]
        if "train" in splits and twice:
            raise DataError(f"{source}: a split must be one folder; got {', '.join(twice)}. Put them together.")
        if "train" in splits:
            return {split: roots[0] for split, roots in splits.items()}
        if len(splits) > 1 and None not in folders:
            names = ", ".join(folder.name for roots in splits.values() for folder in roots)
            raise DataError(f"{source}: must hold train beside val and test; got {names}. Add it, or rename them.")
    return {}


def is_images_only(source: Path) -> bool:
    """Whether the folders with images are named as folders of all images are (``images``), not as classes."""
    if find_split_folders(source):
        return False
    folders = {path.parent.relative_to(source).as_posix().lower() for path in _list_images(source)} - {"."}
    return bool(folders) and folders <= _NO_CLASSES


def _tell_unread(source: Path, splits: dict[str, Path], rows: SourceRows) -> None:
    """Folders beside train that hold images, and images that lie in no class folder."""
    beside = splits["train"].parent
    unread = [folder for folder in list_folders(beside) if folder not in splits.values()]
    names = [f"{folder.relative_to(source).as_posix()}/" for folder in unread if any(_list_images(folder))]
    if names:
        rows.warnings.append(
            f"{source}: {describe_offenders(names)} beside {splits['train'].name}/ hold images and are not read; "
            "splits are train, val (valid, validation, dev) and test."
        )
    loose = [
        path.relative_to(source).as_posix()
        for split, root in splits.items()
        for path in sorted(root.iterdir())
        if split != "test" and path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if loose:
        rows.warnings.append(f"{source}: {describe_offenders(loose)} images lie in no class folder and are not read.")


def _list_images(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _is_class_folders(source: Path) -> bool:
    return bool(list_folders(source)) and not is_images_only(source)


FORMAT = Format(rank=80, shows="one folder a class", detect=_is_class_folders, read=read_folders)
