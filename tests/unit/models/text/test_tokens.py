"""Tokens: a vocabulary from titles, any script, nothing lower-cased, the same each time."""

import re
import unicodedata

import pytest
import torch

from productrec.errors import ArtifactError, DataError, RecipeError
from productrec.models.text.tokens import SMALLEST_VOCABULARY, Tokeniser, read_tokeniser, train_tokeniser

TITLES = [
    "Nike Men Black Shorts",
    "Nike Women Black Shorts",
    "Hafermilch Barista, ungesüßt 1 l",
    "Молоко овсяное 1 л",
    "オーツミルク 1リットル",
    "حليب الشوفان",
]


def encode(tokeniser, *titles, max_tokens=64):
    tokens = tokeniser.encode(titles, max_tokens)
    return [row[:length].tolist() for row, length in zip(tokens.ids, tokens.lengths, strict=True)]


def test_equal_titles_train_equal_vocabularies():
    titles = [f"{title} {number % 7}" for number in range(60) for title in TITLES]
    first, second = train_tokeniser(titles, 400), train_tokeniser(titles, 400)
    assert first.to_json() == second.to_json()
    assert SMALLEST_VOCABULARY < first.vocabulary_size <= 400


def test_a_learned_word_is_one_subword_wherever_it_stands():
    tokeniser = train_tokeniser(TITLES, 2000)
    assert len(encode(tokeniser, "Nike Shorts")[0]) == 2
    assert set(encode(tokeniser, "Shorts Nike")[0]) == set(encode(tokeniser, "Nike Shorts")[0])


def test_case_and_accents_and_scripts_that_were_never_seen_are_kept():
    tokeniser = train_tokeniser(TITLES, 400)
    titles = ["nike", "Nike", "NIKE", "süß", "suss", "귀리 우유", "燕麦奶", "🥛"]
    assert len({tuple(row) for row in encode(tokeniser, *titles)}) == len(titles)


def test_two_spellings_of_one_letter_and_spaces_in_a_row_are_the_same():
    tokeniser = train_tokeniser(TITLES, 400)
    assert unicodedata.normalize("NFD", "ungesüßt") != "ungesüßt"
    assert encode(tokeniser, unicodedata.normalize("NFD", "ungesüßt")) == encode(tokeniser, "ungesüßt")
    assert encode(tokeniser, " Nike \t Men\n") == encode(tokeniser, "Nike Men")


def test_rows_are_filled_up_to_the_longest_and_cut_at_the_most():
    tokeniser = train_tokeniser(TITLES, 400)
    tokens = tokeniser.encode(["Nike", "Молоко овсяное 1 л"], 5)
    assert tokens.ids.dtype == torch.int32 and tokens.lengths.dtype == torch.int64
    assert tokens.ids.shape == (2, 5) and tokens.lengths.tolist() == [1, 5]
    assert tokens.ids[0, 1:].tolist() == [0, 0, 0, 0]
    assert encode(tokeniser, "Молоко овсяное 1 л")[0][:5] == tokens.ids[1].tolist()
    short = tokens.take(torch.tensor([0, 0]))
    assert short.ids.shape == (2, 1)


def test_json_and_file_give_the_same_tokeniser(tmp_path):
    tokeniser = train_tokeniser(TITLES, 400)
    tokeniser.encode(TITLES, 3)  # what was asked of it leaves no trace
    (tmp_path / "tokenizer.json").write_text(tokeniser.to_json(), encoding="utf-8")
    again = read_tokeniser(tmp_path / "tokenizer.json")
    assert again.to_json() == Tokeniser.from_json(tokeniser.to_json()).to_json() == tokeniser.to_json()
    assert encode(again, *TITLES) == encode(tokeniser, *TITLES)


@pytest.mark.parametrize("blank", ["", "  \n", None, float("nan")])
def test_a_blank_title_is_named(blank):
    tokeniser = train_tokeniser(TITLES, 400)
    with pytest.raises(
        DataError, match="titles: each must be a text that is not blank; got 1 " + re.escape(f"({blank!r} at 1)")
    ):
        tokeniser.encode(["Nike", blank], 8)
    with pytest.raises(DataError, match="at 0"):
        train_tokeniser([blank], 400)


def test_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="vocabulary_size must be at least 257; got 256"):
        train_tokeniser(TITLES, 256)
    with pytest.raises(DataError, match="at least one"):
        train_tokeniser([], 400)
    with pytest.raises(RecipeError, match="max_tokens must be at least 1"):
        train_tokeniser(TITLES, 400).encode(TITLES, 0)
    with pytest.raises(ArtifactError, match="tokenizer.json"):
        Tokeniser.from_json("{}")
    with pytest.raises(ArtifactError, match="tokenizer.json"):
        read_tokeniser(tmp_path / "tokenizer.json")
