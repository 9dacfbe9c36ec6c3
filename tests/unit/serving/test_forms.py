"""What a request asks for is read exactly, and every form that is none is refused in words."""

import random

import pytest

from productrec.serving.forms import File, Wish, read_files, read_wish
from productrec.serving.limits import RefusedError

TYPE = "multipart/form-data; boundary=xyz"


def part(data, name="a.jpg"):
    head = f'--xyz\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + data + b"\r\n"


def test_parameters():
    assert read_wish({}) == Wish(3, None, False)
    assert read_wish({"nearest": "0", "box": "1,2,3,4.5", "unknown": "Yes"}) == Wish(0, "1,2,3,4.5", True)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"nearest": "-1"}, "nearest: must be a number from 0 to 50"),
        ({"nearest": "51"}, "nearest: must be"),
        ({"nearest": "9" * 5000}, "nearest: must be"),
        ({"nearest": "٣"}, "nearest: must be"),
        ({"box": "1,2,3"}, "box: must be x,y,width,height"),
        ({"box": "1e308,0,1e308,5"}, "box: must be"),
        ({"box": "nan,0,1,1"}, "box: must be"),
        ({"box": "0" * 300 + ",0,1,1"}, "box: must be"),
        ({"unknown": "perhaps"}, "unknown: must be yes or no"),
        ({"neerest": "1"}, "no such parameter"),
    ],
)
def test_wrong_parameters(query, words):
    with pytest.raises(RefusedError, match=words) as refused:
        read_wish(query)
    assert refused.value.status == 400 and len(refused.value.reason) < 200


def test_files_of_a_form_keep_every_byte():
    contents = [b"", b"\r\n", b"-xyz", b"\r\n--xz\r\n\r\n", bytes(range(256)) * 3]
    body = b"before\r\n" + b"".join(part(data, f"{n}.jpg") for n, data in enumerate(contents)) + b"--xyz--\r\nafter"
    assert read_files(TYPE, body, 5) == [File(f"{n}.jpg", data) for n, data in enumerate(contents)]
    assert read_files('multipart/form-data; boundary="xyz"', body, 5)[4].data == contents[4]


def test_a_body_that_is_no_form_is_one_photo():
    assert read_files("image/jpeg", b"--xyz--", 5) == [File("photo 1", b"--xyz--")]


def test_a_part_has_a_short_head():
    endless = b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n' + b"A: b\r\n" * 400_000
    with pytest.raises(RefusedError, match="part 1 .* must be a file"):
        read_files(TYPE, endless + b"\r\nphoto\r\n--xyz--", 5)


def test_names():
    assert read_files(TYPE, part(b"x", "kôla 可乐.jpg") + b"--xyz--", 5)[0].name == "kôla 可乐.jpg"
    assert read_files(TYPE, part(b"x", "") + b"--xyz--", 5)[0].name == "photo 1"
    assert len(read_files(TYPE, part(b"x", "n" * 5000) + b"--xyz--", 5)[0].name) == 200


@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("multipart/form-data", part(b"x"), "must name a boundary"),
        ("multipart/form-data; boundary=" + "x" * 71, part(b"x"), "must name a boundary"),
        (TYPE, b"", "must hold the boundary"),
        (TYPE, b"--xyz--\r\n", "at least one photo"),
        (TYPE, part(b"x"), "it is cut off"),
        (TYPE, part(b"x") * 6 + b"--xyz--", "at most 5 photos"),
        (TYPE, part(b"x") * 100_000 + b"--xyz--", "at most 5 photos"),
        (TYPE, b"--xyz\r\nno head\r\n--xyz--", "part 1 .* must be a file"),
        (TYPE, b'--xyz\r\nContent-Disposition: form-data; name="box"\r\n\r\n1\r\n--xyz--', "'box'.* must be a file"),
    ],
)
def test_forms_that_are_none(content_type, body, words):
    with pytest.raises(RefusedError, match=words) as refused:
        read_files(content_type, body, 5)
    assert refused.value.status == 400


def test_damaged_forms_are_read_or_refused():
    """Bytes of a good form exchanged, dropped and doubled: nothing but files or a refusal."""
    good = (part(b"one") + part(b"two", "ü.png") + b"--xyz--\r\n") * 1
    draw = random.Random(0)
    refused = 0
    for _ in range(2000):
        body = bytearray(good)
        for _ in range(draw.randint(1, 8)):
            place = draw.randrange(len(body))
            body[place : place + draw.randint(0, 3)] = draw.choice([b"", b"\r\n", b"=?x?q?=ff?=", b"\x00", b'"', b"--"])
        try:
            assert all(isinstance(file, File) for file in read_files(TYPE, bytes(body), 5))
        except RefusedError:
            refused += 1
    assert 200 < refused < 2000
