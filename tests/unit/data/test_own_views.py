"""Views of a user's own: files of albumentations pipelines, drawn by seed, row and view alone, or refused by reason."""

import json
from concurrent.futures import ThreadPoolExecutor

import albumentations as A
import numpy as np
import pytest

from productrec.data.dataset import ViewedImages, build_view_loader
from productrec.data.images import ArrayImages
from productrec.data.transforms import check_pipelines
from productrec.data.view_presets import View, get_views, plan_views
from productrec.data.views import cut_views, resize_square
from productrec.errors import RecipeError

SIDE_PX = 32
NOISE = A.Compose([A.GaussNoise(std_range=(0.2, 0.3), p=1.0)])
MIRROR = A.Compose([A.HorizontalFlip(p=1.0)])


def draw(height=50, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder, name="mine.yaml", **pipelines):
    """A file of views, JSON, which is YAML too."""
    path = folder / name
    path.write_text(json.dumps({"views": {name: one.to_dict() for name, one in pipelines.items()}}))
    return str(path)


def look(file, image, **options):
    views = get_views("mine", {"mine": file})
    return cut_views(image, plan_views(views)[0], SIDE_PX, **options)


def test_a_file_names_views_beside_the_plain_one(tmp_path):
    image = draw()
    A.save(MIRROR, tmp_path / "mirror.yaml", data_format="yaml")
    (tmp_path / "mine.yaml").write_text("views:\n  mirrored: mirror.yaml\n")
    views = get_views("mine", {"mine": str(tmp_path / "mine.yaml")})
    assert [view.name for view in views] == ["plain", "mirrored"] and views[0] == View("plain")
    check_pipelines(views, SIDE_PX)
    plain, mirrored = look(str(tmp_path / "mine.yaml"), image)
    np.testing.assert_array_equal(plain, resize_square(image, SIDE_PX))
    np.testing.assert_array_equal(mirrored, resize_square(np.ascontiguousarray(image[:, ::-1]), SIDE_PX))
    (alone,) = [view for view in get_views("m", {"m": str(tmp_path / "mirror.yaml")}) if view.pipeline]
    assert alone.name == "mirror" and alone.pipeline == views[1].pipeline
    again = get_views("mine", {"mine": write(tmp_path, "inline.yaml", mirrored=MIRROR)})
    assert [view.title for view in again] == [view.title for view in views]


def test_a_title_changes_with_the_pipeline_and_nothing_else(tmp_path):
    one, other = (
        get_views("mine", {"mine": write(tmp_path, noisy=A.Compose([A.GaussNoise(std_range=(0.2, top), p=1.0)]))})[1]
        for top in (0.3, 0.4)
    )
    assert one.title != other.title and one.title.startswith("noisy@") and one.name == other.name


def test_what_is_drawn_follows_from_seed_row_and_view_alone(tmp_path):
    file, image = write(tmp_path, first=NOISE, second=NOISE), draw()
    _, first, second = look(file, image, seed=1, row=2)
    for same in (look(file, image, seed=1, row=2), look(file, image, seed=1, row=2)):
        np.testing.assert_array_equal(first, same[1])
    assert (first != second).any()
    for changes in ({"seed": 2, "row": 2}, {"seed": 1, "row": 3}):
        assert (look(file, image, **changes)[1] != first).any()
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda number: look(file, image, seed=1, row=number % 4)[1], range(80)))
    for number, pixels in enumerate(seen):
        np.testing.assert_array_equal(pixels, seen[number % 4])
    np.testing.assert_array_equal(seen[2], first)


def test_loaders_draw_by_the_row_whatever_the_slice_the_batch_and_the_workers(tmp_path):
    views = get_views("mine", {"mine": write(tmp_path, noisy=NOISE)})
    images = [draw(seed=number) for number in range(6)]

    def load(some, first, batch_size=6, workers=0):
        dataset = ViewedImages(ArrayImages(some), views, SIDE_PX, seed=5, first=first)
        loader = build_view_loader(dataset, batch_size=batch_size, workers=workers, pin_memory=False)
        return np.concatenate([batch.cuts[1].numpy() for batch in loader])

    whole = load(images, 0)
    np.testing.assert_array_equal(whole, load(images, 0, batch_size=2, workers=2))
    np.testing.assert_array_equal(whole[3:], load(images[3:], 3))
    assert (whole[3:] != load(images[3:], 0)).any()
    asked = load(images, None)
    np.testing.assert_array_equal(asked[4:5], load(images[4:5], None))


def test_an_image_that_a_pipeline_cannot_take_is_broken_with_its_reason(tmp_path):
    views = get_views("mine", {"mine": write(tmp_path, part=A.Compose([A.RandomCrop(SIDE_PX, SIDE_PX)]))})
    check_pipelines(views, SIDE_PX)
    dataset = ViewedImages(ArrayImages([draw(), draw(8, 8)]), views, SIDE_PX)
    (batch,) = build_view_loader(dataset, batch_size=2, workers=0, pin_memory=False)
    assert list(batch.broken) == [1] and "pipeline" in batch.broken[1]


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        (A.Compose([A.Resize(48, 48)]), "view odd: .*squares of 32 pixels.*got 48 x 48.*Resize"),
        (A.Compose([A.CenterCrop(20, 32)]), "got 20 x 32"),
        (A.Compose([A.Normalize()]), "float32.*Leave out normalisation"),
        (A.Compose([A.CenterCrop(500, 500)]), "view odd: .*must take RGB uint8 images"),
    ],
)
def test_a_pipeline_that_gives_something_else_is_refused_before_any_work(tmp_path, pipeline, words):
    with pytest.raises(RecipeError, match=words):
        check_pipelines(get_views("mine", {"mine": write(tmp_path, odd=pipeline)}), SIDE_PX)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("views: {}\n", "must hold views"),
        ("loss: {}\n", "must hold views, a mapping of names to pipelines; got"),
        ("views: {a: nowhere.yaml}\n", "nowhere.yaml: no such pipeline"),
        ("views: {a: {p: 1}}\n", "view a must be a pipeline that albumentations.save wrote"),
        ("views: [\n", "YAML"),
    ],
)
def test_a_file_without_views_is_refused(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=words):
        get_views("mine", {"mine": str(tmp_path / "mine.yaml")})
    with pytest.raises(RecipeError, match="no such file of views"):
        get_views("mine", {"mine": str(tmp_path / "other.yaml")})


def test_a_transform_that_albumentations_does_not_know_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("views: {a: {transform: {__class_fullname__: os.system}}}\n")
    with pytest.raises(RecipeError, match="view a: is not a serialised albumentations pipeline"):
        check_pipelines(get_views("mine", {"mine": str(tmp_path / "mine.yaml")}), SIDE_PX)
