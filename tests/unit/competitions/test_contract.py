import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import productrec
from productrec.competitions.contract import Contract, check_training_splits, list_contracts, load_contract
from productrec.errors import DataError, SubmissionError
from productrec.settings.names import list_formats


def write_contract(folder: Path, **changes: Any) -> str:
    """A copy of the plain contract with some keys changed, or left out where the change is ``...``."""
    values = {**load_contract("plain").model_dump(mode="json"), **changes}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}), encoding="utf-8")
    return str(path)


def test_bundled_contracts_say_what_the_competitions_want() -> None:
    assert {"hotel_id2021", "imaterialist2019", "plain", "shopee2021"} < set(list_contracts())
    product = load_contract("imaterialist2019")
    assert (product.id_column, product.prediction_column, product.labels_per_image) == ("id", "predicted", 3)
    assert (product.metric, product.metric_k, product.label_separator) == ("top_k_error", 3, " ")
    assert (product.label_as, product.trainable_splits) == ("id", ("train",))
    assert (product.upload_slug, product.sample_submission) == ("imaterialist-product-2019", "sample_submission.csv")
    plain = load_contract("plain")
    assert (plain.id_column, plain.prediction_column, plain.labels_per_image) == ("id", "label", 1)
    assert (plain.metric, plain.label_as, plain.trainable_splits) == ("top_1_accuracy", "name", ("train", "val"))
    assert plain.upload_slug is None
    shopee = load_contract("shopee2021")
    assert (shopee.id_column, shopee.prediction_column, shopee.label_separator) == ("posting_id", "matches", " ")
    assert (shopee.answers, shopee.most_matches, shopee.metric) == ("matches", 50, "matches_f1")
    products = load_contract("stanford_online_products")
    assert (products.answers, products.metric, products.source_format) == ("retrieval", "recall_at_k", "sop")
    hotel = load_contract("hotel_id2021")
    assert (hotel.id_column, hotel.prediction_column, hotel.labels_per_image) == ("image", "hotel_id", 5)
    assert (hotel.metric, hotel.metric_k, hotel.label_separator) == ("map_at_k", 5, " ")


@pytest.mark.parametrize(
    ("name", "header", "labels_per_image", "scored_by", "unknown_label", "confidence"),
    [
        ("products10k", "name,class", 1, "top_1_accuracy", None, False),
        ("aliproducts2020", "id,predicted", 1, "top_1_accuracy", None, False),
        ("humpback_whale2019", "Image,Id", 5, "map_at_5", "new_whale", False),
        ("google_landmark2019", "id,landmarks", 1, "global_average_precision", None, True),
    ],
)
def test_bundled_contracts_say_header_labels_and_metric(
    name: str, header: str, labels_per_image: int, scored_by: str, unknown_label: str | None, confidence: bool
) -> None:
    contract = load_contract(name)
    assert f"{contract.id_column},{contract.prediction_column}" == header
    assert (contract.labels_per_image, contract.scored_by.key) == (labels_per_image, scored_by)
    assert (contract.unknown_label, contract.confidence) == (unknown_label, confidence)


@pytest.mark.parametrize("name", list_contracts())
def test_a_bundled_contract_is_named_like_its_file_and_every_key_is_described(name: str) -> None:
    assert load_contract(name).name == name
    assert all(field.description for field in Contract.model_fields.values())


@pytest.mark.parametrize("name", ["auto", *list_formats()])
def test_a_contract_may_name_any_format(tmp_path: Path, name: str) -> None:
    assert load_contract(write_contract(tmp_path, source_format=name)).source_format == name


def test_a_contract_cannot_be_changed() -> None:
    contract: Any = load_contract("plain")
    with pytest.raises(ValidationError, match="frozen"):
        contract.metric_k = 3


def test_ones_own_contract_is_read_from_its_path_with_defaults(tmp_path: Path) -> None:
    contract = load_contract(write_contract(tmp_path, name="mine", label_as=..., metric_k=..., upload_slug=...))
    assert (contract.name, contract.label_as, contract.metric_k, contract.upload_slug) == ("mine", "id", 1, None)


def test_an_unknown_name_names_the_nearest_and_the_list() -> None:
    with pytest.raises(
        SubmissionError, match=r"imaterialist2019, plain.*got 'imaterialist2018'.*mean imaterialist2019"
    ):
        load_contract("imaterialist2018")
    with pytest.raises(SubmissionError, match="got 'zzz'"):
        load_contract("zzz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels_per_imag": 3}, r"got 'labels_per_imag'\. Did you mean labels_per_image\?"),
        ({"zzz": 3}, "got 'zzz'. Known are name, title"),
        (
            {"source_format": "cocoo"},
            r"source_format must be one of auto, cars, .*; got 'cocoo'\. Did you mean coco\? It is how",
        ),
        ({"source_format": "zzz"}, r"source_format must be one of auto, .*; got 'zzz'\. It is how the competition's"),
        ({"labels_per_image": "3"}, "labels_per_image must be a whole number; got '3'"),
        ({"labels_per_image": 0}, "labels_per_image must be at least 1; got 0"),
        ({"metric": "macro_f2"}, r"metric must be one of top_1_accuracy, .*; got 'macro_f2'\. Did you mean macro_f1\?"),
        ({"metric": "global_average_precision", "metric_k": 2, "labels_per_image": 2}, "metric_k must be 1 for global"),
        ({"trainable_splits": "train"}, "trainable_splits must be a list"),
        ({"trainable_splits": []}, "trainable_splits must be a list that is not empty"),
        ({"trainable_splits": ["test"]}, "trainable_splits must be 'train' or 'val'; got 'test'"),
        ({"id_column": 3}, "id_column must be text .* got 3"),
        ({"id_column": ""}, "id_column must be at least one character"),
        ({"title": ...}, "title must be given; got nothing. It is the name in words"),
        ({"id_column": "label"}, "prediction_column must differ from id_column"),
        ({"metric_k": 2}, "metric_k must be 1 for top_1_accuracy; got 2"),
        ({"metric": "top_k_error", "metric_k": 3}, "metric_k must be at most labels_per_image; got 3 and 1"),
        ({"labels_per_image": 2, "unknown_label": "no product"}, "unknown_label must not hold the label_separator"),
        ({"unknown_share": 0.3}, "unknown_label must be given beside unknown_share; got 0.3 and no label"),
        ({"unknown_share": 1.0, "unknown_label": "new"}, "unknown_share must be below 1; got 1.0"),
        ({"unknown_share": 0.0, "unknown_label": "new"}, "unknown_share must be above 0; got 0.0"),
        ({"confidence": True, "labels_per_image": 2}, "labels_per_image must be 1 where confidence is true; got 2"),
        (
            {"confidence": True, "unknown_label": "new"},
            "unknown_label must be null where confidence is true; got 'new'",
        ),
        ({"class_count": 0}, "class_count must be at least 1; got 0"),
        ({"label_separator": "\n"}, "label_separator must hold no line break"),
    ],
)
def test_a_wrong_key_or_value_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_contract(tmp_path, **changes)
    with pytest.raises(SubmissionError, match=message) as raised:
        load_contract(path)
    assert str(raised.value).startswith(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not valid YAML"),
        (b"name: x\nname: y", "the key 'name' stands twice"),
        (b"- 1", "must hold settings by name; got list"),
        (b"", "must hold settings by name; got NoneType"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_contract_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(SubmissionError, match=message) as raised:
        load_contract(str(path))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="no such contract. The bundled ones are"):
        load_contract(str(tmp_path / "none.yaml"))


def test_training_on_a_forbidden_split_is_refused_unless_forced() -> None:
    product = load_contract("imaterialist2019")
    check_training_splits(product, ["train"], forced=False)
    check_training_splits(product, ["train", "val"], forced=True)
    check_training_splits(load_contract("plain"), ["train", "val"], forced=False)
    with pytest.raises(DataError, match="must be among train, by its rules; got val"):
        check_training_splits(product, ["train", "val"], forced=False)


def test_bundled_contracts_are_read_from_inside_an_archive(tmp_path: Path) -> None:
    package = Path(productrec.__file__).parent
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(package.rglob("*")):
            if path.suffix in (".py", ".yaml"):
                file.write(path, path.relative_to(package.parent))
    command = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "import productrec.competitions.contract as c\n"
        "print(c.__file__, *[c.load_contract(name).name for name in c.list_contracts()])\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert str(archive) in done.stdout and done.stdout.split()[1:] == list_contracts()
