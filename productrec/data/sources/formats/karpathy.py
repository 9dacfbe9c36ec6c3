"""Karpathy's split files of caption sets: MS-COCO, Flickr30K and Flickr8K, several captions an image."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError

NAMES = ("dataset_coco.json", "dataset_flickr30k.json", "dataset_flickr8k.json")
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def read_karpathy(source: Path, options: ReadOptions) -> SourceRows:
    """Read ``{"images": [{"filename", "split", "sentences": [{"raw"}]}]}``: captions are titles, no image has a label.

    Source: Karpathy and Fei-Fei 2015 (arXiv 1412.2306), whose splits the field compares by. ``restval``, what COCO's
    own validation images leave over, joins train, as VSE++ and its successors have it. Ids are COCO's own
    (``cocoid``), else the file's name.

    Raises:
        DataError: there are several such files, or one is not of this form.
    """
    found = [name for name in NAMES if (source / name).is_file()]
    if len(found) != 1:
        raise DataError(
            f"{source}: must hold one of {', '.join(NAMES)}; got {' and '.join(found) or 'none of them'}. "
            "Put each beside its own images."
        )
    path = source / found[0]
    rows, counts = SourceRows(), Counter[str]()
    try:
        for entry in json.loads(path.read_text(encoding="utf-8"))["images"]:
            split = str(entry["split"])
            if split not in _SPLITS:
                raise DataError(f"{path}: split must be one of {', '.join(_SPLITS)}; got {split[:80]!r}.")
            _add(rows, entry, _SPLITS[split])
            counts[split] += 1
    except (ValueError, OSError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is not Karpathy's JSON with images, splits and sentences ({error!r}). Download it again."
        ) from None
    shown = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    rows.notes.append(f"{path.name}: {shown}; captions are titles{', restval joins train' * ('restval' in counts)}")
    return rows


def _add(rows: SourceRows, entry: dict[str, Any], split: str) -> None:
    name = str(entry["filename"])
    captions = [str(sentence["raw"]) for sentence in entry["sentences"]]
    path = f"{entry['filepath']}/{name}" if entry.get("filepath") else name
    rows.add(str(entry.get("cocoid", name)), split, None, title=captions, path=path)


FORMAT = Format(
    rank=15,
    shows=f"{' or '.join(NAMES[:2])} (captions, Karpathy's splits)",
    detect=lambda source: any((source / name).is_file() for name in NAMES),
    read=read_karpathy,
)
