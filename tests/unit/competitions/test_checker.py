"""The checker of CSVs: a sound file of every contract, and each way to damage one, told with its line and reason."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from productrec.competitions.checker import Report, check_csv
from productrec.competitions.contract import Contract, list_contracts, load_contract

PRODUCT = load_contract("imaterialist2019")
LANDMARK = load_contract("google_landmark2019")
PLAIN = load_contract("plain")
IDS = ["000123.jpg", "b.jpg", "100000.jpg", "é.jpg"]
LABELS = ["0", "1", "2", "12"]
SOUND = "id,predicted\n000123.jpg,0 1 2\nb.jpg,2 1 0\n100000.jpg,12 0 1\né.jpg,1 12 2\n"


def check(
    folder: Path,
    content: str | bytes,
    *,
    contract: Contract = PRODUCT,
    ids: Sequence[str] | None = IDS,
    labels: Sequence[str] | None = LABELS,
    in_order: bool = True,
) -> Report:
    path = folder / "made.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return check_csv(path, contract=contract, ids=ids, labels=labels, in_order=in_order)


def swap_rows(text: str) -> str:
    header, first, second, *rest = text.splitlines(keepends=True)
    return "".join([header, second, first, *rest])


def add_index(text: str) -> str:
    header, *rows = text.splitlines()
    return "".join(f"{line}\n" for line in [f",{header}", *(f"{n},{row}" for n, row in enumerate(rows))])


def swap_columns(text: str) -> str:
    return "".join(",".join(reversed(line.split(","))) + "\n" for line in text.splitlines())


DAMAGES: list[tuple[str, Callable[[str], str | bytes], list[str]]] = [
    ("a byte order mark", lambda text: "\ufeff" + text, ["bytes", "line 1: must not begin with a byte order mark"]),
    ("Windows line ends", lambda text: text.replace("\n", "\r\n"), ["bytes", r"line 1: must end with \n", "4 more"]),
    (
        "a Windows line end",
        lambda text: text.replace("0\n1", "0\r\n1"),
        [r"line 3: must end with \n; got \r\n here and"],
    ),
    ("Macintosh line ends", lambda text: text.replace("\n", "\r"), ["bytes", r"line 1: must hold no \r"]),
    ("UTF-16", lambda text: text.encode("utf-16"), ["bytes", "got UTF-16"]),
    ("UTF-16 without mark", lambda text: text.encode("utf-16-be"), ["bytes", "got UTF-16"]),
    ("Latin-1", lambda text: text.encode("latin-1"), ["bytes", "line 5: must be UTF-8; got byte 0xe9"]),
    ("NUL", lambda text: text.replace("2 1 0", "2 1 0\0"), ["bytes", "line 3: must hold no \\r and no NUL"]),
    ("no final line end", lambda text: text[:-1], ["bytes", "line 5: must end with \\n, as the last line"]),
    ("a truncated last line", lambda text: text[:-4], ["numbers of labels", "line 5: must hold 3 labels", "cut off?"]),
    ("cut off between rows", lambda text: text[: text.index("é")], ["missing ids", "é.jpg, row 4 (line 5)"]),
    ("empty", lambda text: "", ["bytes", "the file is empty"]),
    ("a header alone", lambda text: text.splitlines()[0] + "\n", ["rows", "must stand below the header"]),
    ("semicolons", lambda text: text.replace(",", ";"), ["header", "columns must stand between ','; got ';'"]),
    ("tabs", lambda text: text.replace(",", "\t"), ["header", "columns must stand between ','; got '\\t'"]),
    (
        "another header",
        lambda text: text.replace("predicted", "label"),
        ["header", "must be id,predicted; got id,label"],
    ),
    ("capitals in the header", lambda text: text.replace("id,p", "Id,P"), ["header", "got Id,Predicted"]),
    ("no header", lambda text: text.split("\n", 1)[1], ["header", "line 1: must be", "there is none"]),
    ("columns the other way round", swap_columns, ["header", "the columns stand in the wrong order"]),
    ("an index of pandas", add_index, ["header", "the first column is an index, as pandas writes it"]),
    (
        "an extra column",
        lambda text: "".join(f"{line},x\n" for line in text.splitlines()),
        ["header", "got id,predicted,x: it has columns too many"],
    ),
    ("columns by other names", lambda text: text.replace("id,predicted", "x,y,z"), ["rows", "were not looked at"]),
    ("a field too many", lambda text: text.replace("2 1 0", "2,1,0"), ["rows", "line 3: must have 2 fields; got 4"]),
    ("a field too few", lambda text: text.replace(",2 1 0", ""), ["rows", "line 3: must have 2 fields; got 1"]),
    (
        "two rows swapped",
        swap_rows,
        ["ids in another order", "line 2: must be 000123.jpg; got b.jpg", "line 3: must be b"],
    ),
    ("a row repeated", lambda text: text + "b.jpg,0 1 2\n", ["repeated ids", "line 6: b.jpg stands in line 3"]),
    ("a row missing", lambda text: text.replace("b.jpg,2 1 0\n", ""), ["missing ids", "b.jpg, row 2 (line 3)"]),
    ("a row too many", lambda text: text + "x.jpg,0 1 2\n", ["extra ids", "line 6: x.jpg is none of the test images"]),
    ("no id", lambda text: text.replace("b.jpg", ""), ["empty ids", "line 3: must hold an id"]),
    (
        "ids without .jpg",
        lambda text: text.replace(".jpg", ""),
        ["ids written otherwise", "line 2: must be '000123.jpg'; got '000123', which has another ending, or none"],
    ),
    (
        "leading zeros lost",
        lambda text: text.replace("000123", "123"),
        ["ids written otherwise", "line 2: must be '000123.jpg'; got '123.jpg', which was turned into a number"],
    ),
    (
        "an id as 1e5",
        lambda text: text.replace("100000.jpg", "1e+05"),
        ["ids written otherwise", "line 4: must be '100000.jpg'; got '1e+05', which was turned into a number"],
    ),
    (
        "an id with a space",
        lambda text: text.replace("b.jpg", "b.jpg "),
        ["ids written otherwise", "has spaces around"],
    ),
    ("an id with its folder", lambda text: text.replace("b.jpg", "test/b.jpg"), ["has a folder before it"]),
    ("an id in capitals", lambda text: text.replace("b.jpg", "B.JPG"), ["'B.JPG', which has other capital letters"]),
    ("a label too few", lambda text: text.replace("2 1 0", "2 1"), ["numbers of labels", "line 3: must hold 3 labels"]),
    ("a label too many", lambda text: text.replace("2 1 0", "2 1 0 12"), ["numbers of labels", "line 3", "b.jpg"]),
    ("labels between pipes", lambda text: text.replace("2 1 0", "2|1|0"), ["with ' ' between; got '2|1|0'"]),
    (
        "a label twice",
        lambda text: text.replace("2 1 0", "2 1 1"),
        ["repeated labels", "line 3: must hold labels that differ"],
    ),
    (
        "an unknown class",
        lambda text: text.replace("2 1 0", "2 1 99"),
        ["unknown labels", "line 3", "got '99' (b.jpg)"],
    ),
    ("no label", lambda text: text.replace("2 1 0", ""), ["empty labels", "line 3: must hold a label; got none"]),
    ("NaN", lambda text: text.replace("2 1 0", "nan"), ["empty labels", "line 3: must hold a label; got nan"]),
    ("NaN among labels", lambda text: text.replace("2 1 0", "2 nan 0"), ["empty labels", "line 3", "got nan"]),
    (
        "two spaces",
        lambda text: text.replace("2 1 0", "2  1 0"),
        ["empty labels", "line 3", "an empty label between two"],
    ),
    (
        "floats",
        lambda text: text.replace("12 0 1", "12.0 0 1"),
        ["labels with decimals", "line 4: must hold 12; got 12.0"],
    ),
    ("a trailing space", lambda text: text.replace("2 1 0", "2 1 0 "), ["spaces", "line 3", "got '2 1 0 '"]),
    ("a list", lambda text: text.replace("2 1 0", "[2 1 0]"), ["brackets", "line 3", "got '[2 1 0]'"]),
    ("a blank line", lambda text: text.replace("b.jpg", "\nb.jpg"), ["blank lines", "line 3: holds nothing"]),
    ("a blank last line", lambda text: text + "\n", ["blank lines", "line 6: holds nothing"]),
    ("quotes", lambda text: text.replace("2 1 0", '"2 1 0"'), ["quotes", "line 3: stand where nothing needs them"]),
    ("an open quote", lambda text: text.replace("2 1 0", '"2 1 0'), ["quotes", "line 3: do not close"]),
    ("a line of a MiB", lambda text: text + "x" * (1 << 20), ["bytes", "line 6: is longer than 1,048,576 bytes"]),
]


@pytest.mark.parametrize(("damage", "told"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_a_damaged_file_is_told_with_line_and_reason(
    tmp_path: Path, damage: Callable[[str], str | bytes], told: list[str]
) -> None:
    assert check(tmp_path, SOUND).is_sound
    report = check(tmp_path, damage(SOUND))
    faults = "\n".join(report.list_faults())
    assert not report.is_sound
    for words in told:
        assert words in faults
    assert "\n" not in report.summarise()


# What a damage says of a row is all that is said of it: nothing follows from it elsewhere.
@pytest.mark.parametrize(
    ("damage", "counts"),
    [
        (lambda text: "\ufeff" + text.replace("\n", "\r\n").replace(",", ";"), {"bytes": 2, "header": 1}),
        (lambda text: text.replace(".jpg", ""), {"ids written otherwise": 4}),
        (swap_columns, {"header": 1}),
        (add_index, {"header": 1}),
        (swap_rows, {"ids in another order": 2}),
        (lambda text: text.split("\n", 1)[1], {"header": 1}),
        (lambda text: text.replace("b.jpg,2 1 0\n", ""), {"missing ids": 1}),
        (lambda text: text.replace("2 1 0", "2,1,0"), {"rows": 1}),
        (lambda text: text.replace("b.jpg", "000123.jpg"), {"repeated ids": 1, "missing ids": 1}),
    ],
)
def test_one_damage_is_told_once(tmp_path: Path, damage: Callable[[str], str], counts: dict[str, int]) -> None:
    assert check(tmp_path, damage(SOUND)).counts == counts


def test_the_first_few_of_each_kind_are_shown_with_their_number(tmp_path: Path) -> None:
    ids = [f"{n}.jpg" for n in range(20)]
    text = "id,predicted\n" + "".join(f"{name},{'0 1' if n < 7 else '0 1 9'}\n" for n, name in enumerate(ids))
    report = check(tmp_path, text, ids=ids)
    assert report.rows == 20 and report.counts == {"numbers of labels": 7, "unknown labels": 13}
    lines = report.list_faults()
    assert lines[0] == "numbers of labels (7)" and lines[1].startswith("  line 2: ") and lines[6] == "  and 2 more"
    assert lines[7] == "unknown labels (13)" and lines[-1] == "  and 8 more"


def test_what_a_file_holds_cannot_steer_a_terminal(tmp_path: Path) -> None:
    for text in (SOUND.replace("b.jpg", "\x1b[2Jb"), SOUND.replace("id,", "\x1b[2J,"), SOUND.replace("2 1", "2\x1b 1")):
        report = check(tmp_path, text)
        assert "\\x1b" in report.summarise() and report.summarise().isprintable()
    longest = check(tmp_path, SOUND.replace("b.jpg", "b" * 200_000).replace("id,", '"' + "i" * 200_000 + '",'))
    assert len(longest.summarise()) < 3000


@pytest.mark.parametrize("content", [None, "folder"])
def test_what_is_no_file_is_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "made.csv"
    if content is not None:
        path.mkdir()
    report = check_csv(path, contract=PRODUCT, ids=None, labels=None)
    assert report.counts == {"bytes": 1} and "cannot be read" in report.summarise()


@pytest.mark.parametrize("name", list_contracts())
def test_a_sound_file_of_every_contract_passes(tmp_path: Path, name: str) -> None:
    contract = load_contract(name)
    labels = [str(n) for n in range(contract.labels_per_image)]
    cell = contract.label_separator.join([*labels, *(["0.25"] if contract.confidence else [])])
    header = contract.column_separator.join([contract.id_column, contract.prediction_column])
    cells = {image_id: image_id if contract.answers == "matches" else cell for image_id in IDS}
    text = f"{header}\n" + "".join(f"{image_id}{contract.column_separator}{cells[image_id]}\n" for image_id in IDS)
    for known in (labels, None):
        for ids in (IDS, None):
            report = check(tmp_path, text, contract=contract, ids=ids, labels=known)
            assert report.is_sound, report.list_faults()


def test_quotes_that_a_label_needs_are_right_and_names_may_hold_what_they_like(tmp_path: Path) -> None:
    text = 'id,label\na,"tea, green"\nb,nan\nc,12.0\nd,[x]\n"e ""1""", red tea\n'
    ids, labels = ["a", "b", "c", "d", 'e "1"'], ["tea, green", "nan", "12.0", "12", "[x]", " red tea"]
    assert check(tmp_path, text, contract=PLAIN, ids=ids, labels=labels).is_sound
    report = check(tmp_path, text, contract=PLAIN, ids=ids, labels=None)
    assert report.counts == {"empty labels": 1, "labels with decimals": 1, "spaces": 1}


def test_a_short_row_of_swapped_columns_is_told(tmp_path: Path) -> None:
    report = check(tmp_path, swap_columns(SOUND).replace("2 1 0,b.jpg", "2 1 0"))
    assert report.counts == {"header": 1, "rows": 1, "missing ids": 1}


def test_an_id_that_could_be_two_is_taken_for_neither(tmp_path: Path) -> None:
    text = "id,label\na.jpg,tea\na.png,tea\n"
    assert check(tmp_path, text, contract=PLAIN, ids=["a.jpg", "a.png"], labels=["tea"]).is_sound
    report = check(tmp_path, text.replace("a.png", "a"), contract=PLAIN, ids=["a.jpg", "a.png"], labels=["tea"])
    assert report.counts == {"extra ids": 1, "missing ids": 1}


def test_labels_of_a_row_are_told_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    pipes = PLAIN.model_copy(update={"labels_per_image": 2, "label_separator": "|"})
    report = check(tmp_path, "id,label\na,tea| jam\n", contract=pipes, ids=["a"], labels=None)
    assert report.counts == {"spaces": 1}
    report = check(tmp_path, "id,label\na,nan\n", contract=pipes, ids=["a"], labels=["nan", "tea"])
    assert report.counts == {"numbers of labels": 1}


def test_without_an_order_ids_may_come_in_any(tmp_path: Path) -> None:
    assert check(tmp_path, swap_rows(SOUND), in_order=False).is_sound
    assert check(tmp_path, SOUND.replace("b.jpg", "x.jpg"), in_order=False).counts == {"extra ids": 1, "missing ids": 1}


def test_without_ids_they_must_still_differ_and_hold_no_spaces_around(tmp_path: Path) -> None:
    report = check(tmp_path, SOUND.replace("100000.jpg", "b.jpg").replace("é.jpg", " é.jpg"), ids=None)
    assert report.counts == {"repeated ids": 1, "ids written otherwise": 1}


def test_the_number_of_classes_tells_the_labels_where_no_table_does(tmp_path: Path) -> None:
    assert check(tmp_path, SOUND.replace("12 2", "2018 2"), labels=None).is_sound
    for wrong in ("2019", "-1", "007", "tea"):
        report = check(tmp_path, SOUND.replace("12 2", f"{wrong} 2"), labels=None)
        assert report.counts == {"unknown labels": 1}, wrong


def test_the_unknown_label_is_known_where_the_contract_has_one(tmp_path: Path) -> None:
    text = "id,label\na,new product\n"
    assert check(tmp_path, text, contract=PLAIN, ids=["a"], labels=["tea"]).counts == {"unknown labels": 1}
    contract = PLAIN.model_copy(update={"unknown_label": "new product"})
    assert check(tmp_path, text, contract=contract, ids=["a"], labels=["tea"]).is_sound


@pytest.mark.parametrize("labels", [["8815", "7"], None])
@pytest.mark.parametrize("cell", ["8815 0.03", "8815 0", "8815 1.0", "8815 0.00000001", ""])
def test_a_label_and_its_confidence_are_right(tmp_path: Path, cell: str, labels: list[str] | None) -> None:
    assert check(tmp_path, f"id,landmarks\na,{cell}\n", contract=LANDMARK, ids=["a"], labels=labels).is_sound


@pytest.mark.parametrize("labels", [["8815", "7"], None])
@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("8815", "confidences"),
        ("8815 ", "confidences"),
        (" 0.5", "confidences"),
        ("8815 1e-05", "confidences"),
        ("8815 1.2", "confidences"),
        ("8815 -0.5", "confidences"),
        ("8815 nan", "confidences"),
        ("8815 .5", "confidences"),
        ("8815,0.5", "rows"),
        ("8815 0.5 7 0.2", "numbers of labels"),
        ("8815.0 0.5", "labels with decimals"),
        (" ", "empty labels"),
    ],
)
def test_what_is_no_label_with_confidence_is_told(
    tmp_path: Path, cell: str, kind: str, labels: list[str] | None
) -> None:
    report = check(tmp_path, f"id,landmarks\na,{cell}\n", contract=LANDMARK, ids=["a"], labels=labels)
    assert kind in report.counts
