"""Serve: a trained run asked over HTTP by the command as a user types it, beside what ``query`` says."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

import productrec as library
from tests.warm import start_command

pytestmark = pytest.mark.xdist_group("serve")  # one server for all of them


@pytest.fixture(scope="module")
def server(trained):
    """The process of a server, and its port."""
    command = [sys.executable, "-m", "productrec", "serve", str(trained / "runs/tiny"), "--port", "0", "device=cpu"]
    command += ["--max-bytes", "3000000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=trained) as process:
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"listening at http://127\.0\.0\.1:(\d+)", line):
                    yield process, int(found[1])
                    break
            else:
                pytest.fail("".join(lines))
        finally:
            process.kill()


def ask(port, body, content_type="image/jpeg", *, path="/recognise"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {} if body is None else {"Content-Type": content_type}
        connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ask_form(port, files, **given):
    parts = [
        b'--bound\r\nContent-Disposition: form-data; name="photo"; filename="%b"\r\n\r\n%b\r\n' % (name.encode(), data)
        for name, data in files.items()
    ]
    return ask(port, b"".join(parts) + b"--bound--\r\n", "multipart/form-data; boundary=bound", **given)


def check_same(answer, other):
    """Equal to within what the place in a batch changes."""
    assert answer["most_probable"] == other["most_probable"] and answer["is_known"] == other["is_known"]
    assert answer["confidence"] == pytest.approx(other["confidence"], abs=2e-4)
    assert [near["image"] for near in answer["nearest"]] == [near["image"] for near in other["nearest"]]


@pytest.fixture(scope="module")
def asked(trained, drawn):
    """Photos by name, and what a loaded run says of them."""
    files = sorted((drawn / "images").iterdir())[:24]
    answers = library.load(trained / "runs/tiny").recognise(files, nearest=2)
    return {file.name: file.read_bytes() for file in files}, [answer.describe() for answer in answers]


def test_health(server):
    status, told = ask(server[1], None, path="/health")
    assert status == 200 and told["status"] == "ok" and told["run"].endswith("runs/tiny")
    assert told["classes"] == 6 and re.fullmatch("[0-9a-f]{64}", told["weights"]) and "as fitted" in told["way"]


def test_one_photo_and_a_part_of_it(server, asked):
    photos, answers = asked
    data = next(iter(photos.values()))
    status, told = ask(server[1], data, path="/recognise?nearest=2")
    assert status == 200
    check_same(told["answers"][0], answers[0])
    inner = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = inner.shape[:2]
    scene = np.full((height + 20, width + 30, 3), 255, np.uint8)
    scene[15 : 15 + height, 10 : 10 + width] = inner
    png = cv2.imencode(".png", scene)[1].tobytes()
    _, part = ask(server[1], png, "image/png", path=f"/recognise?nearest=2&box=10,15,{width},{height}")
    check_same(part["answers"][0], answers[0])
    _, doubted = ask(server[1], data, path="/recognise?unknown=yes")
    assert (doubted["answers"][0]["class"] == "unknown") == (answers[0]["is_known"] is False)


def test_of_several_photos_the_good_ones_are_answered(server, asked):
    photos, answers = asked
    names = list(photos)[:3]
    files = {names[0]: photos[names[0]], "brötchen.jpg": b"no photo", names[2]: photos[names[2]]}
    status, told = ask_form(server[1], files, path="/recognise?nearest=2")
    first, bad, last = told["answers"]
    assert status == 200 and bad["photo"] == "brötchen.jpg" and "is not a picture" in bad["reason"]
    assert (first["photo"], last["photo"]) == (names[0], names[2])
    check_same(first, answers[0])
    check_same(last, answers[2])
    status, told = ask(server[1], b"no photo", "application/octet-stream")
    assert status == 422 and "is not a picture" in told["answers"][0]["reason"]
    assert ask(server[1], bytes(3_000_001))[0] == 413


def test_a_small_file_that_promises_many_pixels_is_not_decoded(server):
    huge = io.BytesIO()
    Image.new("1", (8000, 7000)).save(huge, "PNG")
    status, told = ask(server[1], huge.getvalue(), "image/png")
    assert status == 422 and "must have 1 to 50,000,000 pixels" in told["answers"][0]["reason"]


def test_many_at_once_get_the_answers_of_a_loaded_run(server, asked):
    photos, answers = asked
    seen = {}

    def work(name):
        seen[name] = ask_form(server[1], {name: photos[name]}, path="/recognise?nearest=2")

    threads = [threading.Thread(target=work, args=(name,)) for name in photos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, answer in zip(photos, answers, strict=True):
        status, told = seen[name]
        assert status == 200
        check_same(told["answers"][0], answer)


def test_hostile_pictures_get_a_reason_and_the_server_stays(server, asked, tmp_path, bad_images):
    assert bad_images.main([str(tmp_path)]) == 0
    files = json.loads((tmp_path / "manifest.json").read_text())["files"]
    counts = {"ok": 0, "reject": 0}
    for name, entry in files.items():
        data = (tmp_path / name).read_bytes()
        if len(data) > 3_000_000:
            continue
        status, told = ask(server[1], data, "application/octet-stream")
        if entry["expect"] in counts:
            assert status == {"ok": 200, "reject": 422}[entry["expect"]], (name, told)
            counts[entry["expect"]] += 1
        assert status in (200, 422) and "Traceback" not in json.dumps(told), (name, told)
    assert min(counts.values()) > 20
    photos, _ = asked
    assert ask(server[1], next(iter(photos.values())))[0] == 200


def test_other_addresses_are_refused_unless_wanted(trained, productrec):
    refused = productrec("serve", trained / "runs/tiny", "--host", "0.0.0.0")
    assert refused.code == 2 and refused.err.startswith("error: --host: must be this machine's own address")
    assert len(refused.err.splitlines()) == 1 and "--allow-remote" in refused.err
    nothing = productrec("serve", trained / "nowhere")
    assert nothing.code != 0 and "Traceback" not in nothing.err


def test_a_grown_product_is_found_between_two_requests(finished, productrec):
    """In this process, since its index is another one than the server's."""
    run = library.load("runs/tiny")
    stripes = np.tile(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8).repeat(40, axis=1), (20, 1, 1))
    data = cv2.imencode(".png", stripes)[1].tobytes()
    assert run.recognise_prepared([run.prepare(data, name="a")])[0].name != "striped thing"
    (finished / "new/striped thing").mkdir(parents=True)
    (finished / "new/striped thing/one.png").write_bytes(data)
    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    assert run.recognise_prepared([run.prepare(data, name="a")])[0].name == "striped thing"


def test_products_that_another_process_adds_and_takes_out_are_seen_by_the_next_request(finished):
    """The server goes on all the while."""
    stripes = np.tile(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8).repeat(40, axis=1), (20, 1, 1))
    data = cv2.imencode(".png", stripes)[1].tobytes()
    (finished / "new/striped thing").mkdir(parents=True)
    (finished / "new/striped thing/one.png").write_bytes(data)
    serving = start_command(["serve", "runs/tiny", "device=cpu", "--port", "0"], cwd=finished)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"listening at \S+:(\d+)", serving.read_err())):
            assert serving.poll() is None and time.monotonic() < deadline, serving.read_err()
            time.sleep(0.05)
        port = int(found[1])

        def name() -> tuple[str, set[str]]:
            status, told = ask(port, data)
            assert status == 200
            return told["answers"][0]["class"], {near["class"] for near in told["answers"][0]["nearest"]}

        before = name()
        assert "striped thing" not in {before[0], *before[1]} and ask(port, None, path="/health")[1]["classes"] == 6
        for command, is_there in (
            (["grow", "runs/tiny", "new"], True),
            (["remove", "runs/tiny", "striped thing"], False),
        ):
            changing = start_command(["index", *command], cwd=finished)
            assert changing.wait(120) == 0, changing.read_err()
            now = name()
            assert ("striped thing" in now[1]) == is_there and (now[0] == "striped thing") == is_there
            assert ask(port, None, path="/health")[1]["classes"] == 6 + is_there
        assert now == before
    finally:
        os.kill(serving.pid, signal.SIGTERM)
        assert serving.wait(60) == 143


def test_sigterm_ends_it(server):
    """The last of them: no server is there after it."""
    process, port = server
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.wait(30) == 143
    assert time.monotonic() - started < 20
    said = process.stderr.read()
    assert re.search(r"error: stopped; \d+ photos were answered\.", said) and "Traceback" not in said
    with pytest.raises(OSError, match="."):
        ask(port, None, path="/health")
