"""Augmentation: a seed alone decides the pixels, and a wrong pipeline file is refused at the start."""

import json
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import yaml

from productrec.data.transforms import MEAN_COLOUR, PRESETS, Augmentation, build_augmentation
from productrec.errors import RecipeError

SIDE = 24


def draw_noise(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)


def save_pipeline(path: Path, *steps: A.BasicTransform) -> Path:
    A.save(A.Compose(list(steps)), path, data_format="json" if path.suffix == ".json" else "yaml")
    return path


STEPS = (A.RandomCrop(32, 40), A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=0.9))


@pytest.fixture(params=[*PRESETS, "steps.yaml", "steps.json", "steps.yml"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every preset, and a pipeline of someone's own in both file formats."""
    return request.param if request.param in PRESETS else str(save_pipeline(tmp_path / request.param, *STEPS))


@pytest.fixture
def augmentation(name: str) -> Augmentation:
    return build_augmentation(name, SIDE)


def test_the_seed_alone_decides_the_pixels(augmentation: Augmentation) -> None:
    image = draw_noise()
    first = [augmentation(image, seed) for seed in range(6)]
    augmentation(draw_noise(35, 90), 99)
    np.random.seed(7)
    again = [augmentation(image, seed) for seed in reversed(range(6))][::-1]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)


def test_different_seeds_differ_unless_nothing_is_random(augmentation: Augmentation, name: str) -> None:
    squares = {augmentation(draw_noise(), seed).tobytes() for seed in range(8)}
    assert len(squares) == 1 if name == "none" else len(squares) >= 6


def test_two_builds_of_one_pipeline_agree(tmp_path: Path) -> None:
    path = str(save_pipeline(tmp_path / "steps.yaml", *STEPS))
    for name in (*PRESETS, path):
        one, two = build_augmentation(name, SIDE), build_augmentation(name, SIDE)
        assert all(np.array_equal(one(draw_noise(), seed), two(draw_noise(), seed)) for seed in range(4))


def test_both_file_formats_mean_the_same(tmp_path: Path) -> None:
    one, two = (build_augmentation(str(save_pipeline(tmp_path / name, *STEPS)), SIDE) for name in ("a.yaml", "a.json"))
    assert all(np.array_equal(one(draw_noise(), seed), two(draw_noise(), seed)) for seed in range(4))


@pytest.mark.parametrize("shape", [(60, 80), (24, 24), (1, 1), (5, 200), (300, 200)])
@pytest.mark.parametrize("preset", PRESETS)
def test_any_size_becomes_a_square_of_bytes(preset: str, shape: tuple[int, int]) -> None:
    image = draw_noise(*shape)
    before = image.copy()
    square = build_augmentation(preset, SIDE)(image, 3)
    assert square.shape == (SIDE, SIDE, 3)
    assert square.dtype == np.uint8
    assert square.flags["C_CONTIGUOUS"]
    assert np.array_equal(image, before)


def test_the_whole_image_is_kept_where_nothing_is_augmented() -> None:
    image = np.zeros((48, 96, 3), np.uint8)
    image[:, 48:] = 255
    square = build_augmentation("none", SIDE)(image, 0)
    assert (square[:, :12] == 0).all()
    assert (square[:, 12:] == 255).all()


def test_a_pipeline_of_another_size_is_resized(tmp_path: Path) -> None:
    path = save_pipeline(tmp_path / "crop.yaml", A.CenterCrop(20, 30))
    assert build_augmentation(str(path), SIDE)(draw_noise(), 0).shape == (SIDE, SIDE, 3)


def test_a_single_transform_is_a_pipeline_too(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    A.save(A.HorizontalFlip(p=1.0), path)
    flipped = build_augmentation(str(path), SIDE)
    image = draw_noise(SIDE, SIDE)
    assert np.array_equal(flipped(image, 0), image[:, ::-1])


# ---------------------------------------------------------------- bands


def find_bands(square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows (side_px,) and which columns (side_px,) of a square are masked from edge to edge."""
    is_masked = (square == np.array(MEAN_COLOUR)).all(axis=2)
    return is_masked.all(axis=1), is_masked.all(axis=0)


def count_runs(lines: np.ndarray) -> int:
    return int((np.diff(lines.astype(int), prepend=0) == 1).sum())


def test_bands_mask_an_image_and_change_nothing_else(name: str) -> None:
    plain, banded = build_augmentation(name, SIDE), build_augmentation(name, SIDE, bands=2, band_share=0.25)
    found = 0
    for seed in range(12):
        before, after = plain(draw_noise(), seed), banded(draw_noise(), seed)
        rows, columns = find_bands(after)
        assert rows.sum() <= 12 and columns.sum() <= 12
        assert np.array_equal(after[~rows][:, ~columns], before[~rows][:, ~columns])
        assert after.shape == before.shape and after.dtype == np.uint8 and after.flags["C_CONTIGUOUS"]
        found += rows.any() and columns.any()
    assert found >= 6


@pytest.mark.parametrize(("count", "share", "widest_px"), [(1, 0.25, 6), (2, 0.25, 6), (3, 0.1, 2), (1, 0.001, 1)])
def test_bands_lie_along_both_axes_as_many_and_as_wide_as_said(count: int, share: float, widest_px: int) -> None:
    augmentation = build_augmentation("none", SIDE, bands=count, band_share=share)
    found = np.array([np.stack(find_bands(augmentation(draw_noise(), seed))) for seed in range(300)])
    for lines in np.moveaxis(found, 1, 0):  # rows, then columns: (300, SIDE)
        assert max(map(count_runs, lines)) == count
        assert lines.sum(axis=1).max() <= count * widest_px
        assert lines.any(axis=0).all()  # nowhere is out of reach, the edges neither
        single = lines[[count_runs(line) == 1 for line in lines]].sum(axis=1)
        assert single.min() == 1
        if count == 1:
            assert single.max() == widest_px
            assert (~lines.any(axis=1)).any()  # a width of 0
    assert (found[:, 0] != found[:, 1]).any(axis=1).mean() > 0.5  # rows and columns are drawn apart


def test_the_seed_alone_decides_the_bands(name: str) -> None:
    one, two = (build_augmentation(name, SIDE, bands=2) for _ in range(2))
    first = [one(draw_noise(), seed) for seed in range(6)]
    two(draw_noise(35, 90), 2**32 - 1)
    again = [two(draw_noise(), seed) for seed in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({np.stack(find_bands(square)).tobytes() for square in first}) >= 5


def test_bands_do_not_go_with_what_the_rest_draws() -> None:
    """One band of the left half stands as often in images that are mirrored as in others."""
    mirrored, left = [], []
    plain, banded = build_augmentation("light", SIDE), build_augmentation("light", SIDE, bands=1)
    ramp = np.repeat(np.arange(80, dtype=np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    for seed in range(400):
        square, columns = plain(ramp, seed), find_bands(banded(ramp, seed))[1]
        mirrored.append(square[0, 0, 0] > square[0, -1, 0])
        left.append(np.flatnonzero(columns).mean() if columns.any() else SIDE / 2)
    assert 0.4 < np.mean(mirrored) < 0.6
    assert abs(np.corrcoef(mirrored, left)[0, 1]) < 0.2


def test_an_image_is_not_written_into() -> None:
    image = draw_noise(SIDE, SIDE)
    before = image.copy()
    build_augmentation("none", SIDE, bands=2)(image, 3)
    assert np.array_equal(image, before)


# ---------------------------------------------------------------- what is refused


def refuse(name: str) -> str:
    with pytest.raises(RecipeError) as caught:
        build_augmentation(name, SIDE)
    return str(caught.value)


def test_a_name_that_is_neither_preset_nor_file_is_refused(tmp_path: Path) -> None:
    assert "must be one of none, light, product, in_the_wild, heavy or a file; got 'prodcut'" in refuse("prodcut")
    assert "or a file; got" in refuse(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", ""),
        ("a.yaml", "just words"),
        ("a.yaml", "{"),
        ("a.yaml", "transform: {__class_fullname__: Nothing, p: 1}"),
        ("a.yaml", "transform: {__class_fullname__: os.system, command: 'true'}"),
        ("a.yaml", "!!python/object/apply:os.getcwd []"),
        ("a.json", "{}"),
        ("a.json", "[1]"),
        ("a.json", "transform: yaml in a json file"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert f"{name}: is not a serialised albumentations pipeline (" in refuse(str(tmp_path / name))


def test_a_pipeline_with_an_unknown_transform_is_refused(tmp_path: Path) -> None:
    path = save_pipeline(tmp_path / "a.yaml", *STEPS)
    document = yaml.safe_load(path.read_text())
    document["transform"]["transforms"][0]["__class_fullname__"] = "RandomCrap"
    path.write_text(yaml.safe_dump(document))
    assert "RandomCrap" in refuse(str(path))


def test_a_pipeline_that_fails_on_an_image_is_refused_before_training(tmp_path: Path) -> None:
    path = save_pipeline(tmp_path / "a.json", A.RandomCrop(1000, 1000))
    assert "must take an RGB uint8 image and give one back (" in refuse(str(path))
    document = json.loads(path.read_text())
    document["transform"]["transforms"][0].update(height=10, width=10)
    path.write_text(json.dumps(document))
    build_augmentation(str(path), SIDE)


@pytest.mark.parametrize(
    ("steps", "got"),
    [
        ((A.Normalize(),), f"got float32 of shape ({SIDE}, {SIDE}, 3)"),
        ((A.ToFloat(max_value=255),), "got float32"),
        ((A.ToGray(num_output_channels=1, p=1),), f"got uint8 of shape ({SIDE}, {SIDE}"),
    ],
)
def test_a_pipeline_that_gives_no_rgb_bytes_is_refused(tmp_path: Path, steps: tuple, got: str) -> None:
    message = refuse(str(save_pipeline(tmp_path / "a.yaml", *steps)))
    assert "must give back an RGB uint8 image" in message
    assert got in message


def test_what_one_transform_does_says_nothing_of_another(tmp_path: Path) -> None:
    path = tmp_path / "flips.yaml"
    A.save(A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]), path, data_format="yaml")
    augmentation = build_augmentation(str(path), 2)
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    corners = [int(augmentation(image, seed)[0, 0, 0]) for seed in range(400)]
    for corner in range(4):  # neither, across, down, both
        assert 70 < corners.count(corner) < 130


@pytest.mark.parametrize("preset", ["light", "product", "in_the_wild"])
def test_crops_are_shrunk_by_averaging(preset: str) -> None:
    """Lines of one pixel become grey, as they do in the views of a test image; taken apart they would flicker."""
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[:, ::2] = 255
    augmentation = build_augmentation(preset, 32)
    quiet = [seed for seed in range(20) if np.std(augmentation(lines, seed)[:, :, 0].astype(float)) < 40]
    assert len(quiet) >= 16  # blur, noise and shade come on top of some
