"""What may stand for a setting, in words."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from productrec.recipe import list_settings
from productrec.settings.fields import Count, Fraction, PositiveFloat
from productrec.settings.kinds import describe_kind


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Count, "whole number, at least 0"),
        (Fraction, "number, at least 0, at most 1"),
        (Path | None, "path or null"),
        (bool | str, "true or false or text"),
        (tuple[PositiveFloat, ...], "list of: number, above 0"),
        (Literal["a", "b"], "one of a, b"),
        (Literal[1, 2], "one of 1, 2"),
        (Literal[",", "\t"], r"one of ',', '\t'"),
        (Annotated[int, Field(ge=0, lt=2**32)], "whole number, at least 0, below 4294967296"),
        (dict[str, float], "mapping"),
    ],
)
def test_words(annotation: Any, words: str) -> None:
    assert describe_kind(annotation) == words


def test_settings_tell_their_kind() -> None:
    kinds = {info.key: info.kind for info in list_settings()}
    assert kinds["train.epochs"] == "whole number, at least 1"
    assert kinds["train.splits"] == "list of: one of train, val"
    assert kinds["loss.metric"] == "one of several, by name or null"
    assert kinds["train.fold"] == "whole number, at least 0 or null"
