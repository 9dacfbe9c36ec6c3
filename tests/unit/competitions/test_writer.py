import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from productrec.competitions import writer
from productrec.competitions.contract import Contract, load_contract
from productrec.competitions.writer import (
    Submission,
    choose_top_labels,
    load_sample_ids,
    write_submission,
)
from productrec.errors import StorageError, SubmissionError

REPOSITORY = Path(__file__).parents[3]
REAL_SAMPLE = REPOSITORY.parent / "shared/data/grocery/sample_submission.csv"
PRODUCT = load_contract("imaterialist2019")
PLAIN = load_contract("plain")
AWKWARD = ["000123", "NA", "1e5", "a,b.jpg", 'say "hi".jpg', " spaced ", "007.jpg", "ünï.jpg", "true", "#1"]


def draw_probabilities(rows: int, classes: int, seed: int = 0) -> npt.NDArray[np.float16]:
    logits = np.random.default_rng(seed).standard_normal((rows, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.asarray(probabilities, dtype=np.float16)


def write(out: Path, ids: list[str], contract: Contract = PRODUCT, classes: int = 5, **changes: Any) -> Submission:
    arguments: dict[str, Any] = {
        "probabilities": draw_probabilities(len(ids), classes),
        "class_labels": [str(position) for position in range(classes)],
        "sample": None,
        **changes,
    }
    return write_submission(out, contract=contract, ids=ids, **arguments)


def write_sample(folder: Path, text: str) -> Path:
    path = folder / "sample_submission.csv"
    path.write_bytes(text.encode())
    return path


def choose_by_sorting(probabilities: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = np.argsort(-probabilities.astype(np.float64), axis=1, kind="stable")
    return order[:, :count]


@given(data=st.data(), dtype=st.sampled_from([np.float16, np.float32, np.float64, ">f2", ">f4"]))
def test_top_labels_equal_a_stable_sort(data: st.DataObject, dtype: npt.DTypeLike) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    few = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, 6e-8])  # ties, signed zeros and a subnormal
    wide = st.floats(width=16, allow_nan=False, allow_infinity=False)
    probabilities = data.draw(hnp.arrays(dtype, shape, elements=data.draw(st.sampled_from([few, wide]))))
    count = data.draw(st.integers(1, shape[1]))
    block_rows = data.draw(st.integers(1, 10))
    before = probabilities.copy()
    chosen = choose_top_labels(probabilities, count, block_rows=block_rows)
    np.testing.assert_array_equal(chosen, choose_by_sorting(probabilities, count))
    np.testing.assert_array_equal(probabilities, before)
    assert chosen.dtype == np.int64


def test_top_labels_of_a_memory_map_that_spans_blocks(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", draw_probabilities(1200, 40))
    probabilities = np.load(tmp_path / "p.npy", mmap_mode="r")
    np.testing.assert_array_equal(choose_top_labels(probabilities, 3), choose_by_sorting(probabilities, 3))


def test_top_labels_of_no_rows() -> None:
    assert choose_top_labels(np.empty((0, 4), np.float16), 3).shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_count_and_first_rows(dtype: type[np.floating], value: float) -> None:
    probabilities = draw_probabilities(20, 4).astype(dtype)
    probabilities[3:17:2, 1] = value
    with pytest.raises(
        SubmissionError, match=r"must be finite; got NaN or infinity in rows 7 \(3, 5, 7, 9, 11, \.\.\.\)"
    ):
        choose_top_labels(probabilities, 3, block_rows=4)


@pytest.mark.parametrize(
    ("probabilities", "count", "message"),
    [
        (np.zeros((2, 2), np.float16), 3, "between 1 and the number of classes; got 3 and 2"),
        (np.zeros((2, 2), np.float16), 0, "got 0 and 2"),
        (np.zeros(2, np.float16), 1, r"got float16 of shape \(2,\)"),
        (np.zeros((2, 2), np.int64), 1, "got int64"),
    ],
)
def test_shapes_and_counts_that_do_not_fit_are_refused(probabilities: Any, count: int, message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        choose_top_labels(probabilities, count)


def test_the_file_is_exactly_what_the_contract_says(tmp_path: Path) -> None:
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]], np.float16)
    done = write(
        tmp_path / "new/out.csv",
        ["b.jpg", "a.jpg"],
        probabilities=probabilities,
        class_labels=["7", "007", "300", "4"],
    )
    content = (tmp_path / "new/out.csv").read_bytes()
    assert content == b"id,predicted\nb.jpg,4 300 007\na.jpg,7 007 300\n"
    assert done == Submission(tmp_path / "new/out.csv", 2, hashlib.sha256(content).hexdigest())
    assert os.listdir(tmp_path / "new") == ["out.csv"]


def test_one_label_may_hold_spaces_and_commas(tmp_path: Path) -> None:
    probabilities = np.array([[0.1, 0.9], [0.9, 0.1]], np.float32)
    write(tmp_path / "out.csv", ["1", "2"], PLAIN, probabilities=probabilities, class_labels=["red tea", "tea, green"])
    assert (tmp_path / "out.csv").read_text() == 'id,label\n1,"tea, green"\n2,red tea\n'


def test_awkward_ids_stay_as_they_are_and_follow_the_sample(tmp_path: Path) -> None:
    quoted = ['"' + name.replace('"', '""') + '"' for name in reversed(AWKWARD)]
    sample = write_sample(tmp_path, "\ufeffid,predicted\r\n" + "".join(f"{name},0 1 2\r\n" for name in quoted) + "\r\n")
    write(tmp_path / "out.csv", AWKWARD, sample=sample)
    expected = choose_by_sorting(draw_probabilities(len(AWKWARD), 5), 3)
    labels = [" ".join(map(str, row)) for row in expected]
    written = ["#1", "true", "ünï.jpg", "007.jpg", " spaced ", '"say ""hi"".jpg"', '"a,b.jpg"', "1e5", "NA", "000123"]
    lines = [f"{name},{label}" for name, label in zip(written, reversed(labels), strict=True)]
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines() == ["id,predicted", *lines]
    assert load_sample_ids(tmp_path / "out.csv", PRODUCT) == AWKWARD[::-1]


@pytest.mark.skipif(not REAL_SAMPLE.exists(), reason="the grocery data set's sample submission is not on this machine")
def test_a_real_sample_submission_is_followed(tmp_path: Path) -> None:
    order = load_sample_ids(REAL_SAMPLE, PRODUCT)
    assert len(order) > 2000 and all(name.endswith(".jpg") for name in order)
    shuffled = [order[row] for row in np.random.default_rng(0).permutation(len(order))]
    probabilities = draw_probabilities(len(order), 81)
    labels = [str(position) for position in range(81)]
    done = write(tmp_path / "out.csv", shuffled, probabilities=probabilities, class_labels=labels, sample=REAL_SAMPLE)
    assert done.rows == len(order)
    assert load_sample_ids(done.path, PRODUCT) == order
    row = dict(line.split(",") for line in done.path.read_text().splitlines())
    expected = choose_by_sorting(probabilities, 3)
    assert all(row[name] == " ".join(map(str, expected[place])) for place, name in enumerate(shuffled))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("id,predicted\na,0\nb,0\nd,0\n", r"got missing 1 \(d\) and extra 1 \(c\)\."),
        ("id,predicted\na,0\nb,0\nc,0\nd,0\n", r"got missing 1 \(d\)\."),
        ("id,predicted\na,0\n", r"got extra 2 \(b, c\)\."),
        ("id,label\na,0\nb,0\nc,0\n", "header must be id,predicted; got id,label"),
        ("id,predicted,Usage\na,0,x\nb,0,x\nc,0,x\n", "header must be id,predicted; got id,predicted,Usage"),
        ("id,predicted\na,0\nb,0\nc,0\nb,0\n", r"ids must be unique; got repeated 1 \(b\)"),
        ("id,predicted\n", "got only a header"),
        ("", "got an empty file"),
        ("id,predicted\na,0\nb\nc,0\n", "line 3 must have 2 fields; got 1"),
        ('id,predicted\na,"0\n', "must be a CSV file in UTF-8"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_and_the_older_file_stays(
    tmp_path: Path, sample: str, message: str
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("older")
    path = write_sample(tmp_path, sample)
    with pytest.raises(SubmissionError, match=message):
        write(out, ["a", "b", "c"], sample=path)
    assert out.read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "sample_submission.csv"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_sample_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "sample.csv").write_bytes(content)
    with pytest.raises(SubmissionError, match="must be a CSV file in UTF-8"):
        write(tmp_path / "out.csv", ["a"], sample=tmp_path / "sample.csv")


def test_the_sample_is_never_written_over(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, "id,predicted\na,0 1 2\n")
    with pytest.raises(SubmissionError, match="must differ from the sample"):
        write(sample, ["a"], sample=sample)
    assert sample.read_text() == "id,predicted\na,0 1 2\n"


@pytest.mark.parametrize(
    ("ids", "changes", "message"),
    [
        (["a", "b", "a"], {}, r"image ids must be unique; got repeated 1 \(a\)"),
        (["a", ""], {}, r"image ids must be text of one line, not empty, without NUL; got 1 \(''\)"),
        (["a", "b\rc"], {}, "text of one line"),
        (["a", " \t"], {}, "not empty"),
        (["a", "b\0"], {}, "without NUL"),
        (["a", "b\udcff"], {}, "text of one line"),
        (["a", 7], {}, r"got 1 \(7\)"),
        (["a", "b"], {"class_labels": ["0", "1", "2", "3", "3"]}, r"class labels must be unique; got repeated 1 \(3\)"),
        (["a", "b"], {"class_labels": ["0", "1", "2", "3", "4 5"]}, "must not hold the separator ' '; got 1"),
        (["a", "b"], {"class_labels": ["0", "1", "2", "3"]}, r"one column a class \(2, 4\); got \(2, 5\)"),
        (["a", "b"], {"probabilities": draw_probabilities(3, 5)}, r"one row an id .*\(2, 5\); got \(3, 5\)"),
        (["a", "b"], {"probabilities": np.full((2, 5), np.nan)}, "must be finite"),
        (
            ["a"],
            {"probabilities": draw_probabilities(1, 2), "class_labels": ["0", "1"]},
            "labels_per_image must be between 1 and the number of classes; got 3 and 2",
        ),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    tmp_path: Path, ids: list[str], changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "out.csv").write_text("older")
    with pytest.raises(SubmissionError, match=message):
        write(tmp_path / "out.csv", ids, **changes)
    assert os.listdir(tmp_path) == ["out.csv"] and (tmp_path / "out.csv").read_text() == "older"


def test_a_file_that_fails_its_check_never_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "choose_top_labels", lambda *_: np.zeros((2, 3), np.int64))
    (tmp_path / "out.csv").write_text("older")
    with pytest.raises(
        SubmissionError, match=r"out.csv: must be .* accepts; got repeated labels: 2 \(line 2: .*'0 0 0'"
    ):
        write(tmp_path / "out.csv", ["a", "b"])
    assert os.listdir(tmp_path) == ["out.csv"] and (tmp_path / "out.csv").read_text() == "older"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "out.csv").write_text("older")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="out.csv"):
        write(tmp_path / "out.csv", ["a", "b"])
    assert os.listdir(tmp_path) == ["out.csv"] and (tmp_path / "out.csv").read_text() == "older"


@pytest.mark.parametrize("count", [1, 3])
def test_the_unknown_label_leads_the_rows_that_are_doubted(tmp_path: Path, count: int) -> None:
    contract = PLAIN.model_copy(update={"unknown_label": "new", "labels_per_image": count})
    values = np.array([[0.1, 0.5, 0.4], [0.6, 0.1, 0.3]])
    arguments: dict[str, Any] = {"contract": contract, "ids": ["a", "b"], "probabilities": values, "sample": None}
    made = write_submission(tmp_path / "made.csv", class_labels=["tea", "jam", "cola"], doubted=["a"], **arguments)
    rows = made.path.read_text().splitlines()[1:]
    assert rows[0].split(",")[1].split() == ["new", "jam", "cola"][:count]
    assert rows[1].split(",")[1].split() == ["tea", "new", "cola"][:count]
    plain = write_submission(tmp_path / "plain.csv", class_labels=["tea", "jam", "cola"], **arguments)
    assert "new" not in plain.path.read_text()
    own = write_submission(tmp_path / "own.csv", class_labels=["tea", "jam", "new"], doubted=["a"], **arguments)
    assert own.path.read_text().splitlines()[1].startswith("a,jam")  # a class of that name speaks for itself


LANDMARK = load_contract("google_landmark2019")


def read_confidences(path: Path) -> dict[str, str]:
    rows = (line.split(",") for line in path.read_text().splitlines()[1:])
    return {image_id: cell.split(" ")[1] for image_id, cell in rows}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_confidences_rank_the_images_as_the_probabilities_do(tmp_path: Path, dtype: type[np.floating]) -> None:
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.random(200), 1 - generator.random(100) * 1e-6, generator.random(100) * 1e-7])
    probabilities = np.stack([values, np.zeros(400)], axis=1).astype(dtype)
    ids = [f"i{row}" for row in range(400)]
    write(tmp_path / "out.csv", ids, LANDMARK, probabilities=probabilities, class_labels=["8815", "7"])
    written = read_confidences(tmp_path / "out.csv")
    assert not any("e" in text for text in written.values())
    read = np.array([float(written[name]) for name in ids])
    np.testing.assert_array_equal(read.astype(dtype), probabilities[:, 0])
    np.testing.assert_array_equal(np.argsort(read, kind="stable"), np.argsort(probabilities[:, 0], kind="stable"))


def test_the_confidence_is_that_of_the_label_also_where_the_sample_has_another_order(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, "id,landmarks\nb,7 0.1\na,\n")
    values = np.array([[0.25, 0.75], [1.0000001, 0]], np.float32)
    write(tmp_path / "out.csv", ["a", "b"], LANDMARK, probabilities=values, class_labels=["7", "8"], sample=sample)
    assert (tmp_path / "out.csv").read_text() == "id,landmarks\nb,7 1.0\na,8 0.75\n"


def test_no_image_is_called_unknown_where_a_confidence_says_how_sure_its_label_is(tmp_path: Path) -> None:
    contract = LANDMARK.model_copy(update={"unknown_label": "new"})
    values = np.array([[0.25, 0.75]])
    write(tmp_path / "out.csv", ["a"], contract, probabilities=values, class_labels=["7", "8"], doubted=["a"])
    assert (tmp_path / "out.csv").read_text() == "id,landmarks\na,8 0.75\n"


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([[-0.5, -0.75]], ["7", "8"], r"between 0 and 1 .* in rows 1 \(0\)"),
        ([[1.5, 0]], ["7", "8"], "between 0 and 1"),
        ([[0.5, 0.5]], ["7", "8 9"], "must not hold the separator ' '"),
    ],
)
def test_what_is_no_confidence_is_refused(
    tmp_path: Path, values: list[list[float]], labels: list[str], message: str
) -> None:
    with pytest.raises(SubmissionError, match=message):
        write(tmp_path / "out.csv", ["a"], LANDMARK, probabilities=np.array(values), class_labels=labels)
