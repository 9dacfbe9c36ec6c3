"""Which file each id of a sample submission means."""

import pytest

from productrec.assembly.sample_files import match_files
from productrec.errors import DataError

FILES = {name: f"/photos/{name}" for name in ("a.jpg", "b.JPEG", "day/c.png", "day/d.v2.jpg", "notes.txt")}


@pytest.mark.parametrize(
    ("image_id", "file"),
    [
        ("a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("b", "b.JPEG"),
        ("day/c.png", "day/c.png"),
        ("day/c", "day/c.png"),
        ("c.png", "day/c.png"),
        ("c", "day/c.png"),
        ("d.v2", "day/d.v2.jpg"),
        ("d", None),
        ("notes", None),
        ("a.png", None),
    ],
)
def test_an_id_is_a_path_or_a_name_with_its_ending_or_without(image_id: str, file: str | None) -> None:
    assert match_files([image_id], FILES) == ({} if file is None else {image_id: f"/photos/{file}"})


def test_the_path_goes_before_the_name() -> None:
    files = {"a.jpg": "1", "day/a.jpg": "2"}
    assert match_files(["a.jpg", "day/a.jpg"], files) == {"a.jpg": "1", "day/a.jpg": "2"}
    assert match_files(["a"], files) == {"a": "1"}


def test_an_id_of_several_files_is_refused_with_their_names() -> None:
    with pytest.raises(DataError, match=r"got a for 2 \(a.jpg, a.png\)"):
        match_files(["a"], {"a.jpg": "1", "a.png": "2"})
    with pytest.raises(DataError, match="1 more ids like it"):
        match_files(["a.jpg", "b.jpg"], {f"{day}/{name}.jpg": "" for day in ("x", "y") for name in "ab"})
