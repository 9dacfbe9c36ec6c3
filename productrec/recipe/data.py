"""Settings of the image table: where images and labels come from, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from productrec.settings.choices import check_name
from productrec.settings.fields import Count, NonNegative, Positive, Settings, ShareBelowOne, setting
from productrec.settings.names import AUTO, list_formats


class DataSettings(Settings):
    """Where the images and labels come from, and the table they become."""

    decides = "table"
    commands = ("ingest",)

    source: Path | None = setting(
        None, "folder, zip or tar of the competition's files", decides="nothing", commands=("ingest", "train")
    )
    format: str = setting("auto", f"layout of the source: {', '.join(list_formats())}; auto: as its files tell")
    dedup: Literal["off", "report", "drop", "group"] = setting(
        "off",
        "near-duplicates: report, drop training copies, or group so that no split parts them",
    )
    folds: Count = setting(0, "cross-validation folds of the training images; 0: none")
    pack: bool = setting(False, "shrink and encode the images once into a store that is fast to read")
    max_side_px: Positive = setting(320, "longer side of a packed image at most, in pixels")
    download: bool = setting(False, "fetch images from the source's URLs, beside the table")
    allow_private: bool = setting(
        False, "also fetch from addresses that are not public, with data.download", decides="nothing"
    )
    box_margin: NonNegative = setting(0.1, "share by which COCO's boxes are widened on every side")
    findings: Path | None = setting(
        None, "edited findings of an audit (CSV): images to drop, relabel or weigh", decides="nothing"
    )
    images: Path | None = setting(
        None,
        "folder of the images, where it is not in the source",
        decides="nothing",
        commands=("ingest", "train", "predict", "audit", "export"),
    )
    id_column: str | None = setting(None, "CSV column of image ids or file names; usual names are found without it")
    label_column: str | None = setting(None, "CSV column of labels; usual names are found without it")
    file_column: str | None = setting(None, "CSV column of file names, where images are not named by id")
    table: Path | None = setting(
        None,
        "folder of the image table; default data/ and the name of the source's folder or archive",
        decides="nothing",
        commands=("ingest", "train", "predict", "audit", "export"),
    )
    validation_fraction: ShareBelowOne = setting(
        0.1, "share of the training images held out for validation, where the source has no val"
    )
    distractors: tuple[str, ...] = setting(
        (),
        "classes, by name or id, whose images are of no product: they are not trained on, and tell unknown products; "
        "the contract's label for unknown products is one of itself",
    )
    seed: Count = setting(
        0, "decides which images are held out and the folds, so that recipes of other seeds share a table"
    )
    hold_out: Literal["images", "classes"] = setting(
        "images",
        "what data.validation_fraction is a share of: each class's images, or whole classes, which "
        "train.keep_best_by=recall@1 suits",
    )
    verify: bool = setting(True, "decode every image once at ingest, so that broken ones are known before training")

    @field_validator("distractors", mode="before")
    @classmethod
    def _take_numbers(cls, value: Any) -> Any:
        """YAML reads an id as a number."""
        named = value if isinstance(value, list | tuple) else [value]
        return tuple(str(one) if isinstance(one, int) else one for one in named)

    @field_validator("format")
    @classmethod
    def _check_format(cls, value: str) -> str:
        return check_name(value, (AUTO, *list_formats()))
