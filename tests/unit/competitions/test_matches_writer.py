from pathlib import Path

import pytest
import yaml

from productrec.competitions.checker import check_csv
from productrec.competitions.contract import Contract, load_contract
from productrec.competitions.explain import explain_contract, format_contract
from productrec.competitions.matches_writer import write_matches
from productrec.competitions.sample import find_misfits, read_sample
from productrec.errors import SubmissionError

MATCHES = {"a": ["a", "c"], "b": ["b"], "c": ["c", "a"]}


@pytest.fixture
def contract() -> Contract:
    return load_contract("shopee2021")


def test_the_csv_is_as_the_competition_shows_it(tmp_path: Path, contract: Contract) -> None:
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("posting_id,matches\nc,c\na,a\nb,b\n")
    written = write_matches(tmp_path / "out.csv", contract=contract, matches=MATCHES, sample=sample)
    assert (tmp_path / "out.csv").read_text() == "posting_id,matches\nc,c a\na,a c\nb,b\n"
    assert written.rows == 3
    write_matches(tmp_path / "own.csv", contract=contract, matches=MATCHES, sample=None)
    assert (tmp_path / "own.csv").read_text().splitlines()[1:] == ["a,a c", "b,b", "c,c a"]


@pytest.mark.parametrize(
    ("rows", "kind", "told"),
    [
        ("a,a c\nb,b\n", "missing ids", "c"),
        ("a,a\nb,b\nc,c\nd,d\n", "extra ids", "line 5: "),
        ("a,a\nb,b\nc,c\nb,b\n", "repeated ids", "line 5: "),
        ("a,a\nb,b z\nc,c\n", "unknown ids", "line 3: must hold ids of test images; got 'z' (b)"),
        ("a,c\nb,b\nc,c\n", "own ids", "line 2: must hold the image's own id; got 'c' (a)"),
        ("a,\nb,b\nc,c\n", "empty lists", "line 2: "),
        ("a,a b c\nb,b\nc,c\n", "numbers of ids", "line 2: must hold at most 2 ids; got 3 (a)"),
        ("a,a a\nb,b\nc,c\n", "repeated ids in a list", "line 2: "),
        ("a,a \nb,b\nc,c\n", "spaces", "line 2: "),
        ("a\nb,b\nc,c\n", "rows", "line 2: must have 2 fields"),
        ("b,b\na,a\nc,c\n", "ids in another order", "line 2: "),
    ],
)
def test_what_a_server_would_refuse_is_told(
    tmp_path: Path, contract: Contract, rows: str, kind: str, told: str
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("posting_id,matches\n" + rows)
    strict = contract.model_copy(update={"most_matches": 2})
    report = check_csv(path, contract=strict, ids=["a", "b", "c"], labels=None)
    assert kind in report.counts, report.counts
    assert any(told in text for text in report.shown[kind]), report.shown


def test_sound_lists_pass_with_and_without_known_ids(tmp_path: Path, contract: Contract) -> None:
    path = tmp_path / "out.csv"
    path.write_text("posting_id,matches\na,a c\nb,b\nc,c a\n")
    assert check_csv(path, contract=contract, ids=["a", "b", "c"], labels=None).is_sound
    assert check_csv(path, contract=contract, ids=None, labels=None).is_sound


def test_nothing_takes_its_name_before_it_is_checked(tmp_path: Path, contract: Contract) -> None:
    out = tmp_path / "out.csv"
    out.write_text("earlier")
    with pytest.raises(SubmissionError, match="own id"):
        write_matches(out, contract=contract, matches={"a": ["b"], "b": ["b"]}, sample=None)
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("posting_id,matches\nx,x\n")
    with pytest.raises(
        SubmissionError, match=r"exactly those of sample_submission.csv; got missing 1 \(x\) and extra 3"
    ):
        write_matches(out, contract=contract, matches=MATCHES, sample=sample)
    with pytest.raises(SubmissionError, match="must differ from the sample"):
        write_matches(sample, contract=contract, matches=MATCHES, sample=sample)
    with pytest.raises(SubmissionError, match="without the separator ' '"):
        write_matches(out, contract=contract, matches={"a b": ["a b"]}, sample=None)
    assert out.read_text() == "earlier"


def test_a_sample_whose_rows_hold_differing_numbers_of_ids_fits(tmp_path: Path, contract: Contract) -> None:
    path = tmp_path / "sample_submission.csv"
    path.write_text("posting_id,matches\ntest_123,test_123\ntest_456,test_456 test_789\n")
    assert find_misfits(contract, read_sample(path), names=["1"], class_ids=["1"]) == []
    path.write_text("posting_id,match\ntest_123,test_123\n")
    assert (
        "the contract writes posting_id,matches" in find_misfits(contract, read_sample(path), names=[], class_ids=[])[0]
    )


def test_contracts_of_matches_and_of_retrieval_are_told_in_plain_words(tmp_path: Path, contract: Contract) -> None:
    told = "\n".join(explain_contract(contract))
    assert "ids of all test images of the same product, the image's own among them, at most 50, with a space" in told
    assert "Scored by F1" in told and "uploaded to shopee-product-matching" in told and "class's" not in told
    protocol = load_contract("stanford_online_products")
    told = "\n".join(explain_contract(protocol))
    assert "there is no CSV" in told and "Recall@1" in told and "two columns" not in told
    for one in (contract, protocol):
        path = tmp_path / f"{one.name}.yaml"
        path.write_text(format_contract(one))
        assert load_contract(str(path)) == one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "top_1_accuracy"}, "metric must be one of matches_f1 for matches; got top_1_accuracy"),
        ({"answers": "classes"}, "metric must be one of top_1_accuracy, .* for classes; got matches_f1"),
        ({"labels_per_image": 3}, "labels_per_image must be left out"),
        ({"most_matches": 0}, "most_matches must be at least 1"),
        ({"answers": "groups"}, "answers must be 'classes', 'matches' or 'retrieval'; got 'groups'"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(
    tmp_path: Path, contract: Contract, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(contract.model_dump(mode="json") | changes))
    with pytest.raises(SubmissionError, match=message):
        load_contract(str(path))


def test_a_contract_of_classes_still_needs_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: Mine\ntrainable_splits: [train]\nmetric: top_1_accuracy\nprediction_column: x\n"
    )
    with pytest.raises(SubmissionError, match="id_column must be given"):
        load_contract(str(path))
