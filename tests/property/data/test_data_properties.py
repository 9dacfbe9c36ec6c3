"""Data: what must hold for any labels, names, sizes and bytes."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from productrec.data.batches import draw_shuffled_batches
from productrec.data.curation.hold_out import hold_out_images
from productrec.data.decode import check_image, decode_image
from productrec.data.pk_batches import PKPlan
from productrec.data.samplers import Draw, EpochSampler
from productrec.data.sources.files import FileFinder
from productrec.data.sources.rows import SourceRows, parse_whole_number
from productrec.data.transforms import build_augmentation
from productrec.data.view_presets import get_views
from productrec.data.views import cut_views
from productrec.errors import DataError

SEEDS = st.integers(0, 2**32 - 1)
CLASS_SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=15)


@st.composite
def draw_pk_cases(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int]:
    """Labels in mixed order, P, K and a seed."""
    sizes = draw(CLASS_SIZES)
    seed = draw(SEEDS)
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return labels, draw(st.integers(1, 6)), draw(st.integers(2, 5)), seed


@settings(max_examples=60, deadline=None)
@given(case=draw_pk_cases())
def test_pk_batches_keep_their_promises(case: tuple[np.ndarray, int, int, int]) -> None:
    labels, classes_per_batch, images_per_class, seed = case
    batch_size = classes_per_batch * images_per_class
    batches = PKPlan(labels, batch_size, images_per_class).draw(np.random.default_rng(seed))
    sizes = Counter(labels.tolist())
    assert set(labels[batches].ravel().tolist()) == set(sizes)
    for batch in batches:
        assert len(batch) == batch_size
        assert batch.min() >= 0
        assert batch.max() < len(labels)
        counts = Counter(labels[batch].tolist())
        assert len(counts) >= min(2, classes_per_batch, len(sizes))
        for label, count in counts.items():
            assert count % images_per_class == 0
            assert len(set(batch[labels[batch] == label].tolist())) >= min(images_per_class, sizes[label])


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(1, 12), groups=st.integers(1, 4), k=st.integers(2, 4), p=st.integers(1, 4), seed=SEEDS)
def test_no_row_is_seen_again_before_its_class_is_used_up(classes: int, groups: int, k: int, p: int, seed: int) -> None:
    labels = np.repeat(np.arange(classes), groups * k)
    rows = PKPlan(labels, p * k, k).draw(np.random.default_rng(seed)).ravel()
    seen: dict[int, Counter[int]] = {}
    for row in rows.tolist():
        seen.setdefault(int(labels[row]), Counter())[row] += 1
    for counts in seen.values():
        fewest = min(counts.values()) if len(counts) == groups * k else 0
        assert max(counts.values()) - fewest <= 1


@settings(max_examples=40, deadline=None)
@given(sizes=CLASS_SIZES, pk=st.booleans(), seed=SEEDS, epoch=st.integers(0, 1000), first=st.integers(0, 40))
def test_a_resume_from_any_batch_gives_the_same_tail(
    sizes: list[int], pk: bool, seed: int, epoch: int, first: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)

    def build(first_batch: int) -> list[list[Draw]]:
        sampler = EpochSampler(labels, batch_size=6, images_per_class=3 if pk else None, seed=seed)
        sampler.epoch, sampler.first_batch = epoch, first_batch
        return list(sampler)

    assert build(first) == build(0)[first:]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 80), batch_size=st.integers(2, 20), seed=SEEDS)
def test_shuffled_batches_never_repeat_a_row(count: int, batch_size: int, seed: int) -> None:
    batches = draw_shuffled_batches(count, batch_size, np.random.default_rng(seed))
    rows = np.concatenate(batches).tolist()
    assert len(rows) == len(set(rows)) == min(count, max(1, count // batch_size) * batch_size)


# ---------------------------------------------------------------- names


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder with a secret beside it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "source" / "images" / "deep").mkdir(parents=True)
    for name in ("secret.jpg", "source/a.jpg", "source/images/a.jpg", "source/images/deep/b.jpg"):
        (folder / name).write_bytes(b"x")
    return folder / "source"


PARTS = st.sampled_from(["..", ".", "a", "a.jpg", "deep", "b", "images", "secret", "secret.jpg", "", "C:", "~", "\0"])


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(PARTS, max_size=5), separator=st.sampled_from(["/", "\\", "//"]))
def test_whatever_an_id_says_its_file_lies_in_the_root(root: Path, parts: list[str], separator: str) -> None:
    found = FileFinder(root).find(separator.join(parts), "train")
    if found is not None:
        path = (root / found).resolve()
        assert path.is_file()
        assert path.is_relative_to(root.resolve())


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=25))
def test_any_text_is_a_whole_number_or_not(text: str) -> None:
    number = parse_whole_number(text)
    if number is not None:
        assert int(text) == number
        pd.Series([number], dtype="Int64")


@settings(max_examples=100, deadline=None)
@given(number=st.integers(-(2**63), 2**63 - 1))
def test_every_64_bit_number_is_read(number: int) -> None:
    assert parse_whole_number(str(number)) == number


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.text(max_size=8), max_size=6))
def test_any_id_is_kept_to_the_letter_or_refused(ids: list[str]) -> None:
    rows = SourceRows()
    for image_id in ids:
        rows.add(image_id, "train", 1)
    try:
        images, _ = rows.build_frames()
    except DataError:
        assert any("\ud800" <= letter <= "\udfff" for image_id in ids for letter in image_id)
        return
    assert images["image_id"].tolist() == ids


# ---------------------------------------------------------------- held-out validation


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 15), min_size=1, max_size=6), fraction=st.floats(0, 0.99), seed=SEEDS)
def test_every_class_keeps_a_training_image(sizes: list[int], fraction: float, seed: int) -> None:
    rows = SourceRows()
    for label, size in enumerate(sizes):
        for number in range(size):
            rows.add(f"{label}-{number}", "train", label)
    images, _ = rows.build_frames()
    after = hold_out_images(images, fraction, seed)
    assert after["image_id"].tolist() == images["image_id"].tolist()
    assert after["label"].tolist() == images["label"].tolist()
    for label, size in enumerate(sizes):
        splits = Counter(after.loc[after["label"] == label, "split"])
        assert set(splits) <= {"train", "val"}
        assert splits["val"] == min(int(size * fraction + 0.5), size - 1)


# ---------------------------------------------------------------- pixels


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=200), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"])
)
def test_any_bytes_give_pixels_or_one_kind_of_error(data: bytes, start: bytes) -> None:
    for function in (decode_image, check_image):
        try:
            function(start + data, "here")
        except DataError as error:
            message = str(error)
        else:
            continue
        assert message.startswith("here: ")


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=SEEDS, format=st.sampled_from(["PNG", "BMP", "TIFF"]))
def test_a_lossless_picture_comes_back_to_the_bit(height: int, width: int, seed: int, format: str) -> None:
    picture = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format)
    assert np.array_equal(decode_image(buffer.getvalue(), "x"), picture)
    assert check_image(buffer.getvalue(), "x") == (width, height)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    preset=st.sampled_from(["plain", "flip", "five_crops", "ten_crops", "turns", "scales", "zoom", "full"]),
    side=st.integers(16, 80),
)
def test_every_view_of_a_plain_picture_is_plain(height: int, width: int, preset: str, side: int) -> None:
    picture = np.full((height, width, 3), (10, 120, 250), np.uint8)
    for square in cut_views(picture, tuple(view.cut for view in get_views(preset)), side):
        assert square.shape[0] == square.shape[1]
        assert (square == (10, 120, 250)).all()


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    seed=SEEDS,
    preset=st.sampled_from(["none", "light", "product", "heavy"]),
)
def test_augmentation_takes_any_size_and_repeats_itself(height: int, width: int, seed: int, preset: str) -> None:
    picture = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    augmentation = build_augmentation(preset, 24)
    first = augmentation(picture, seed)
    augmentation(picture, seed + 1)
    assert first.shape == (24, 24, 3)
    assert np.array_equal(augmentation(picture, seed), first)
