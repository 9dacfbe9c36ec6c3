import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from productrec.competitions.ledger import (
    LedgerEntry,
    append_to_ledger,
    begin_upload,
    change_ledger,
    load_ledger,
    set_public_value,
)
from productrec.errors import ArtifactError, StorageError, SubmissionError

OLD = "written_at,file,sha256,competition,source,recipe_digest,validation_metric,validation_value,public_value,note"
HEADER = f"{OLD},weights,private_value,slug,uploaded_at,reference,status,message,error"


def build_entry(digit: str = "a", **changes: Any) -> LedgerEntry:
    values: dict[str, Any] = {
        "written_at": "2025-01-02T03:04:05+00:00",
        "file": "submissions/first.csv",
        "sha256": digit * 64,
        "competition": "imaterialist2019",
        "source": "runs/base/probabilities",
        "recipe_digest": "0" * 64,
        **changes,
    }
    return LedgerEntry(**values)


def test_a_ledger_is_begun_added_to_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "submissions/ledger.csv"
    assert load_ledger(path) == []
    entries = [
        build_entry(),
        build_entry("b", validation_metric="top_3_error", validation_value=0.1, note='comma, "quote", ünï'),
        build_entry("c", recipe_digest="000123", source="NA", public_value=1 / 3),
    ]
    for count, entry in enumerate(entries, start=1):
        append_to_ledger(path, entry)
        assert load_ledger(path) == entries[:count]
    lines = path.read_bytes().decode().split("\n")
    assert lines[0] == HEADER
    assert lines[1].startswith("2025-01-02T03:04:05+00:00,submissions/first.csv,aaa") and lines[1].endswith(
        "0,,,,,,,,,,,,"
    )
    assert [name for name in os.listdir(path.parent) if name != ".ledger.csv.lock"] == ["ledger.csv"]


def test_the_time_is_now_in_utc_unless_given() -> None:
    values = {"file": "a.csv", "sha256": "a" * 64, "competition": "plain", "source": "", "recipe_digest": ""}
    assert LedgerEntry(**values).written_at.endswith("+00:00")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["two\nlines", "two\rlines", "two\r\nlines"])
def test_a_line_break_in_a_text_becomes_a_space(tmp_path: Path, text: str) -> None:
    append_to_ledger(tmp_path / "ledger.csv", build_entry(note=text))
    assert load_ledger(tmp_path / "ledger.csv")[0].note == "two lines"


def test_a_path_that_is_not_utf8_does_not_cost_the_row(tmp_path: Path) -> None:
    append_to_ledger(tmp_path / "ledger.csv", build_entry(source="runs/\udcff"))
    assert load_ledger(tmp_path / "ledger.csv")[0].source == r"runs/\udcff"


def test_the_public_value_is_set_in_every_row_of_the_file_and_in_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    entries = [build_entry("a"), build_entry("b"), build_entry("a", note="sent again")]
    for entry in entries:
        append_to_ledger(path, entry)
    set_public_value(path, "a" * 64, 0.5)
    set_public_value(path, "a" * 64, 0.0896)
    assert load_ledger(path) == [
        replace(entries[0], public_value=0.0896),
        entries[1],
        replace(entries[2], public_value=0.0896),
    ]


def test_a_public_value_for_no_row_or_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    with pytest.raises(SubmissionError, match="sha256 must be that of a row"):
        set_public_value(path, "a" * 64, 0.5)
    assert not path.exists()
    append_to_ledger(path, build_entry())
    before = path.read_bytes()
    with pytest.raises(SubmissionError, match=r"got 'bb'.*submissions/first.csv aaaa"):
        set_public_value(path, "bb", 0.5)
    with pytest.raises(SubmissionError, match="public_value must be finite; got nan"):
        set_public_value(path, "a" * 64, float("nan"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"written_at": "yesterday"}, "written_at must be a UTC time"),
        ({"written_at": "2025-01-02T03:04:05"}, "written_at must be a UTC time"),
        ({"written_at": "2025-01-02T03:04:05+02:00"}, "written_at must be a UTC time"),
        ({"uploaded_at": "2025-01-02T03:04:05"}, "uploaded_at must be a UTC time"),
        ({"private_value": float("nan")}, "private_value must be finite; got nan"),
        ({"sha256": "A" * 64}, "sha256 must be 64 lower-case hex digits"),
        ({"sha256": ""}, "sha256 must be 64 lower-case hex digits"),
        ({"validation_value": float("inf")}, "validation_value must be finite; got inf"),
    ],
)
def test_an_entry_that_does_not_hold_what_it_must_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        build_entry(**changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda good: b"", "header must be written_at,.*; got nothing"),
        (lambda good: good.split(b"\n", 1)[1], "header must be"),
        (lambda good: good[:-5], "line 2 must have 18 fields; got"),
        (lambda good: good.replace(b"a" * 64, b"a" * 63), "line 2 must be a ledger entry; got .*sha256 must be"),
        (lambda good: good.replace(b"0.25", b"low"), "line 2 must be a ledger entry; got .*'low'"),
        (lambda good: good.replace(b"2025", b"last"), "line 2 must be a ledger entry; got .*written_at"),
        (lambda good: good.replace(b"first", b"\xff"), "must be a CSV file in UTF-8"),
        (lambda good: good.replace(b"submissions/", b'"submissions/'), "must be a CSV file in UTF-8"),
    ],
)
def test_a_damaged_ledger_is_refused_and_left_as_it_is(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "ledger.csv"
    append_to_ledger(path, build_entry(validation_value=0.25))
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=message) as raised:
        append_to_ledger(path, build_entry("b"))
    assert "\n" not in str(raised.value)
    with pytest.raises(ArtifactError, match=message):
        set_public_value(path, "a" * 64, 0.5)
    assert path.read_bytes() == damaged
    assert [name for name in os.listdir(tmp_path) if name != ".ledger.csv.lock"] == ["ledger.csv"]


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "ledger.csv"
    append_to_ledger(path, build_entry())
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="no space left"):
        append_to_ledger(path, build_entry("b"))
    assert path.read_bytes() == before
    assert [name for name in os.listdir(tmp_path) if name != ".ledger.csv.lock"] == ["ledger.csv"]


def test_a_ledger_from_before_uploads_is_read_on_and_keeps_all_that_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    row = f"2025-01-02T03:04:05+00:00,first.csv,{'a' * 64},plain,runs/base,{'0' * 64},top_3_error,0.25,0.5,by hand"
    path.write_text(f"{OLD}\n{row}\n")
    (old,) = load_ledger(path)
    assert (old.validation_value, old.public_value, old.note) == (0.25, 0.5, "by hand")
    assert (old.private_value, old.status, old.reference) == (None, "", "")
    append_to_ledger(path, build_entry("b"))
    lines = path.read_text().splitlines()
    assert lines[0] == HEADER and lines[1] == f"{row},,,,,,,," and len(lines) == 3
    assert load_ledger(path) == [old, build_entry("b")]


def test_an_upload_stands_in_the_files_row_and_another_one_in_a_row_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    written = build_entry(validation_metric="top_3_error", validation_value=0.25, note="mine", weights="a=0.5 b=0.5")
    told = {"slug": "race", "status": "uploading", "message": "hello"}
    append_to_ledger(path, written)
    begin_upload(path, build_entry(source="elsewhere", uploaded_at="2025-01-03T00:00:00+00:00", **told))
    first = replace(written, uploaded_at="2025-01-03T00:00:00+00:00", **told)
    assert load_ledger(path) == [first]
    sent = {"reference": "7", "status": "complete", "public_value": 0.5}
    change_ledger(path, lambda entry: replace(entry, **sent))
    begin_upload(path, build_entry(uploaded_at="2025-01-04T00:00:00+00:00", **told))
    again = replace(first, uploaded_at="2025-01-04T00:00:00+00:00")
    assert load_ledger(path) == [replace(first, **sent), again]
    begin_upload(path, build_entry("b", uploaded_at="2025-01-04T00:00:00+00:00", **told))
    assert [entry.sha256[0] for entry in load_ledger(path)] == ["a", "a", "b"]


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    append_to_ledger(path, build_entry())
    before = path.stat().st_mtime_ns
    assert change_ledger(path, lambda entry: entry) == [build_entry()]
    assert path.stat().st_mtime_ns == before
