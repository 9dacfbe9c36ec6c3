"""Near-duplicates: an exact search of hashes, copies found, look-alikes left, clusters and the report."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from productrec.data.curation import duplicates, near_hashes
from productrec.data.curation.duplicates import (
    MOST_BITS,
    Fingerprints,
    cluster_duplicates,
    compare_pixels,
    compute_fingerprints,
    compute_hash,
    find_duplicates,
)
from productrec.data.curation.near_hashes import find_duplicate_pairs
from productrec.data.images import FileImages
from productrec.errors import DataError


def draw_picture(seed: int, height: int = 240, width: int = 300) -> np.ndarray:
    """Coloured discs and boxes on a shaded ground."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] * generator.uniform(0.5, 1, 3)
    pixels = np.ascontiguousarray(np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8))
    for _ in range(25):
        x, y = (int(value) for value in generator.integers((0, 0), (width, height)))
        size, colour = int(generator.integers(10, 60)), generator.integers(0, 255, 3).tolist()
        if generator.random() < 0.5:
            cv2.circle(pixels, (x, y), size, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(pixels, (x, y), (x + size, y + size), colour, -1)
    return cv2.GaussianBlur(pixels, (0, 0), 1)


def compress(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR))


COPIES = {
    "same": lambda pixels: pixels,
    "half": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "larger": lambda pixels: cv2.resize(pixels, None, fx=1.4, fy=1.4),
    "jpeg": compress,
    "crop": lambda pixels: pixels[7:-7, 9:-9],
    "corner": lambda pixels: compress(pixels[9:, 12:]),
    "brighter": lambda pixels: np.clip(pixels * 1.06 + 5, 0, 255).astype(np.uint8),
}


def write(folder: Path, pictures: dict[str, np.ndarray]) -> list[str]:
    for name, pixels in pictures.items():
        cv2.imwrite(str(folder / name), pixels[..., ::-1])
    return [str(folder / name) for name in pictures]


def make_table(count: int, **columns: list[object]) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"image_id": [f"i{row}" for row in range(count)], "split": "train", "digest": None, "box": None, **columns}
    )
    frame["label"] = pd.array(columns.get("label", [1] * count), dtype="Int64")
    return frame


def count_apart(hashes: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    return (bits[:, None] != bits[None]).sum(axis=2)


def draw_hashes(seed: int, count: int, words: int) -> np.ndarray:
    """Hashes around few centres, so that all distances occur, equal ones included."""
    generator = np.random.default_rng(seed)
    centres = generator.integers(2, size=(count // 6 + 1, 64 * words))
    rows = centres[generator.integers(len(centres), size=count)]
    flips = generator.random(rows.shape) < generator.choice([0, 0.03, 0.1], size=(count, 1))
    return np.packbits(rows ^ flips, axis=1).view(np.uint64)


# ---------------------------------------------------------------- search


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("words", [1, 2, 4])
@pytest.mark.parametrize("most_bits", [0, 1, 3, 4, 7, 10, 14])
def test_no_pair_is_missed(most_bits: int, words: int, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_hashes, "_CANDIDATE_COST", 1e9 if blocks else 0)
    monkeypatch.setattr(near_hashes, "_CHUNK", 500)
    hashes = draw_hashes(most_bits, 150, words)
    apart = count_apart(hashes)
    leads = (apart == 0).argmax(axis=1)
    known = {
        (left, right): int(apart[left, right])
        for left, right in zip(*np.nonzero(np.triu(apart <= most_bits, 1)), strict=True)
        if leads[left] == left and leads[right] in (left, right)
    }
    rows, bits = find_duplicate_pairs(hashes, most_bits)
    assert dict(zip(map(tuple, rows.tolist()), bits.tolist(), strict=True)) == known
    assert len(rows) == len(known)
    assert (np.diff(bits) >= 0).all()


def test_the_words_can_be_counted_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = draw_hashes(1, 100, 2)
    expected = find_duplicate_pairs(hashes, 10)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(find_duplicate_pairs(hashes, 10)[0], expected[0])


def test_many_equal_hashes_give_one_pair_each() -> None:
    hashes = np.full((20_000, 1), 5, np.uint64)
    hashes[7] = 4
    rows, bits = find_duplicate_pairs(hashes, 2)
    assert len(rows) == 19_999
    assert (rows[:, 0] == 0).all()
    assert bits.tolist() == [0] * 19_998 + [1]
    assert (cluster_duplicates(20_000, rows) == 0).all()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_hashes_give_no_pair(count: int) -> None:
    rows, bits = find_duplicate_pairs(np.zeros((count, 1), np.uint64), 3)
    assert rows.shape == (0, 2) and bits.shape == (0,)


def test_other_hashes_are_refused() -> None:
    for hashes, most_bits in ((np.zeros(3, np.uint64), 1), (np.zeros((3, 1)), 1), (np.zeros((3, 1), np.uint64), -1)):
        with pytest.raises(DataError, match=r"hashes must be \(N, W\) uint64 and most_bits at least 0"):
            find_duplicate_pairs(hashes, most_bits)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("kind", COPIES)
def test_copies_have_close_hashes(kind: str) -> None:
    apart = [
        int(count_apart(np.stack([compute_hash(picture), compute_hash(COPIES[kind](picture))]))[0, 1])
        for picture in map(draw_picture, range(12))
    ]
    assert max(apart) <= MOST_BITS, apart


def test_other_pictures_have_distant_hashes() -> None:
    hashes = np.stack([compute_hash(draw_picture(seed)) for seed in range(40)])
    assert count_apart(hashes)[np.triu_indices(40, 1)].min() > MOST_BITS


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_others_are_not(kind: str, tmp_path: Path) -> None:
    pictures = {f"{seed}.png": draw_picture(seed) for seed in range(6)}
    copies = {f"copy{seed}.png": np.asarray(COPIES[kind](draw_picture(seed))) for seed in range(3)}
    fingerprints = compute_fingerprints(FileImages(write(tmp_path, pictures | copies)))
    report = find_duplicates(make_table(9), fingerprints)
    assert report.groups.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_an_imprint_makes_another_product(tmp_path: Path) -> None:
    package = draw_picture(3)
    imprint = package.copy()
    cv2.putText(imprint, "NEW", (120, 130), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 5)
    fingerprints = compute_fingerprints(FileImages(write(tmp_path, {"a.png": package, "b.png": imprint})))
    agreement = compare_pixels(fingerprints, np.array([[0, 1], [0, 0]]))
    assert agreement[0] == 0
    assert agreement[1] == pytest.approx(1)


def test_another_colour_makes_another_product(tmp_path: Path) -> None:
    tones = cv2.cvtColor((draw_picture(3) * 0.4 + 70).astype(np.uint8), cv2.COLOR_RGB2YCrCb)
    red, green = tones.copy(), tones.copy()
    red[..., 1], green[..., 1] = 150, 106
    pictures = {name: cv2.cvtColor(tone, cv2.COLOR_YCrCb2RGB) for name, tone in {"a.png": red, "b.png": green}.items()}
    fingerprints = compute_fingerprints(FileImages(write(tmp_path, pictures)))
    pair = np.array([[0, 1]])
    assert compare_pixels(fingerprints, pair)[0] == 0
    blind = fingerprints._replace(colours=np.zeros_like(fingerprints.colours))
    assert compare_pixels(blind, pair)[0] > duplicates.LEAST_AGREEMENT


def test_a_turned_view_is_no_copy(tmp_path: Path) -> None:
    package = draw_picture(4)
    turned = cv2.warpAffine(package, cv2.getRotationMatrix2D((150, 120), 3, 1.1), (300, 240))
    fingerprints = compute_fingerprints(FileImages(write(tmp_path, {"a.png": package, "b.png": turned})))
    assert compare_pixels(fingerprints, np.array([[0, 1]]))[0] == 0


def test_flat_pictures_are_compared_by_digest_alone(tmp_path: Path) -> None:
    flat = {f"{level}.png": np.full((50, 60, 3), level, np.uint8) for level in (0, 90, 255)}
    fingerprints = compute_fingerprints(FileImages([*write(tmp_path, flat), str(tmp_path / "absent.png")]))
    assert not fingerprints.structured.any()
    report = find_duplicates(make_table(4, digest=["x", "y", "x", None]), fingerprints)
    assert report.groups.tolist() == [0, 1, 0, 3]


# ---------------------------------------------------------------- clusters


def test_clusters_do_not_depend_on_the_order_of_pairs() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.integers(200, size=(120, 2))
    groups = cluster_duplicates(200, pairs)
    assert (groups[groups] == groups).all() and (groups <= np.arange(200)).all()
    for _ in range(3):
        shuffled = generator.permuted(generator.permutation(pairs), axis=1)
        np.testing.assert_array_equal(cluster_duplicates(200, shuffled), groups)


def test_clusters_follow_a_permutation_of_rows() -> None:
    generator = np.random.default_rng(1)
    pairs, places = generator.integers(80, size=(50, 2)), generator.permutation(80)
    groups, moved = cluster_duplicates(80, pairs), cluster_duplicates(80, places[pairs])
    np.testing.assert_array_equal(groups[:, None] == groups[None], moved[places][:, None] == moved[places][None])


def test_equal_digests_join_and_missing_ones_do_not() -> None:
    groups = cluster_duplicates(6, np.array([[4, 1]]), ["a", None, "b", None, "b", "a"])
    assert groups.tolist() == [0, 1, 1, 3, 1, 0]


def test_the_report_tells_of_splits_and_labels() -> None:
    nothing = Fingerprints(
        np.zeros((6, 1), np.uint64),
        np.zeros((6, 64, 64), np.uint8),
        np.zeros((6, 8, 8, 2), np.uint8),
        np.zeros(6, bool),
    )
    images = make_table(
        6,
        digest=["a", "b", "a", "b", "c", "a"],
        split=["val", "train", "train", "train", "test", "test"],
        label=[3, 4, 3, 5, None, None],
    )
    first, second = find_duplicates(images, nothing).clusters
    assert first == (("i0", "i2", "i5"), ("train", "val", "test"), (3,))
    assert first.crosses_splits and not first.labels_conflict
    assert second == (("i1", "i3"), ("train",), (4, 5))
    assert second.labels_conflict and not second.crosses_splits


def test_two_boxes_of_one_file_are_no_copies_and_one_box_twice_is() -> None:
    count = 4
    table = make_table(count, digest=["x"] * count, box=["0,0,5,5", "5,5,5,5", "0,0,5,5", None])
    flat = Fingerprints(
        np.zeros((count, 1), np.uint64),
        np.zeros((count, 64, 64), np.uint8),
        np.zeros((count, 8, 8, 2), np.uint8),
        np.zeros(count, bool),
    )
    assert find_duplicates(table, flat).groups.tolist() == [0, 1, 0, 3]


def test_pairs_that_a_network_finds_close_are_compared_whatever_their_hashes(tmp_path: Path) -> None:
    picture = draw_picture(3)
    paths = write(tmp_path, {"a.png": picture, "b.png": COPIES["crop"](picture), "c.png": draw_picture(4)})
    fingerprints = compute_fingerprints(FileImages(paths))
    blind = {"most_bits": 0}  # no pair by its hash
    assert find_duplicates(make_table(3), fingerprints, **blind).groups.tolist() == [0, 1, 2]
    pairs = np.array([[1, 0], [0, 2], [2, 1]])
    assert find_duplicates(make_table(3), fingerprints, candidates=pairs, **blind).groups.tolist() == [0, 0, 2]
