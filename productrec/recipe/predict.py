"""Settings of prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import SerializeAsAny, ValidationInfo, field_validator, model_validator

from productrec.data.own_views import SUFFIXES, name_own
from productrec.data.view_presets import PRESETS
from productrec.settings.choices import Choice, check_name, read_choice
from productrec.settings.fields import Fraction, NonNegative, Positive, Settings, setting

NONE = "none"
VOTERS = ("titles", "text", "joined")  # neighbours that lie beside those of images, under these names
BlendWay = Literal["auto", "best", "mean", "geometric", "rank", "greedy", "coordinates", "mixture", "stacking"]
PRIORS = (NONE, "uniform", "estimated")


class PredictSettings(Settings):
    """How test images are embedded, compared with the gallery and given class probabilities."""

    decides = "predictions"
    commands = ("train", "predict", "photos", "audit")

    checkpoint: Literal["best", "last"] = setting(
        "best",
        "checkpoint of the run that predicts, or that is exported",
        commands=("train", "predict", "photos", "audit", "export"),
    )
    own_views: dict[str, str] = setting({}, "views of your own: a file of albumentations pipelines by its name")
    tta: str = setting("plain", f"views of an image, averaged over: {', '.join(PRESETS)}, or a file of your own")
    average: Literal["logits", "probabilities"] = setting(
        "logits", "what of the head is averaged over views; embeddings always are"
    )
    stored: Literal["float32", "float16", "int8"] = setting(
        "float32", "type of embeddings on disk; logits always are float32"
    )
    gallery_tta: str = setting("flip", "views of a gallery image, where test images have more than the plain one")
    gallery_splits: tuple[Literal["train", "val"], ...] = setting(("train",), "splits to retrieve from", min_length=1)
    batch_size: Positive = setting(128, "images per forward pass")
    index: Literal["auto", "exact", "hnsw", "ivf", "rabitq"] = setting(
        "auto",
        "kind of the gallery's index: exact up to 200,000 rows, beyond by rows and memory; or as it is named",
        commands=("train", "predict", "index"),
    )
    index_recall: Fraction = setting(
        0.97,
        "share of the ten nearest that an approximate index must find, measured on the gallery's own rows",
        commands=("train", "predict", "index"),
    )
    index_address: str | None = setting(
        None,
        "Milvus server where an index lies that `productrec index copy` brought there: http://HOST:PORT[/NAME]",
        decides="nothing",
        commands=("photos", "index"),
    )
    neighbours: Positive = setting(50, "nearest gallery images fetched for each query")
    k_grid: tuple[Positive, ...] = setting((1, 3, 5, 10, 20, 50), "votes tried on validation", min_length=1)
    power_grid: tuple[NonNegative, ...] = setting(
        (1.0, 4.0, 16.0, 64.0), "powers of the similarity tried on validation", min_length=1
    )
    parts: tuple[Literal["head", "vote", "prototypes"], ...] = setting(
        ("head", "vote", "prototypes"),
        "what speaks in the answer: the head, the vote of neighbours, the class prototypes",
        min_length=1,
    )
    titles: Literal["auto", "none"] = setting(
        "auto",
        "whether neighbours by title vote too, for images that have a title: auto, where gallery and validation images "
        "have titles and it surely gains; none",
        commands=("train", "predict"),
    )
    reranking: tuple[SerializeAsAny[Choice], ...] = setting(
        (),
        "re-rankings (docs/reranking.md) that a fit tries, of which the best stays where it surely gains: names, or "
        "{name: whitening, dimensions: 64} for other settings; none for none",
        commands=("train", "predict"),
    )
    blend: BlendWay = setting(
        "auto",
        "how several models become one, fitted on images out of fold or on validation images; auto: what nested "
        "validation there likes best",
        commands=("train", "predict"),
    )
    structure: tuple[Literal["groups", "categories"], ...] = setting(
        (),
        "what is tried on the finished class probabilities, and kept where it surely gains: groups (images of one "
        "listing answer together), categories (a likely category lifts its classes)",
        commands=("train", "predict"),
    )
    prior: str = setting(
        NONE,
        "how often each class is among the test images, to which probabilities are corrected where that surely gains: "
        "none, uniform, estimated (from the predictions themselves), or a CSV of class and share",
        commands=("train", "predict"),
    )
    member_weights: dict[str, NonNegative] = setting({}, "weight of each member in the ensemble; 1 where none is given")
    keep_parts: bool = setting(False, "also write the probabilities of head, nearest, vote and prototypes")

    @field_validator("reranking", mode="before")
    @classmethod
    def _choose_reranking(cls, value: Any) -> tuple[Choice, ...]:
        if value in (None, NONE, (), []):
            return ()
        # Methods are declared beside what they compute with; `productrec --help` asks for none.
        from productrec.retrieval.reranking.catalogue import list_rerankings

        known = list_rerankings()
        listed = list(value) if isinstance(value, list | tuple) else [value]
        chosen = [read_choice(one, known.get, known, default="") for one in listed]
        for place, method in enumerate(chosen):
            if method.depends_on_queries:
                raise ValueError(
                    f"must name methods that answer each image by itself; {method.get_name()} looks at others too."
                )
            if method in chosen[:place]:
                raise ValueError(f"must name each method once; got {method.tell()} twice.")
        return tuple(chosen)

    @field_validator("structure")
    @classmethod
    def _check_structure(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"must name each step once; got {', '.join(value)}.")
        return value

    @field_validator("prior")
    @classmethod
    def _check_prior(cls, value: str) -> str:
        if value not in PRIORS and not value.endswith(".csv"):
            raise ValueError(f"must be {', '.join(PRIORS)} or a file that ends in .csv; got {value!r}.")
        return value

    @model_validator(mode="before")
    @classmethod
    def _name_files(cls, values: Any) -> Any:
        """A file of views becomes a name, which folders can have, and stands among ``own_views``."""
        if not isinstance(values, Mapping):
            return values
        files = {name: values[name] for name in ("tta", "gallery_tta") if str(values.get(name, "")).endswith(SUFFIXES)}
        own = dict(values.get("own_views") or {}) | {name_own(str(file)): str(file) for file in files.values()}
        return {**values, **{name: name_own(str(file)) for name, file in files.items()}, "own_views": own}

    @field_validator("own_views")
    @classmethod
    def _check_own(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            name_own(name)
            if name in VOTERS:
                raise ValueError(f"a file of views must not be named {', '.join(VOTERS)}; got {name!r}. Rename it")
        return value

    @field_validator("tta", "gallery_tta")
    @classmethod
    def _check_views(cls, value: str, info: ValidationInfo) -> str:
        return check_name(value, {**PRESETS, **info.data.get("own_views", {})})
