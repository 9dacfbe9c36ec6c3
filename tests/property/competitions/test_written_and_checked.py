"""Whatever `write_submission` writes passes the check, and a single damage to it does not."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.competitions.checker import Report, check_csv
from productrec.competitions.contract import Contract, load_contract
from productrec.competitions.writer import write_submission

STRANGER = "\ue000"  # a letter that no id and no label below holds
PLAIN = load_contract("plain")
CONTRACTS = [
    load_contract("imaterialist2019"),
    load_contract("google_landmark2019"),
    load_contract("humpback_whale2019"),
    PLAIN,
    PLAIN.model_copy(update={"column_separator": ";", "labels_per_image": 2, "label_separator": "|"}),
    PLAIN.model_copy(update={"column_separator": "\t", "id_column": 'the "id"', "unknown_label": "new"}),
]
LETTERS = st.characters(codec="utf-8", exclude_characters="\n\r\0" + STRANGER)
TEXTS = st.one_of(
    st.text(LETTERS, min_size=1, max_size=8).filter(str.strip),
    st.sampled_from(
        ["000123", "123", "NA", "nan", "1e5", "12.0", "a,b.jpg", 'say "hi"', " spaced ", "[x]", "b.jpg", "b"]
    ),
)


@dataclass
class Written:
    """A CSV that was written, and what it is checked against."""

    content: bytes
    contract: Contract
    ids: list[str]
    labels: list[str]

    def check(self, content: bytes) -> Report:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "made.csv"
            path.write_bytes(content)
            return check_csv(path, contract=self.contract, ids=self.ids, labels=self.labels)


@st.composite
def submissions(draw: st.DrawFn) -> Written:
    contract = draw(st.sampled_from(CONTRACTS))
    ids = draw(st.lists(TEXTS, min_size=2, max_size=6, unique=True))
    labels = TEXTS.filter(lambda text: not contract.splits_cells or contract.label_separator not in text)
    known = draw(st.lists(labels, min_size=5, max_size=8, unique=True))
    values = np.random.default_rng(draw(st.integers(0, 9))).dirichlet(np.ones(len(known)), len(ids))
    doubted = draw(st.none() | st.lists(st.sampled_from(ids)))
    with tempfile.TemporaryDirectory() as folder:
        written = write_submission(
            Path(folder) / "made.csv",
            contract=contract,
            ids=ids,
            probabilities=values.astype(draw(st.sampled_from([np.float16, np.float32, np.float64]))),
            class_labels=known,
            sample=None,
            doubted=doubted,
        )
        return Written(written.path.read_bytes(), contract, ids, known)


@settings(deadline=None, max_examples=60)
@given(written=submissions())
def test_what_is_written_passes(written: Written) -> None:
    assert written.check(written.content).list_faults() == []


@settings(deadline=None, max_examples=150)
@given(written=submissions(), data=st.data())
def test_a_single_damage_does_not_pass(written: Written, data: st.DataObject) -> None:
    lines = written.content.split(b"\n")[:-1]
    row = data.draw(st.integers(1, len(lines) - 1))
    other = data.draw(st.integers(1, len(lines) - 1).filter(lambda number: number != row))
    at = data.draw(st.integers(0, len(lines[row].decode())))
    text = lines[row].decode()
    kind = data.draw(st.sampled_from(["swap", "drop", "repeat", "letter", "cut", "mark", "end", "blank", "field"]))
    if kind == "swap":
        lines[row], lines[other] = lines[other], lines[row]
    elif kind == "drop":
        del lines[row]
    elif kind == "repeat":
        lines.insert(other, lines[row])
    elif kind == "letter":
        lines[row] = (text[:at] + STRANGER + text[at:]).encode()
    elif kind == "mark":
        lines[0] = b"\xef\xbb\xbf" + lines[0]
    elif kind == "end":
        lines[row] += b"\r"
    elif kind == "blank":
        lines.insert(row, b"")
    elif kind == "field":
        lines[row] += written.contract.column_separator.encode()
    content = b"".join(line + b"\n" for line in lines)
    damaged = content[: data.draw(st.integers(0, len(content) - 1))] if kind == "cut" else content
    assert not written.check(damaged).is_sound
