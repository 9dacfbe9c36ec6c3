"""Findings: what a person may write into them, what is refused, and what becomes of the table."""

from pathlib import Path

import pandas as pd
import pytest

from productrec.data.curation.findings import (
    apply_findings,
    build_findings,
    describe_applied,
    read_findings,
    write_findings,
)
from productrec.data.table import IMAGE_COLUMNS, build_frame
from productrec.errors import DataError


def build_images() -> pd.DataFrame:
    return build_frame(
        IMAGE_COLUMNS,
        {
            "image_id": ["a", "000123", "NA", "t", "gone"],
            "split": ["train", "train", "train", "test", "train"],
            "label": [1, 1, 2, None, 2],
            "status": ["ok", "ok", "ok", "ok", "missing"],
        },
    )


def write(folder: Path, *lines: str, header: str = "image_id,action,new_label,weight") -> Path:
    path = folder / "findings.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_each_action_does_what_it_says_and_an_empty_one_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "a,relabel,2,0.1", "000123,weight,7,0.25", "NA,Drop ,,", "t,,2,", "gone,drop,,", ",,,")
    findings = read_findings(path)
    changed = apply_findings(build_images(), findings, [1, 2])
    assert changed["label"].tolist()[:3] == [2, 1, 2]
    assert changed["weight"].tolist()[1] == 0.25
    assert changed["weight"].isna().tolist() == [True, False, True, True, True]
    assert changed["status"].tolist() == ["ok", "ok", "dropped", "ok", "missing"]
    assert "audit" in changed["reason"].iloc[2]
    assert len(changed) == 5
    assert describe_applied(findings) == "findings applied: 2 dropped, 1 relabelled, 1 weighed"


def test_what_an_audit_writes_changes_nothing_until_it_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "findings.csv"
    rows = [{"image_id": "a", "kind": "wrong_label", "label": 1, "new_label": 2, "weight": 0.3}]
    build_findings(rows).to_csv(path, index=False)
    images = build_images()
    assert apply_findings(images, read_findings(path), [1, 2]).equals(images)
    path.write_text(path.read_text().replace("wrong_label,,", "wrong_label,relabel,"))
    assert apply_findings(images, read_findings(path), [1, 2])["label"].iloc[0] == 2


def test_saying_the_same_twice_is_no_contradiction(tmp_path: Path) -> None:
    findings = read_findings(write(tmp_path, "a,drop,1,0.5", "a,drop,2,0.7", "000123,weight,,0.5", "000123,relabel,2,"))
    changed = apply_findings(build_images(), findings, [1, 2])
    assert changed["status"].iloc[0] == "dropped"
    assert (changed["label"].iloc[1], changed["weight"].iloc[1]) == (2, 0.5)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,remove,,"], "action must be drop, relabel, weight, merge or empty; 1 .line 2."),
        ([",drop,,"], "needs an image_id"),
        (["a,drop,,", "a,relabel,2,"], "told two things"),
        (["a,relabel,1,", "a,relabel,2,"], "told two things.*line 2, line 3"),
        (["a,relabel,,"], "relabel needs a class id"),
        (["a,relabel,two,"], "relabel needs a class id"),
        (["a,weight,,"], "from 0 to 1"),
        (["a,weight,,1.5"], "from 0 to 1"),
        (["a,weight,,nan"], "from 0 to 1"),
    ],
)
def test_what_cannot_be_done_is_told_by_its_line(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_findings(write(tmp_path, *lines))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nobody,drop,,", "nobody.* are not"),
        ("a,relabel,9,", "among the classes"),
        ("t,relabel,1,", "test images without a label have none to change; got 1 .t."),
    ],
)
def test_findings_of_another_source_are_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        apply_findings(build_images(), read_findings(write(tmp_path, line)), [1, 2])


def test_ids_that_look_like_formulas_are_written_safe_and_read_to_the_letter(tmp_path: Path) -> None:
    ids = ["=1+1", "-1.jpg", "@x", "+x", "'=x", "'x", "007"]
    path = tmp_path / "findings.csv"
    rows = [{"image_id": name, "kind": "wrong_label", "label_name": "=SUM(A1)", "action": "drop"} for name in ids]
    write_findings(path, build_findings(rows))
    cells = [cell for line in path.read_text().splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert read_findings(path)["image_id"].tolist() == ids


def test_a_label_of_a_test_image_may_be_changed(tmp_path: Path) -> None:
    images = build_images()
    images.loc[3, "label"] = 1
    assert apply_findings(images, read_findings(write(tmp_path, "t,relabel,2,")), [1, 2])["label"].iloc[3] == 2


def test_a_file_that_is_no_findings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns image_id, action; action is missing"):
        read_findings(write(tmp_path, "a", header="image_id"))
    with pytest.raises(DataError, match="cannot be read"):
        read_findings(tmp_path / "absent.csv")


def test_two_classes_become_one_and_an_image_may_still_be_told_otherwise(tmp_path: Path) -> None:
    header = "image_id,action,label,new_label,weight"
    findings = read_findings(write(tmp_path, ",merge,1,2,", "a,relabel,1,3,", header=header))
    changed = apply_findings(build_images(), findings, [1, 2, 3])
    assert changed["label"].fillna(-1).tolist() == [3, 2, 2, -1, 2]
    assert describe_applied(findings).endswith("1 relabelled, 0 weighed, 1 classes merged into others")
    with pytest.raises(DataError, match="must be among the classes"):
        apply_findings(build_images(), findings, [2, 3])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,merge,1,2,"], "of a row without an image_id"),
        ([",merge,1,,"], "ids of two classes"),
        ([",merge,1,1,"], "ids of two classes"),
        ([",merge,1,2,", ",merge,1,3,"], "merged once"),
        ([",merge,1,2,", ",merge,2,3,"], "not merged itself"),
    ],
)
def test_a_merge_that_says_nothing_clear_is_told_by_its_line(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_findings(write(tmp_path, *lines, header="image_id,action,label,new_label,weight"))
