"""`productrec submit --check`: a CSV, also one made elsewhere, against contract, sample submission and classes."""

import shutil
from pathlib import Path

import pytest

from tests.integration.test_bad_input import check_line
from tests.integration.test_sources import write


@pytest.fixture
def submitted(finished, productrec):
    """A copy of `finished` with ``submissions/tiny.csv``, which was written by its run."""
    done = productrec("submit", "runs/tiny")
    assert done.code == 0, done.err
    return finished


def save_like_a_spreadsheet(path: Path) -> None:
    text = path.read_text().replace(",", ";").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())


def test_what_submit_writes_is_sound_however_its_classes_and_ids_are_named(submitted, productrec):
    rows = len(Path("submissions/tiny.csv").read_text().splitlines()) - 1
    for source in ("tiny.yaml", "runs/tiny", "runs/tiny/predictions/plain/test", "data/tiny"):
        more = ("--competition", "imaterialist2019") if source == "data/tiny" else ()
        if source == "tiny.yaml":
            shutil.copy("runs/tiny/recipe.yaml", source)
        done = productrec("submit", source, "--check", "submissions/tiny.csv", *more)
        assert done.code == 0, done.out + done.err
        (line,) = done.out.splitlines()
        assert line.startswith("submissions/tiny.csv: sound for iMaterialist") and f"{rows} rows" in line
        assert "order compared with" in line and "labels with the 6 classes of data/tiny" in line
        assert not done.err


def test_what_is_not_checked_is_said(submitted, productrec):
    alone = productrec("submit", "--check", "submissions/tiny.csv", "--competition", "imaterialist2019")
    assert alone.code == 0 and len(alone.out.splitlines()) == 1
    assert "NOT CHECKED whether its ids are the test images" in alone.out and "with the numbers 0 to 2018" in alone.out
    without = productrec("submit", "runs/tiny", "--check", "submissions/tiny.csv", "--sample", "none")
    assert without.code == 0 and "test images of data/tiny, their order with nothing" in without.out
    write(submitted, "plain.csv", "id,label", "a,no class")
    plain = productrec("submit", "--check", "plain.csv", "--competition", "plain")
    assert plain.code == 0 and "NOT CHECKED whether its labels are classes: name a recipe" in plain.out


def test_a_file_that_a_spreadsheet_has_saved_is_not_sound(submitted, productrec):
    made = Path("submissions/tiny.csv")
    before = sorted(path.name for path in submitted.rglob("*"))
    save_like_a_spreadsheet(made)
    done = productrec("submit", "runs/tiny", "--check", made)
    assert done.code == 1
    first, *faults = done.out.splitlines()
    assert first.startswith(f"{made}: NOT sound for iMaterialist")
    assert faults[0] == "bytes (2)" and "byte order mark" in faults[1] and r"got \r\n here and in" in faults[2]
    assert faults[3] == "header (1)" and "columns must stand between ','; got ';'" in faults[4]
    assert len(faults) == 5
    assert sorted(path.name for path in submitted.rglob("*")) == before  # a check writes nothing


def test_faults_of_rows_are_told_with_their_lines(submitted, productrec):
    made = Path("submissions/tiny.csv")
    header, first, second, third, *rest = made.read_text().splitlines()
    third = third.rsplit(" ", 1)[0] + " 77"
    made.write_text("\n".join([header, second, first, third, *rest[:-1]]) + "\n")
    done = productrec("submit", "runs/tiny", "--check", made)
    assert done.code == 1
    assert f"line 2: must be {first.split(',')[0]}; got {second.split(',')[0]}" in done.out
    assert "unknown labels (1)" in done.out and "line 4: must hold labels of classes; got '77'" in done.out
    assert "missing ids (1)" in done.out and rest[-1].split(",")[0] in done.out


def test_the_plain_contract_takes_its_form_from_the_sample(place, shop, productrec):
    ids = [f"{name}/{n}.jpg" for name in ("tea", "cola", "jam") for n in "312"]
    write(shop, "sample_submission.csv", "image;product_id", *(f"{name};cola|jam" for name in ids))
    assert productrec("ingest", "shop").code == 0
    write(place, "made.csv", "image;product_id", *(f"{name};tea|cola" for name in ids))
    plain = ("--competition", "plain")
    assert productrec("submit", "data/shop", "--check", "made.csv", *plain).code == 0
    assert productrec("submit", "--check", "made.csv", *plain, "--sample", "shop/sample_submission.csv").code == 0
    write(place, "made.csv", "image;product_id", *(f"{name};tea|milk" for name in ids))
    done = productrec("submit", "data/shop", "--check", "made.csv", *plain)
    assert done.code == 1 and "unknown labels (9)" in done.out and "and 4 more" in done.out
    assert productrec("submit", "--check", "made.csv", *plain, "--sample", "shop/sample_submission.csv").code == 0


def test_a_contract_with_confidences_is_written_and_checked(finished, productrec):
    written = productrec(
        "submit", "runs/tiny", "--competition", "google_landmark2019", "--sample", "none", "--out", "mine.csv"
    )
    assert written.code == 0, written.err
    lines = Path("mine.csv").read_text().splitlines()
    assert lines[0] == "id,landmarks" and all(0 < float(line.split(" ")[1]) <= 1 for line in lines[1:])
    arguments = (
        "submit",
        "runs/tiny",
        "--check",
        "mine.csv",
        "--competition",
        "google_landmark2019",
        "--sample",
        "none",
    )
    assert productrec(*arguments).code == 0
    Path("mine.csv").write_text("\n".join([*lines[:-1], lines[-1].split(" ")[0]]) + "\n")
    done = productrec(*arguments)
    assert done.code == 1 and "confidences (1)" in done.out


def test_what_cannot_be_checked_against_is_refused(submitted, productrec):
    made = "submissions/tiny.csv"
    check_line(productrec("submit", "--check", made), 2, "the contract to check it against must be named")
    check_line(productrec("submit", "data", "--check", made, "--competition", "plain"), 4, "must be a recipe, a run or")
    check_line(
        productrec("submit", "--check", made, "--competition", "plain", "--sample", "no.csv"),
        5,
        "no.csv",
        "cannot be read",
    )
    shutil.rmtree("data/tiny")
    check_line(productrec("submit", "runs/tiny", "--check", made), 4, "data/tiny", "there is none")
    assert productrec("submit", "--check", made, "--competition", "plain", "--out", "x.csv").code == 2
    assert productrec("submit").code == 2


@pytest.mark.parametrize("content", [None, "", "folder"])
def test_no_file_an_empty_one_and_a_folder_are_faults(place, productrec, content):
    made = place / "made.csv"
    if content == "folder":
        made.mkdir()
    elif content is not None:
        made.write_text(content)
    done = productrec("submit", "--check", made, "--competition", "plain")
    assert done.code == 1 and "bytes (1)" in done.out and not done.err


def test_matches_are_checked_and_a_research_protocol_has_no_csv(submitted, productrec):
    write(submitted, "matches.csv", "posting_id,matches", "a,a b", "b,b c")
    sound = productrec("submit", "--check", "matches.csv", "--competition", "shopee2021")
    assert sound.code == 0 and "NOT CHECKED whether lists hold ids of test images" in sound.out
    write(submitted, "sample.csv", "posting_id,matches", "a,a", "b,b")
    faulty = productrec("submit", "--check", "matches.csv", "--competition", "shopee2021", "--sample", "sample.csv")
    assert faulty.code == 1 and "line 3: must hold ids of test images; got 'c' (b)" in faulty.out
    refused = productrec("submit", "--check", "matches.csv", "--competition", "stanford_online_products")
    assert refused.code == 2 and "takes no CSV; its figures are those of `productrec evaluate`" in refused.err
