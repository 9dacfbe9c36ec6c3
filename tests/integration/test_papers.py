"""Recipes for papers, by the commands of their own headers, on drawn folders in the layouts that were published."""

import contextlib
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
from safetensors.torch import save_file
from scipy.io import savemat

from productrec.data.table import load_table
from productrec.data.transforms import build_augmentation
from productrec.recipe import load_recipe
from productrec.training.run.checkpoint import load_checkpoint

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
SMALL = [
    "model.backbone=test_resnet",
    "model.pretrained=tiny.safetensors",
    "model.embedding_dim=16",
    "train.freeze_epochs=1",
    "train.side_px=32",
    "train.epochs=2",
    "train.batch_size=20",
    "train.workers=0",
    "train.precision=float32",
    "device=cpu",
]
CLASS_IMAGES, TRAIN_CLASSES, TEST_CLASSES = 4, 15, 4


def draw(path: Path, label: int, number: int) -> None:
    """An image of its class's colour, with noise of its own."""
    generator = np.random.default_rng([label, number])
    colour = np.random.default_rng(label).integers(40, 216, 3)
    pixels = np.clip(colour + generator.integers(-40, 40, (40, 36, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def list_images(first_test_class: int) -> list[tuple[int, int, bool]]:
    """Class id, number and whether it is one to test on, of each image."""
    train, test = range(1, TRAIN_CLASSES + 1), range(first_test_class, first_test_class + TEST_CLASSES)
    return [(label, number, label in test) for label in (*train, *test) for number in range(CLASS_IMAGES)]


def draw_cub(root: Path) -> None:
    images, labels, classes = [], [], {}
    for row, (label, number, _) in enumerate(list_images(101), start=1):
        classes[label] = f"{label:03}.Bird_{label}"
        name = f"{classes[label]}/Bird_{label}_{number:04}.jpg"
        draw(root / "CUB_200_2011" / "images" / name, label, number)
        images.append(f"{row} {name}")
        labels.append(f"{row} {label}")
    named = [f"{label} {name}" for label, name in classes.items()]
    for name, lines in (("images", images), ("image_class_labels", labels), ("classes", named)):
        (root / "CUB_200_2011" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def draw_cars(root: Path) -> None:
    rows = []
    for row, (label, number, _) in enumerate(list_images(99), start=1):
        name = f"car_ims/{row:06}.jpg"
        draw(root / "cars196" / name, label, number)
        rows.append((name, 1, 1, 30, 30, label, number % 2))  # the last: train or test of the classification task
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    annotations = np.array(rows, dtype=[(field, "O") for field in fields])
    names = np.array([f"Maker Model {label} 2012" for label in range(1, 197)], dtype=object)
    savemat(root / "cars196" / "cars_annos.mat", {"annotations": annotations, "class_names": names})


def draw_sop(root: Path) -> None:
    lists = {name: ["image_id class_id super_class_id path"] for name in ("train", "test")}
    for row, (label, number, is_test) in enumerate(list_images(11319), start=1):
        category = ("bicycle", "lamp")[label % 2]
        name = f"{category}_final/{1000 + label}_{number}.JPG"
        draw(root / "Stanford_Online_Products" / name, label, number)
        lists["test" if is_test else "train"].append(f"{row} {label} {1 + label % 2} {name}")
    for name, lines in lists.items():
        (root / "Stanford_Online_Products" / f"Ebay_{name}.txt").write_text("\n".join(lines) + "\n")


def draw_in_shop(root: Path) -> None:
    lines = []
    for label, number, is_test in list_images(4000):
        name = f"img/{('MEN/Tees_Tanks', 'WOMEN/Dresses')[label % 2]}/id_{label:08}/0{number}_1_front.jpg"
        draw(root / "in_shop" / "Img" / name, label, number)
        status = ("query" if number < 1 else "gallery") if is_test else "train"
        lines.append(f"{name}  id_{label:08} {status}")
    head = [str(len(lines)), "image_name item_id evaluation_status"]
    (root / "in_shop" / "Eval").mkdir()
    (root / "in_shop" / "Eval" / "list_eval_partition.txt").write_text("\n".join([*head, *lines]) + "\n")


LAYOUTS = {"cub200": draw_cub, "cars196": draw_cars, "sop": draw_sop, "in_shop": draw_in_shop}


@pytest.fixture
def papers(place):
    """A place with the shipped recipes, where they expect themselves, and weights of a small network."""
    shutil.copytree(PIPELINES / "papers", "pipelines/papers")
    save_file(timm.create_model("test_resnet").state_dict(), "tiny.safetensors")
    return place


def read_commands(name: str) -> list[list[str]]:
    """The commands in a recipe's header, without the program's name."""
    lines = (PIPELINES / "papers" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    commands = [shlex.split(line[1:]) for line in lines if line.startswith("#   productrec ")]
    assert [command[1] for command in commands] == ["ingest", "train", "evaluate"]
    return [command[1:] for command in commands]


def check_protocol(images: pd.DataFrame) -> None:
    """No class stands on two of the three sides, and each has some."""
    sides = [set(images.loc[images["split"] == split, "label"]) for split in ("train", "val", "test")]
    assert all(sides) and len(set.union(*sides)) == sum(map(len, sides))


@contextlib.contextmanager
def hide(paths: list[Path]) -> Iterator[None]:
    """Files that cannot be read meanwhile."""
    for path in paths:
        path.rename(path.with_suffix(".hidden"))
    yield
    for path in paths:
        path.with_suffix(".hidden").rename(path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_papers_recipe_runs_from_the_published_folder_to_the_figures(name, papers, productrec):
    LAYOUTS[name](papers / "data" / "source")
    ingest, train, evaluate = read_commands(name)
    ingested = productrec(*ingest)
    assert ingested.code == 0, ingested.err
    table = load_table(Path("data") / name)
    images = table.images
    check_protocol(images)
    assert (images["status"] == "ok").all()
    by_split = images.groupby("split")["label"].nunique().to_dict()
    assert by_split == {"train": TRAIN_CLASSES - 2, "val": 2, "test": TEST_CLASSES}

    with hide([table.root / path for path in images.loc[images["split"] == "test", "path"]]):
        trained = productrec(*train, *SMALL)
    assert trained.code == 0, trained.err
    run = Path("runs") / name
    known = load_checkpoint(run / "checkpoints" / "best").class_ids
    assert set(known) == set(images.loc[images["split"] == "train", "label"].astype(int))
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(epochs) == 2
    for epoch in epochs:
        assert {"recall@1", "train_metric"} <= set(epoch)
        assert not {"top_1_accuracy", "train_classification"} & set(epoch)

    evaluated = productrec(*evaluate, "--bootstrap", "20")
    assert evaluated.code == 0, evaluated.err
    kept = json.loads((run / "evaluations/plain/test/evaluation.json").read_text())
    wanted = {f"recall@{k}" for k in evaluate[evaluate.index("--k") + 1].split(",")}
    assert wanted <= set(kept["figures"]) and wanted <= set(kept["intervals"])
    queries, gallery = TEST_CLASSES * CLASS_IMAGES, TEST_CLASSES * CLASS_IMAGES
    protocol = "every image asks all others"
    if name == "in_shop":
        queries, gallery = TEST_CLASSES, TEST_CLASSES * (CLASS_IMAGES - 1)
        protocol = "queries ask the gallery"
    assert (kept["queries"], kept["gallery_rows"], kept["queries_without_positives"]) == (queries, gallery, 0)
    assert kept["protocol"] == protocol


def test_all_training_classes_are_trained_on_where_none_is_held_out(papers, productrec):
    draw_cub(papers / "data" / "source")
    source, table = "data/source/CUB_200_2011", "data/cub200_all"
    assert productrec("ingest", source, "--out", table, "--validation-fraction", "0").code == 0
    own = ("name=cub200_all", f"data.table={table}")
    trained = productrec("train", "pipelines/papers/cub200.yaml", *own, *SMALL)
    assert trained.code == 0, trained.err
    assert "no validation images; the last checkpoint counts as the best" in trained.err
    assert len(load_checkpoint(Path("runs/cub200_all/checkpoints/best")).class_ids) == TRAIN_CLASSES
    judged = productrec("evaluate", "runs/cub200_all", "--split", "test", "--bootstrap", "0")
    assert judged.code == 0, judged.err
    assert "16 queries" in judged.err


def test_the_protocol_is_broken_by_one_test_class_among_the_others():
    images = pd.DataFrame({"label": [1, 2, 3, 3], "split": ["train", "val", "test", "test"]})
    check_protocol(images)
    for split in ("train", "val"):
        with pytest.raises(AssertionError):
            check_protocol(images.assign(split=["train", "val", "test", split]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_a_papers_recipe_says_of_itself(name):
    path = PIPELINES / "papers" / f"{name}.yaml"
    header = path.read_text(encoding="utf-8").partition("\nname:")[0]
    for said in ("Aims at Recall@1", "Not run on the real images here", "Estimated, not measured", "Departs from"):
        assert said in header.replace("\n# ", " "), said
    recipe = load_recipe(path)
    assert (recipe.data.hold_out, recipe.train.keep_best_by) == ("classes", "recall@1")
    assert recipe.train.splits == ("train",)
    assert recipe.loss.classification_weight == 0 and recipe.loss.metric_weight == 1
    augmentation = build_augmentation(str(PIPELINES.parent / recipe.train.augmentation), recipe.train.side_px)
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    assert len({augmentation(noise, seed).tobytes() for seed in range(8)}) == 8
