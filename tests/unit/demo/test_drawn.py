"""The drawn competition: layout, determinism, wrong labels, and what it refuses."""

import csv
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from productrec.demo.drawn import competition as drawn
from productrec.demo.drawn.catalogue import design_catalogue
from productrec.demo.drawn.competition import DrawnCompetition, draw_competition
from productrec.demo.drawn.kinds import ASPECTS
from productrec.demo.drawn.package import make_package
from productrec.errors import DataError, StorageError

SMALL: dict[str, Any] = {"skus": 6, "train_images": 5, "val_images": 1, "test_images": 2, "max_side_px": 48}


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> DrawnCompetition:
    return draw_competition(tmp_path_factory.mktemp("drawn") / "shop", **SMALL, wrong_label_fraction=0.2, workers=1)


def read_images(folder: Path, split: str) -> list[dict[str, Any]]:
    images = json.loads((folder / f"{split}.json").read_text())["images"]
    assert isinstance(images, list)
    return images


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_layout_is_the_real_competition_s(competition: DrawnCompetition) -> None:
    folder = competition.folder
    assert {path.name for path in folder.iterdir()} == {
        "train.json",
        "val.json",
        "test.json",
        "product_tree.json",
        "sample_submission.csv",
        "images",
        "hidden",
    }
    ids = []
    for split, count in (("train", 30), ("val", 6), ("test", 12)):
        images = read_images(folder, split)
        assert len(images) == count
        assert all(set(image) == {"id", "url"} | ({"class"} if split != "test" else set()) for image in images)
        assert all(image["url"] == f"http://127.0.0.1:8765/{image['id']}" for image in images)
        assert all(len(image["id"]) == 36 and int(image["id"].removesuffix(".jpg"), 16) for image in images)
        ids += [image["id"] for image in images]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {path.name for path in (folder / "images").iterdir()}
    tree = json.loads((folder / "product_tree.json").read_text())
    classes = [class_id for families in tree.values() for members in families.values() for class_id in members]
    assert sorted(classes, key=int) == [str(class_id) for class_id in range(6)]


def test_result_counts_what_was_written(competition: DrawnCompetition) -> None:
    assert (competition.classes, competition.train_images) == (6, 30)
    assert (competition.val_images, competition.test_images, competition.wrong_labels) == (6, 12, 6)


def test_test_split_and_sample_submission_carry_no_truth(competition: DrawnCompetition) -> None:
    test_ids = [image["id"] for image in read_images(competition.folder, "test")]
    sample = read_csv(competition.folder / "sample_submission.csv")
    assert [row["id"] for row in sample] == test_ids
    assert {row["predicted"] for row in sample} == {"0 1 2"}
    truth = read_csv(competition.hidden_labels)
    assert [row["id"] for row in truth] == test_ids
    assert Counter(int(row["class"]) for row in truth) == Counter(dict.fromkeys(range(6), 2))


def test_wrong_labels_are_as_many_as_asked_and_only_in_train(competition: DrawnCompetition) -> None:
    wrong = read_csv(competition.hidden_wrong_labels)
    given = {image["id"]: image["class"] for image in read_images(competition.folder, "train")}
    assert len(wrong) == 6
    for row in wrong:
        assert row["given"] != row["true"]
        assert given[row["id"]] == int(row["given"])
    true = given | {row["id"]: int(row["true"]) for row in wrong}
    kept = Counter(label for image_id, label in given.items() if true[image_id] == label)
    assert min(kept[class_id] for class_id in range(6)) >= 1
    assert Counter(image["class"] for image in read_images(competition.folder, "val")) == Counter(range(6))


def test_every_sku_keeps_a_right_label_when_half_are_wrong(tmp_path: Path) -> None:
    settings = SMALL | {"train_images": 2, "max_side_px": 32}
    drawn_half = draw_competition(tmp_path / "shop", **settings, wrong_label_fraction=0.5)
    wrong = {row["id"] for row in read_csv(drawn_half.hidden_wrong_labels)}
    train = read_images(drawn_half.folder, "train")
    assert len(wrong) == 6
    assert {image["class"] for image in train if image["id"] not in wrong} == set(range(6))


def test_no_wrong_labels_when_none_are_asked(tmp_path: Path) -> None:
    clean = draw_competition(tmp_path / "shop", **SMALL, wrong_label_fraction=0)
    assert clean.wrong_labels == 0
    assert clean.hidden_wrong_labels.read_text() == "id,given,true\n"


def test_training_counts_vary_around_the_mean() -> None:
    counts = drawn._spread_counts(41, 12, np.random.default_rng(0))
    assert sum(counts) == 41 * 12
    assert len(set(counts)) > 3
    assert min(counts) >= 7
    assert max(counts) <= 17
    assert drawn._spread_counts(9, 2, np.random.default_rng(0)) == [2] * 9


def test_every_image_decodes_at_the_side_asked_for(competition: DrawnCompetition) -> None:
    for path in (competition.folder / "images").iterdir():
        picture = cv2.imread(str(path))
        assert picture is not None
        assert max(picture.shape[:2]) == 48
        assert picture.std() > 2


def test_same_seed_draws_the_same_bytes_whatever_the_workers(competition: DrawnCompetition, tmp_path: Path) -> None:
    again = draw_competition(tmp_path / "again", **SMALL, wrong_label_fraction=0.2, workers=2)
    assert read_bytes(again.folder) == read_bytes(competition.folder)


def test_another_seed_draws_another_shop(competition: DrawnCompetition, tmp_path: Path) -> None:
    other = draw_competition(tmp_path / "other", **SMALL, wrong_label_fraction=0.2, seed=1)
    assert not {path.name for path in (other.folder / "images").iterdir()} & {
        path.name for path in (competition.folder / "images").iterdir()
    }
    tree = "product_tree.json"
    assert (other.folder / tree).read_bytes() != (competition.folder / tree).read_bytes()


def test_progress_adds_up_to_all_images(tmp_path: Path) -> None:
    steps: list[int] = []
    result = draw_competition(tmp_path / "shop", **SMALL, on_progress=steps.append)
    assert sum(steps) == result.train_images + result.val_images + result.test_images


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert (draw_competition(tmp_path / "shop", **SMALL).folder / "train.json").exists()


def test_refuses_a_folder_with_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="must be a new or empty folder; got one with files"):
        draw_competition(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(DataError, match="must be a new or empty folder; got a file"):
        draw_competition(tmp_path / "notes.txt", **SMALL)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("skus", 2),
        ("train_images", 1),
        ("val_images", 0),
        ("test_images", -1),
        ("max_side_px", 31),
        ("max_side_px", 4096),
        ("difficulty", 1.01),
        ("difficulty", float("nan")),
        ("wrong_label_fraction", 0.6),
        ("seed", -1),
        ("workers", 0),
    ],
)
def test_refuses_arguments_out_of_range(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(DataError, match=rf"^drawn competition: {name} must be .* got {value}\. "):
        draw_competition(tmp_path / "shop", **(SMALL | {name: value}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_draw_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    taken = []

    def fail_late(*arguments: Any, **settings: Any) -> bytes:
        taken.append(1)
        if len(taken) > 10:
            raise error
        return b"a photograph"

    monkeypatch.setattr(drawn, "take_photograph", fail_late)
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        draw_competition(tmp_path / "shop", **SMALL, workers=2)
    assert len(taken) > 10
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_products_differ_and_families_stay_together(difficulty: float) -> None:
    catalogue = design_catalogue(400, difficulty=difficulty, rng=np.random.default_rng(0))
    assert len(set(catalogue)) == 400
    names = [sku.family.name for sku in catalogue]
    changes = sum(earlier != later for earlier, later in pairwise(names))
    assert changes + 1 == len(set(names))
    assert {sku.family.shape for sku in catalogue} == set(ASPECTS)


def test_siblings_look_different_even_when_hard() -> None:
    catalogue = design_catalogue(30, difficulty=1.0, rng=np.random.default_rng(3))
    for first, second in pairwise(catalogue):
        if first.family == second.family and first.aspect == second.aspect:
            surfaces = [make_package(sku, 160).surface.astype(int) for sku in (first, second)]
            assert (np.abs(surfaces[0] - surfaces[1]).max(2) > 40).sum() >= 20


def test_the_guard_against_alike_siblings_can_fail() -> None:
    sku = design_catalogue(1, difficulty=1.0, rng=np.random.default_rng(3))[0]
    surfaces = [make_package(sku, 160).surface.astype(int) for _ in range(2)]
    assert (np.abs(surfaces[0] - surfaces[1]).max(2) > 40).sum() == 0
