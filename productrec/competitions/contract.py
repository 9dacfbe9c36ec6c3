"""A competition's contract: what its files look like, what may be trained on and what its CSV must hold.

The ingest stage asks it for the source format, training for the permitted splits, `writer` for the CSV.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from productrec.errors import DataError, SubmissionError
from productrec.metrics.competition import METRICS, CompetitionMetric
from productrec.metrics.matches import MATCH_METRICS, RETRIEVAL_METRICS
from productrec.settings.names import AUTO, list_formats
from productrec.settings.text import parse_settings, read_settings, suggest_name

_SUFFIXES = (".yaml", ".yml")
_EXPECTED = {  # pydantic's kinds of error in our words
    "missing": "given",
    "string_type": "text (in quotes, where it looks like a number)",
    "string_too_short": "at least one character",
    "int_type": "a whole number",
    "greater_than_equal": "at least 1",
    "greater_than": "above 0",
    "less_than": "below 1",
    "tuple_type": "a list, such as [train]",
    "too_short": "a list that is not empty",
}


_METRICS_OF = {"classes": METRICS, "matches": MATCH_METRICS, "retrieval": RETRIEVAL_METRICS}  # by what is answered
_ALL_METRICS = {name: kind for metrics in _METRICS_OF.values() for name, kind in metrics.items()}


def _check_format(name: str) -> str:
    return _check_known(name, (AUTO, *list_formats()))


def _check_metric(name: str) -> str:
    return _check_known(name, tuple(_ALL_METRICS))


def _check_known(name: str, known: Sequence[str]) -> str:
    if name not in known:
        near = suggest_name(name, known)
        raise PydanticCustomError(
            "unknown_name",
            "one of {known}",
            {"known": ", ".join(known), "mend": f" Did you mean {near}?" if near else ""},
        )
    return name


class Contract(BaseModel):
    """What one competition gives and wants; read from a YAML by `load_contract`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="the short name, as the command line takes it")
    title: str = Field(min_length=1, description="the name in words")
    source_format: Annotated[str, AfterValidator(_check_format)] = Field(
        AUTO, description="how the competition's files are laid out; auto looks at them"
    )
    answers: Literal["classes", "matches", "retrieval"] = Field(
        "classes",
        description="what is answered for an image: classes; matches, the ids of all test images of the same product, "
        "itself among them; or retrieval: a research protocol, whose figures `evaluate` computes, with no CSV",
    )
    most_matches: int = Field(
        50, strict=True, ge=1, description="where the answers are matches, how many ids each row holds at most"
    )
    adapts_to_sample: bool = Field(
        False,
        strict=True,
        description="whether headers, separators and the number of labels are those of the sample submission, where "
        "the source has one",
    )
    sample_submission: str | None = Field(
        None,
        min_length=1,
        description="the file name of the sample submission among the source files; null: there is none",
    )
    trainable_splits: tuple[Literal["train", "val"], ...] = Field(
        min_length=1, description="the list of splits that the rules let a model be trained on"
    )
    pseudo_labels: bool = Field(
        True, strict=True, description="whether the rules let a model be trained on images whose labels it predicted"
    )
    metric: Annotated[str, AfterValidator(_check_metric)] = Field(
        description=f"what the competition scores: {', '.join(_ALL_METRICS)}"
    )
    metric_k: int = Field(1, strict=True, ge=1, description="how many guesses an image the metric looks at")
    id_column: str = Field(min_length=1, description="the header of the submission's column of image ids")
    prediction_column: str = Field(min_length=1, description="the header of the submission's column of labels")
    column_separator: Literal[",", ";", "\t"] = Field(
        ",", description="what stands between the two columns: a comma, a semicolon or a tab"
    )
    labels_per_image: int = Field(1, strict=True, ge=1, description="how many labels each row of the submission holds")
    label_separator: str = Field(" ", min_length=1, description="what stands between the labels of one row")
    confidence: bool = Field(
        False,
        strict=True,
        description="whether a row says how sure its label is: a number from 0 to 1 behind it and the label_separator",
    )
    allows_empty: bool = Field(
        False,
        strict=True,
        description="whether a row may hold no label, for an image of no known class; productrec writes one in each",
    )
    class_count: int | None = Field(
        None,
        strict=True,
        ge=1,
        description="how many classes there are, where their ids are the whole numbers from 0; null: not known",
    )
    label_as: Literal["id", "name"] = Field(
        "id", description="how a label is written: id, the competition's own class id; name, the class's name"
    )
    unknown_label: str | None = Field(
        None, min_length=1, description="what a product of no known class is called; null: no such label"
    )
    unknown_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="which share of the test images is of no known class, between 0 and 1; null: that is not known",
    )
    upload_slug: str | None = Field(
        None, min_length=1, description="the competition's name where submissions are uploaded; null: no upload"
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_columns(cls, values: Any) -> Any:
        """Where there is no CSV, its columns need no names."""
        if isinstance(values, dict) and values.get("answers") == "retrieval":
            return {"id_column": "id", "prediction_column": "label"} | values
        return values

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.metric not in (suited := _METRICS_OF[self.answers]):
            raise ValueError(f"metric must be one of {', '.join(suited)} for {self.answers}; got {self.metric}")
        if self.id_column == self.prediction_column:
            raise ValueError(f"prediction_column must differ from id_column; got {self.id_column!r} for both")
        if not _ALL_METRICS[self.metric].has_k and self.metric_k != 1:
            raise ValueError(f"metric_k must be 1 for {self.metric}; got {self.metric_k}")
        if self.answers == "matches" and self.labels_per_image != 1:
            raise ValueError(
                f"labels_per_image must be left out where answers are matches, for which most_matches is; "
                f"got {self.labels_per_image}"
            )
        if self.answers == "classes" and self.metric_k > self.labels_per_image:
            raise ValueError(
                f"metric_k must be at most labels_per_image; got {self.metric_k} and {self.labels_per_image}"
            )
        if any(mark in self.label_separator for mark in "\r\n"):
            raise ValueError(f"label_separator must hold no line break; got {self.label_separator!r}")
        if self.confidence and self.labels_per_image > 1:
            raise ValueError(f"labels_per_image must be 1 where confidence is true; got {self.labels_per_image}")
        if self.confidence and self.unknown_label is not None:
            raise ValueError(f"unknown_label must be null where confidence is true; got {self.unknown_label!r}")
        if self.labels_per_image > 1 and self.unknown_label and self.label_separator in self.unknown_label:
            raise ValueError(f"unknown_label must not hold the label_separator; got {self.unknown_label!r}")
        if self.unknown_share is not None and self.unknown_label is None:
            raise ValueError(f"unknown_label must be given beside unknown_share; got {self.unknown_share} and no label")
        return self

    @property
    def splits_cells(self) -> bool:
        """Whether a row's cell is more than one label, so that no label may hold the separator."""
        return self.labels_per_image > 1 or self.confidence

    @property
    def scored_by(self) -> CompetitionMetric:
        """The metric of class answers, with its k; the top-1 accuracy where the competition asks for no classes."""
        return CompetitionMetric(self.metric, self.metric_k) if self.answers == "classes" else CompetitionMetric()

    def tell_metric(self) -> str:
        """What the competition scores, in words."""
        return _ALL_METRICS[self.metric].meaning.format(k=self.metric_k)


def list_contracts() -> list[str]:
    """Names of the contracts that come with the package, sorted."""
    files = resources.files("productrec.competitions").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_contract(name_or_path: str) -> Contract:
    """Read a bundled contract by its name, or one's own from the path of a ``.yaml`` file.

    Raises:
        SubmissionError: no such name or file, not YAML, or a key is unknown, missing or of the wrong type.
    """
    if name_or_path.endswith(_SUFFIXES):
        others = f"The bundled ones are {', '.join(list_contracts())}."
        raw = read_settings(Path(name_or_path), kind="contract", see=others, error=SubmissionError)
        return _validate(raw, where=name_or_path)
    known = list_contracts()
    if name_or_path not in known:
        near = suggest_name(name_or_path, known)
        raise SubmissionError(
            f"competition: name must be one of {', '.join(known)}, or a path to a .yaml file; got {name_or_path!r}. "
            + (f"Did you mean {near}?" if near else "Name one of these, or write a contract of your own.")
        )
    text = (resources.files("productrec.competitions") / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    where = f"competition {name_or_path}"
    return _validate(parse_settings(text, where=where, error=SubmissionError), where=where)


def check_training_splits(contract: Contract, splits: Iterable[str], *, forced: bool) -> None:
    """Refuse to train on a split that the competition's rules forbid, unless it is forced.

    Raises:
        DataError: one of ``splits`` is not among the contract's ``trainable_splits`` and ``forced`` is false.
    """
    forbidden = sorted(set(splits) - set(contract.trainable_splits))
    if forbidden and not forced:
        raise DataError(
            f"{contract.title}: training splits must be among {', '.join(contract.trainable_splits)}, by its rules; "
            f"got {', '.join(forbidden)}. Leave that out, or force it for a model that will not be submitted."
        )


def check_pseudo_labels(contract: Contract, *, forced: bool) -> None:
    """Refuse to train on predicted labels where the competition's rules forbid it, unless it is forced.

    Raises:
        DataError: they forbid it and ``forced`` is false.
    """
    if not contract.pseudo_labels and not forced:
        raise DataError(
            f"{contract.title}: train.pseudo_labels must be left out, by its rules. Leave it out, or force it "
            "(train.force_splits=true) for a model that will not be submitted."
        )


def _validate(raw: dict[str, Any], *, where: str) -> Contract:
    unknown = [str(key) for key in raw if key not in Contract.model_fields]
    if unknown:  # told before anything else: a misspelt key also makes its right spelling look missing
        fields = list(Contract.model_fields)
        near = suggest_name(unknown[0], fields)
        raise SubmissionError(
            f"{where}: keys must be known ones; got {', '.join(map(repr, unknown))}. "
            + (f"Did you mean {near}?" if near else f"Known are {', '.join(fields)}.")
        )
    try:
        return Contract.model_validate(raw)
    except ValidationError as error:
        raise SubmissionError(f"{where}: {_describe(error)}") from None


def _describe(error: ValidationError) -> str:
    """Every problem that pydantic found, a sentence of the house's form each, in one line."""
    return " ".join(_describe_one(item) for item in error.errors(include_url=False))


def _describe_one(item: Any) -> str:
    if not item["loc"]:
        return f"{item['ctx']['error']}. Change what disagrees."
    key = str(item["loc"][0])
    got = "nothing" if item["type"] == "missing" else repr(item["input"])
    expected = _EXPECTED.get(item["type"], item["msg"].removeprefix("Input should be "))
    mend = item.get("ctx", {}).get("mend", "")
    return f"{key} must be {expected}; got {got}.{mend} It is {Contract.model_fields[key].description}."
