"""One root, an exit code a kind, and a short list of offenders."""

import inspect

import pytest

from productrec import errors
from productrec.errors import ProductrecError, describe_offenders

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ProductrecError) and kind is not ProductrecError
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stands_below_the_root_and_has_a_failing_exit_code(kind: type[ProductrecError]) -> None:
    assert 0 < kind.exit_code < 256
    with pytest.raises(ProductrecError, match="what is wrong"):
        raise kind("what is wrong")


def test_exit_codes_tell_the_kinds_apart() -> None:
    codes = [kind.exit_code for kind in (ProductrecError, *KINDS)]
    assert len(codes) == len(set(codes))
    assert len(KINDS) >= 7


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], "0 ()"),
        (["a"], "1 (a)"),
        (list("abcde"), "5 (a, b, c, d, e)"),
        (list("abcdef"), "6 (a, b, c, d, e, ...)"),
        ((number for number in range(100)), "100 (0, 1, 2, 3, 4, ...)"),
    ],
)
def test_offenders_are_counted_and_the_first_few_named(items: object, text: str) -> None:
    assert describe_offenders(items) == text


def test_the_number_of_named_offenders_can_be_chosen() -> None:
    assert describe_offenders("abcd", most=2) == "4 (a, b, ...)"
