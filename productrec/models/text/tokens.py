"""Tokens: titles as rows of subword numbers, by a vocabulary learned from titles or read from a file; the one user of
tokenizers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from productrec.errors import ArtifactError, DataError, RecipeError, describe_error, describe_offenders

# Its own threads do not survive a fork, as loader processes are made, and it would say so on the terminal each time.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PAD = "<pad>"
_PADS = (PAD, "[PAD]", "<|padding|>", "<|endoftext|>", "</s>")  # what other vocabularies fill up with
_BYTES = pre_tokenizers.ByteLevel.alphabet()
SMALLEST_VOCABULARY = len(_BYTES) + 1


class Tokens(NamedTuple):
    """N titles as subwords: ``ids`` (N, L) int32, filled up behind each title; ``lengths`` (N,) int64, at least 1."""

    ids: Tensor
    lengths: Tensor

    def take(self, rows: Tensor) -> Tokens:
        """Those of ``rows`` (B,) int64, no wider than the longest of them."""
        lengths = self.lengths[rows]
        return Tokens(self.ids[rows, : int(lengths.max()) if len(rows) else 0], lengths)


class Tokeniser:
    """Cuts titles into the subwords of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._json = tokenizer.to_str()
        known = (tokenizer.token_to_id(token) for token in _PADS)
        self._pad = next((number for number in known if number is not None), 0)

    @property
    def vocabulary_size(self) -> int:
        """How many different subwords there are, the one that fills up among them."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, titles: Sequence[str], max_tokens: int) -> Tokens:
        """Cut titles into subwords; what is beyond ``max_tokens`` of a title is left out.

        Raises:
            DataError: a title is empty or blank, or no text.
            RecipeError: ``max_tokens`` leaves no room for a subword.
        """
        check_titles("titles", titles)
        marks = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_tokens <= marks:
            raise RecipeError(
                f"titles: max_tokens must be at least {marks + 1}, of which this vocabulary's own marks take {marks}; "
                f"got {max_tokens}. 64 are enough for most titles."
            )
        self._tokenizer.enable_truncation(max_tokens)
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(titles))]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        empty = (lengths == 0).nonzero().flatten().tolist()
        if empty:
            raise DataError(
                f"titles: each must have a subword of the vocabulary; got none in {_quote(titles, empty)}. "
                "Leave those rows without a title."
            )
        widest = int(lengths.max()) if rows else 0
        ids = torch.full((len(rows), widest), self._pad, dtype=torch.int32)
        ids[torch.arange(widest) < lengths[:, None]] = torch.tensor(
            [number for row in rows for number in row], dtype=torch.int32
        )
        return Tokens(ids, lengths)

    def to_json(self) -> str:
        """The vocabulary and how it cuts, in the format of ``tokenizer.json``."""
        return self._json

    @classmethod
    def from_json(cls, text: str) -> Tokeniser:
        """What `to_json` gave, or the text of any ``tokenizer.json``; its padding and truncation are passed over.

        Raises:
            ArtifactError: it is none.
        """
        try:
            return cls(Tokenizer.from_str(text))
        except Exception as error:  # the library raises Exception itself
            raise ArtifactError(
                f"tokeniser: must be the JSON of a tokenizer.json; got another text ({describe_error(error)}). "
                "Take the file as it was written."
            ) from None


def read_tokeniser(path: Path) -> Tokeniser:
    """The tokeniser in a ``tokenizer.json``.

    Raises:
        ArtifactError: the file cannot be read, or is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: must be a tokenizer.json; got {describe_error(error)}.") from None
    return Tokeniser.from_json(text)


def train_tokeniser(titles: Sequence[str], vocabulary_size: int) -> Tokeniser:
    """Learn a vocabulary from titles: byte-level byte-pair encoding.

    Sources: Sennrich et al. 2016 (arXiv 1508.07909) for the pairs; Radford et al. 2019 (GPT-2) for bytes instead of
    letters, so that no script and no sign is unknown, however few titles there are. Titles are normalised to NFC, and
    spaces in a row count as one; letters keep their case and their accents. The same titles give the same vocabulary.

    Args:
        titles: to learn from, none of them blank.
        vocabulary_size: at most so many subwords, at least 257: 256 bytes and the one that fills up. Few titles give
            fewer, since a pair has to come twice.

    Raises:
        DataError: no titles, or a blank one.
        RecipeError: ``vocabulary_size`` is too small.
    """
    check_titles("titles", titles)
    if not titles:
        raise DataError("titles: must hold at least one to learn a vocabulary from; got none. Give the table titles.")
    if vocabulary_size < SMALLEST_VOCABULARY:
        raise RecipeError(
            f"titles: vocabulary_size must be at least {SMALLEST_VOCABULARY}; got {vocabulary_size}. "
            "A few thousand suit small sets."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[PAD],
        initial_alphabet=_BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(titles), trainer, length=len(titles))
    return Tokeniser(tokenizer)


def check_titles(where: str, titles: Sequence[str]) -> None:
    """Raise a DataError unless every title is a text with something in it."""
    wrong = [row for row, title in enumerate(titles) if not isinstance(title, str) or not title.strip()]
    if wrong:
        raise DataError(
            f"{where}: each must be a text that is not blank; got {_quote(titles, wrong)}. "
            "Leave out the rows that have none."
        )


def _quote(titles: Sequence[str], rows: Sequence[int]) -> str:
    return describe_offenders(f"{titles[row]!r} at {row}" for row in rows)
