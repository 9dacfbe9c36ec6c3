"""Samples: the form they show, the contract that follows, what will not fit; and contracts in words and as YAML."""

from pathlib import Path

import pytest

from productrec.competitions.contract import load_contract
from productrec.competitions.explain import explain_contract, format_contract
from productrec.competitions.sample import (
    LabelForm,
    Sample,
    adapt_contract,
    build_contract,
    find_label_form,
    find_misfits,
    find_sample,
    read_sample,
)
from productrec.errors import DataError, SubmissionError


def read(folder: Path, text: str, name: str = "sample_submission.csv") -> Sample:
    (folder / name).write_text(text)
    return read_sample(folder / name)


@pytest.mark.parametrize(
    ("predictions", "known", "form"),
    [
        (["0"], [], LabelForm(1, 1, " ")),
        ([""], [], LabelForm(1, 1, " ")),
        (["0 1 2", "0 1 2"], [], LabelForm(3, 3, " ")),
        (["a|b", "b|c"], [], LabelForm(2, 2, "|")),
        (["new_whale w_1 w_2 w_3 w_4"], ["w_1", "w_2"], LabelForm(5, 5, " ")),
        (["red tin", "jar"], ["red tin", "jar"], LabelForm(1, 1, " ")),  # a name may hold a space
        (["red tin,jar"], ["red tin", "jar"], LabelForm(2, 2, ",")),
        (["a b", "c"], [], LabelForm(1, 2, " ")),
        (["8815 0.03", "", "5328 .5"], [], LabelForm(1, 1, " ", confidence=True)),
        (["8815|1", "7|0.5"], [], LabelForm(1, 1, "|", confidence=True)),
        (["0 1", "1 0"], [], LabelForm(2, 2, " ")),  # two labels: whole numbers alone are no confidences
        (["8815 0.03", "7 2.5"], [], LabelForm(2, 2, " ")),
        (["cola 0.5", "cola 1.0"], ["cola 0.5", "cola 1.0"], LabelForm(1, 1, " ")),  # litres
    ],
)
def test_how_many_labels_a_row_holds(predictions: list[str], known: list[str], form: LabelForm) -> None:
    assert find_label_form(predictions, known) == form


def test_the_plain_contract_takes_the_form_of_the_sample(tmp_path: Path) -> None:
    plain = load_contract("plain")
    sample = read(tmp_path, "image;product_id\n9.jpg;100|101\n8.jpg;100|101\n")
    adapted = adapt_contract(plain, sample, names=["100", "101", "102"], ids=["100", "101", "102"])
    assert (adapted.id_column, adapted.prediction_column, adapted.column_separator) == ("image", "product_id", ";")
    assert (adapted.labels_per_image, adapted.label_separator, adapted.label_as) == (2, "|", "name")
    assert not find_misfits(
        adapted, sample, names=["100", "101"], class_ids=["100", "101"], test_ids=["8.jpg", "9.jpg"]
    )
    numbered = adapt_contract(plain, read(tmp_path, "id,predicted\n9,0 1\n"), names=["tin", "jar"], ids=["0", "1"])
    assert numbered.label_as == "id"
    fixed = load_contract("imaterialist2019")
    assert adapt_contract(fixed, sample, names=[], ids=[]) is fixed


def test_what_will_not_fit_is_told(tmp_path: Path) -> None:
    fixed, names = load_contract("imaterialist2019"), ["a", "b", "c"]

    def tell(text: str, contract: str = "imaterialist2019", **known: list[str]) -> str:
        sample = read(tmp_path, text)
        adapted = adapt_contract(load_contract(contract), sample, names=names, ids=["0", "1", "2"])
        return " ".join(find_misfits(adapted, sample, names=names, class_ids=["0", "1", "2"], **known))

    assert not tell("id,predicted\nx,0 1 2\n")
    assert "header of sample_submission.csv is image,product_id; the contract writes id,predicted" in tell(
        "image,product_id\nx,0 1 2\n"
    )
    assert "stand between ';', not ','" in tell("id;predicted\nx;0 1 2\n")
    assert "hold 2 labels with ' ' between them; the contract writes 3" in tell("id,predicted\nx,0 1\n")
    for contract in ("plain", "imaterialist2019"):
        assert "has 4 columns (id, a, b, c)" in tell("id,a,b,c\nx,0,0,1\n", contract)
        assert "hold from 1 to 2 labels" in tell("id,predicted\nx,0 1\ny,0\n", contract)
        assert "does not list: 1 (z)" in tell("id,predicted\nx,0 1 2\n", contract, test_ids=["x", "z"])
        assert "are not test images: 1 (x)" in tell("id,predicted\nx,0 1 2\n", contract, test_ids=[])
        assert "stand more than once" in tell("id,predicted\nx,0 1 2\nx,0 1 2\n", contract)
    numbered = build_contract(read(tmp_path, "id,p\nx,0\n"), name="m")
    sample = read(tmp_path, "id,p\nx,0\n")
    assert find_misfits(numbered, sample, names=["tin"], class_ids=["0"]) == [
        "labels of sample_submission.csv are not the classes' names; label_as must be id."
    ]
    assert "holds 4 labels, but there are only 3 classes" in tell("id,label\nx,p q r s\n", "plain")
    sample = read(tmp_path, "id,predicted\nx,box jar ?\n")
    spaced = fixed.model_copy(update={"label_as": "name"})
    told = find_misfits(spaced, sample, names=["red tin", "jar", "box"], class_ids=["0", "1", "2"])
    assert told == ["classes hold the separator ' ': 1 (red tin)."]


def test_a_contract_of_a_sample_reads_back_and_is_explained(tmp_path: Path) -> None:
    sample = read(tmp_path, "posting id\tmatches\nx\tw_1|w_2\n", "sample.tsv")
    contract = build_contract(sample, name="my race")
    path = tmp_path / "mine.yaml"
    path.write_text(format_contract(contract))
    assert load_contract(str(path)) == contract
    assert (contract.name, contract.metric, contract.metric_k, contract.label_as) == (
        "my-race",
        "top_k_error",
        2,
        "name",
    )
    told = " ".join(explain_contract(contract))
    assert "two columns, posting id and matches, with tabs between them" in told
    assert "2 different labels, the likeliest first, with '|' between them" in told
    for bundled in ("plain", "imaterialist2019"):
        path.write_text(format_contract(load_contract(bundled)))
        assert load_contract(str(path)) == load_contract(bundled)


def test_a_sample_that_no_contract_can_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="must have two columns, ids and labels; got 4"):
        build_contract(read(tmp_path, "id,a,b,c\nx,0,0,1\n"), name="m")
    uneven = read(tmp_path, "id,p\nx,red tin\ny,jar\n")
    with pytest.raises(SubmissionError, match="from 1 to 2 with ' ' between them.* --labels"):
        build_contract(uneven, name="m")
    assert build_contract(uneven, name="m", labels_per_image=1).labels_per_image == 1
    with pytest.raises(SubmissionError, match="got only a header"):
        read(tmp_path, "id,p\n")


def test_a_sample_of_another_name_is_taken_where_it_is_named_so_or_given(tmp_path: Path) -> None:
    for name in ("train", "sampleSubmission", "other"):
        (tmp_path / f"{name}.csv").write_text("id,label\na,1\n")
    assert find_sample(tmp_path) == tmp_path / "sampleSubmission.csv"
    assert find_sample(tmp_path, "other.csv") == tmp_path / "other.csv"
    with pytest.raises(DataError, match=r"absent.csv: must be the sample submission; no such file. .*: 3 \(other.csv,"):
        find_sample(tmp_path, "absent.csv")
    (tmp_path / "sample_sub.csv").write_text("id,label\n")
    with pytest.raises(DataError, match="must hold one sample submission; got sampleSubmission.csv, sample_sub.csv"):
        find_sample(tmp_path)
    (tmp_path / "sample_submission.csv").write_text("id,label\n")
    assert find_sample(tmp_path) == tmp_path / "sample_submission.csv"


def test_a_sample_with_confidences_becomes_a_contract_that_writes_them(tmp_path: Path) -> None:
    sample = read(tmp_path, "id,landmarks\na,8815 0.03\nb,\nc,5328 0.5\n")
    made = build_contract(sample, name="mine")
    assert (made.confidence, made.allows_empty, made.labels_per_image) == (True, True, 1)
    assert made.metric == "global_average_precision"
    told = explain_contract(made)
    assert "A row holds one label and how sure it is, from 0 to 1, with a space between them; a label is" in told[2]
    assert any("may hold no label" in line for line in told)
    (tmp_path / "mine.yaml").write_text(format_contract(made))
    assert load_contract(str(tmp_path / "mine.yaml")) == made
    landmark, plain = load_contract("google_landmark2019"), load_contract("plain")
    arguments = {"names": ["8815", "5328"], "class_ids": ["8815", "5328"]}
    assert find_misfits(landmark, sample, **arguments) == []
    adapted = adapt_contract(plain, sample, names=arguments["names"], ids=[])
    assert adapted.confidence and find_misfits(adapted, sample, **arguments) == []
    alone = read(tmp_path, "id,landmarks\na,8815\nb,5328\n")
    assert find_misfits(landmark, alone, **arguments) == [
        "rows of sample_submission.csv hold labels alone; the contract writes a label and its confidence."
    ]
    fixed = plain.model_copy(update={"adapts_to_sample": False, "id_column": "id", "prediction_column": "landmarks"})
    assert find_misfits(fixed, sample, **arguments) == [
        "rows of sample_submission.csv hold a label and its confidence; the contract writes labels alone."
    ]
