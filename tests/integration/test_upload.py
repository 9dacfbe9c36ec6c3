"""From a CSV to the leaderboard and back: Kaggle's own client against a stand-in of the service on loopback."""

import csv
import json
import os
import shutil
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from productrec.competitions.client import CompetitionClient, Unanswered
from productrec.competitions.ledger import load_ledger
from productrec.competitions.scores import wait_for_score
from productrec.competitions.upload import prepare_upload, send
from productrec.errors import Interrupted, UploadError
from productrec.recipe import build_recipe, save_recipe
from productrec.recognition.probabilities import write_probabilities
from tests.integration.kaggle_service import (
    KEY,
    SLUG,
    TOKEN,
    USER,
    answer_html,
    answer_status,
    drop_in_the_middle,
    hang,
    start_service,
)
from tests.integration.test_bad_input import check_line


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """A service and a client that stay, since starting Kaggle's client takes a second."""
    with start_service(tmp_path_factory.mktemp("home")) as service, CompetitionClient(SLUG) as client:
        yield service, client


@pytest.fixture
def service(lasting, place, monkeypatch):
    """The service as it began, and a token for it where the client looks."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    started = lasting[0]
    started.begin()
    shutil.rmtree(started.home / ".kaggle", ignore_errors=True)
    started.token.parent.mkdir()
    started.token.write_text(f"{TOKEN}\n")
    started.token.chmod(0o600)
    for name, value in started.build_environment().items():
        monkeypatch.setenv(name, value)
    return started


@pytest.fixture
def client(lasting, service):
    return lasting[1]


@pytest.fixture
def quick(monkeypatch):
    """Nobody waits between two questions."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def write_csv(path: Path, rows: int = 5, label: str = "1 2 3") -> Path:
    path.write_text("id,predicted\n" + "".join(f"{number}.jpg,{label}\n" for number in range(rows)))
    return path


def upload(productrec, path: Path, *more: object):
    return productrec("submit", path, "--competition", "imaterialist2019", "--upload", *more)


def read(place: Path) -> list[dict[str, str]]:
    with (place / "ledger.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_goes_to_the_leaderboard_and_its_score_comes_back(place, service, productrec, quick):
    run = place / "runs/first"
    run.mkdir(parents=True)
    recipe = build_recipe({"name": "first", "competition": "imaterialist2019", "data": {"source": "x"}})
    (run / "recipe.yaml").write_text(save_recipe(recipe))
    made = {"ensemble": {"a": 0.75, "b": 0.25}, "validation": {"metric": "top_3_error", "metric_value": 0.3}}
    with write_probabilities(
        run / "predictions/plain/test",
        ids=["a.jpg", "b.jpg"],
        class_ids=[0, 1, 2],
        names=["x", "y", "z"],
        fallback=[],
        made=made,
        inputs={},
        settings={},
    ) as values:
        values[:] = np.array([0.2, 0.3, 0.5])
    service.polls_pending, service.private = 3, "0.26000"
    done = productrec("submit", run, "--upload", "--message", "our first", "--wait", "10")
    assert done.code == 0, done.err
    assert "submissions left today: 5" in done.err and "0.25000" in done.out and "0.26000" in done.out
    assert service.blobs["blob-1"] == (place / "submissions/first.csv").read_bytes()
    (row,) = load_ledger(place / "submissions/ledger.csv")
    assert (row.status, row.reference, row.slug, row.message) == ("complete", "1001", SLUG, "our first")
    assert (row.validation_value, row.public_value, row.private_value) == (0.3, 0.25, 0.26)
    assert row.weights == "a=0.75 b=0.25" and row.source.endswith("predictions/plain/test")
    assert service.count("GetSubmission") == 4
    asked = [call for call in service.calls if call != "IntrospectToken"]
    assert asked.index("GetSubmissionLimits") == 0 < asked.index("ListSubmissions") < asked.index("PUT")
    shown = productrec("submit", "--history")
    assert shown.code == 0 and "our first" in shown.out and "0.30000" in shown.out, shown.err
    assert (place / "submissions/ledger.png").read_bytes().startswith(b"\x89PNG")
    assert "ledger.png" in shown.err


def test_a_finished_csv_is_checked_sent_once_and_again_by_force(place, service, productrec, quick):
    path = write_csv(place / "mine.csv")
    done = upload(productrec, path)
    assert done.code == 0, done.err
    check_line(upload(productrec, path), 9, "already", "SHA-256", "1001", "--force")
    copy = write_csv(place / "other.csv")  # the same bytes under another name
    check_line(upload(productrec, copy), 9, "the same SHA-256 as submission 1001")
    again = upload(productrec, path, "--force")
    assert again.code == 0 and "was sent" in again.err
    assert [(row["reference"], row["status"]) for row in read(place)] == [("1001", "complete"), ("1002", "complete")]
    # Other bytes of the same name and size are another submission, which the ledger can tell.
    write_csv(path, label="3 2 1")
    assert upload(productrec, path).code == 0
    (place / "ledger.csv").unlink()
    check_line(upload(productrec, path), 9, "same name and size")
    assert service.count("PUT") == 3


def test_a_csv_that_does_not_fit_is_never_sent(place, service, productrec):
    sample = write_csv(place / "sample.csv")
    check_line(upload(productrec, write_csv(place / "a.csv", rows=4), "--sample", sample), 5, "missing", "4.jpg")
    check_line(upload(productrec, write_csv(place / "b.csv", label="1 1 2")), 5, "must hold labels that differ")
    check_line(upload(productrec, place / "absent.csv"), 5, "absent.csv")
    check_line(productrec("submit", sample, "--upload"), 2, "--competition")
    check_line(productrec("submit", sample, "--competition", "plain", "--upload"), 9, "upload_slug", "--slug")
    assert service.calls == []


def test_a_dry_run_asks_everything_and_sends_nothing(place, service, productrec):
    path = write_csv(place / "mine.csv")
    done = upload(productrec, path, "--dry-run")
    assert done.code == 0 and "nothing was sent" in done.err and "submissions left today: 5" in done.err, done.err
    assert set(service.calls) == {"IntrospectToken", "GetSubmissionLimits", "GetCompetition", "ListSubmissions"}
    assert not (place / "ledger.csv").exists()
    service.add("mine.csv", path.stat().st_size)
    check_line(upload(productrec, path, "--dry-run"), 9, "same name and size")


def test_without_credentials_or_with_open_ones_nothing_is_asked(place, service, productrec):
    path = write_csv(place / "mine.csv")
    service.token.chmod(0o644)
    check_line(upload(productrec, path), 9, f"chmod 600 {service.token}")
    service.token.unlink()
    check_line(upload(productrec, path), 9, "found none", "~/.kaggle/access_token")
    assert service.calls == []


def test_options_that_need_others_are_refused(place, productrec):
    path = write_csv(place / "mine.csv")
    for more in (("--dry-run",), ("--force",), ("--slug", "x"), ("--message", "x"), ("--refresh",)):
        done = productrec("submit", path, *more)
        assert done.code == 2 and more[0] in done.err
    assert productrec("submit").code == 2
    assert productrec("submit", path, "--history", "--upload").code == 2


def test_an_older_key_works_as_well(place, service, client, monkeypatch):
    client.close()
    service.token.unlink()
    kept = service.token.with_name("kaggle.json")
    kept.write_text(json.dumps({"username": USER, "key": KEY}))
    assert client.get_limits().left == 5
    client.close()
    kept.write_text("{}")
    for _ in range(2):  # the client ends its process, or would
        with pytest.raises(UploadError, match="credentials must be valid"):
            client.get_limits()
    client.close()
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert client.get_limits().left == 5
    client.close()  # the next test has a token


def test_at_the_limit_nothing_is_sent_and_the_reset_is_told(place, service, client):
    path = write_csv(place / "mine.csv")
    now = datetime.now(UTC)
    service.add("old.csv", 1, date=now - timedelta(days=2))
    for number in range(4):
        service.add(f"{number}.csv", 1, date=now)
    assert prepare_upload(client, path).left == 1
    service.has_limits = False  # then they are counted
    assert prepare_upload(client, path).left == 1
    service.add("x.csv", 1, date=now)
    for service.has_limits in (False, True):
        with pytest.raises(UploadError, match=r"5 of 5 were made. It resets at 00:00 UTC, \d+ h \d+ min"):
            prepare_upload(client, path)
    service.faults["GetSubmissionLimits"] = [
        lambda handler: handler.send(200, {"numToday": 1, "numTotal": 50, "limitedByTotal": True})
    ]
    with pytest.raises(UploadError, match="all 50 that are allowed in all were made"):
        prepare_upload(client, path)


def test_competitions_that_take_no_csv_of_this_account_are_told(place, service, client):
    path = write_csv(place / "mine.csv")
    facts = service.competitions[SLUG]
    for name, value, message in [
        ("isKernelsSubmissionsOnly", True, "code competition"),
        ("submissionsDisabled", True, "it is closed"),
        ("userHasEntered", False, r"Accept the rules at kaggle.com/competitions/imaterialist-product-2019/rules"),
    ]:
        before = dict(facts)
        if name == "userHasEntered":
            service.faults["GetSubmissionLimits"] = [lambda handler: handler.send(200, {})]
        facts[name] = value
        with pytest.raises(UploadError, match=message):
            prepare_upload(client, path)
        facts.clear()
        facts.update(before)
    with CompetitionClient("no-such-race") as other, pytest.raises(UploadError, match="no-such-race: must be .*404"):
        prepare_upload(other, path)


@pytest.mark.parametrize(
    ("method", "fault", "message", "status"),
    [
        ("StartSubmissionUpload", answer_status(403, "You must accept the rules"), "403 .*accept the rules", "failed"),
        ("StartSubmissionUpload", answer_status(401), "credentials must be valid", "failed"),
        ("StartSubmissionUpload", answer_status(429), "too many requests", "failed"),
        ("PUT", answer_status(500), "must arrive whole", "failed"),
        ("CreateSubmission", answer_status(400, "Submission not allowed"), "400 .it said: Submission not", "failed"),
        ("CreateSubmission", answer_status(500), "failed, with status 500.*not known", "uploading"),
        ("CreateSubmission", answer_html, "must answer in JSON.*not known", "uploading"),
        ("CreateSubmission", drop_in_the_middle, "got no connection.*not known", "uploading"),
    ],
)
def test_a_refusal_is_told_and_stands_in_the_ledger(place, service, client, method, fault, message, status):
    prepared = prepare_upload(client, write_csv(place / "mine.csv"))
    service.faults[method] = [fault] * 12
    with pytest.raises(UploadError, match=message) as raised:
        send(client, prepared, competition="imaterialist2019", message="m")
    assert "\n" not in str(raised.value)
    assert [(row["status"], row["reference"]) for row in read(place)] == [(status, "")]
    service.faults.clear()
    reference = send(client, prepare_upload(client, prepared.path), competition="imaterialist2019", message="m")
    assert [(row["status"], row["reference"]) for row in read(place)] == [("pending", str(reference))]


def test_an_upload_that_is_dropped_once_arrives_whole(place, service, client):
    prepared = prepare_upload(client, write_csv(place / "mine.csv", rows=20_000))
    service.faults["PUT"] = [drop_in_the_middle]
    send(client, prepared, competition="imaterialist2019", message="m")
    assert service.blobs["blob-1"] == prepared.path.read_bytes() and service.count("PUT") == 2


def test_a_service_that_does_not_answer_ends_the_question_in_time(place, service):
    service.faults["GetCompetition"] = [hang]
    began = time.monotonic()
    with CompetitionClient(SLUG, seconds=2) as client:
        with pytest.raises(Unanswered, match="must answer within 2 s"):
            client.get_competition()
        assert time.monotonic() - began < 6
        assert client.get_competition().a_day == 5  # another process


def test_an_answer_that_got_lost_is_looked_for(place, service, client):
    """The submission was made, but its answer never came: it is found in the list, and not sent twice."""

    def make_and_break(handler):
        service.add("mine.csv", prepared.path.stat().st_size, status="PENDING", description="m")
        handler.send(500, {"code": 500, "message": "no"})

    prepared = prepare_upload(client, write_csv(place / "mine.csv"))
    service.faults["CreateSubmission"] = [make_and_break]
    assert send(client, prepared, competition="imaterialist2019", message="m") == 1001
    assert read(place)[0]["reference"] == "1001"


def test_a_submission_without_a_reference_is_found_in_the_list(place, service, client, quick):
    prepared = prepare_upload(client, write_csv(place / "mine.csv"))
    service.add("mine.csv", 1)
    quiet = {"message": "Successfully submitted"}
    service.faults["CreateSubmission"] = [lambda handler: handler.send(200, quiet)]
    assert send(client, prepared, competition="imaterialist2019", message="m") == 1001
    other = prepare_upload(client, write_csv(place / "other.csv", rows=7))
    service.faults["CreateSubmission"] = [lambda handler: handler.send(200, {"message": "We are tired"})]
    with pytest.raises(UploadError, match="We are tired.*lists none"):
        send(client, other, competition="imaterialist2019", message="m")


def test_waiting_endures_faults_and_tells_a_scoring_error(place, service, client, quick):
    prepared = prepare_upload(client, write_csv(place / "mine.csv"))
    reference = send(client, prepared, competition="imaterialist2019", message="m")
    service.polls_pending = 50
    assert wait_for_score(client, reference, ledger=place / "ledger.csv", minutes=0) is None
    assert wait_for_score(client, reference, ledger=place / "ledger.csv", minutes=1) is None
    assert 5 < service.count("GetSubmission") < 12  # ever more slowly
    service.polls_pending, service.scoring_error = 1, "Row 3 has no\nlabel"
    service.faults["GetSubmission"] = [answer_status(500), answer_html, answer_status(404)]
    with pytest.raises(UploadError, match="submission 1001 must be scored; the service could not: Row 3 has no label"):
        wait_for_score(client, reference, ledger=place / "ledger.csv", minutes=10)
    assert [(row["status"], row["error"]) for row in read(place)] == [("error", "Row 3 has no label")]


def test_waiting_ends_where_the_service_refuses(place, service, client, quick):
    prepared = prepare_upload(client, write_csv(place / "mine.csv"))
    reference = send(client, prepared, competition="imaterialist2019", message="m")
    service.faults["GetSubmission"] = [answer_status(403)]
    with pytest.raises(UploadError, match="403"):
        wait_for_score(client, reference, ledger=place / "ledger.csv", minutes=10)
    service.faults["GetSubmission"] = [answer_status(404)] * 30
    with pytest.raises(UploadError, match="must be one of yours"):
        wait_for_score(client, reference, ledger=place / "ledger.csv", minutes=10)
    assert read(place)[0]["status"] == "pending"


def interrupt_when(condition) -> None:
    def watch() -> None:
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_ctrl_c_leaves_the_upload_known(place, service, client, productrec):
    prepared = prepare_upload(client, write_csv(place / "mine.csv"))
    service.faults["PUT"] = [hang]
    interrupt_when(lambda: service.count("PUT"))
    with pytest.raises(Interrupted, match="asks the service first") as raised:
        send(client, prepared, competition="imaterialist2019", message="m")
    assert raised.value.exit_code == 130
    assert read(place)[0]["status"] == "uploading"
    reference = send(client, prepare_upload(client, prepared.path), competition="imaterialist2019", message="m")
    service.faults["GetSubmission"] = [hang]
    interrupt_when(lambda: service.count("GetSubmission"))
    with pytest.raises(Interrupted, match="--history .*ledger.csv --refresh"):
        wait_for_score(client, reference, ledger=place / "ledger.csv", minutes=5)
    assert [(row["status"], row["reference"]) for row in read(place)] == [("pending", str(reference))]
    assert client.get_limits().today == 1  # not the answer to what was asked before
    service.public = "0.125"
    for one in service.submissions:
        service.score(one)
    before = list(service.calls)
    still = productrec("submit", "--history", place)
    assert "--refresh` asks for the scores" in still.err and service.calls == before
    done = productrec("submit", "--history", place / "ledger.csv", "--refresh")
    assert done.code == 0 and "0.12500" in done.out, done.err
    assert read(place)[0]["public_value"] == "0.125"


def test_refreshing_finds_uploads_whose_answer_never_came(place, service, client, productrec):
    prepared = prepare_upload(client, write_csv(place / "mine.csv"))
    service.faults["CreateSubmission"] = [answer_status(500)]
    with pytest.raises(UploadError, match="not known"):
        send(client, prepared, competition="imaterialist2019", message="m")
    for number in range(5):
        service.add(f"{number}.csv", 1)
    service.add("mine.csv", 1, description="m", publicScore="0.5")
    for number in range(5):
        service.add(f"{number}.csv", 1)
    done = productrec("submit", "--history", place, "--refresh")
    assert done.code == 0 and [row["reference"] for row in read(place)] == ["1006"], done.err
    check_line(productrec("submit", "--history", place / "nowhere"), 4, "must be a ledger")


def test_no_text_and_no_file_holds_the_key_or_the_token(place, service, productrec, quick, monkeypatch):
    monkeypatch.setenv("VERBOSE", "true")  # with which the client prints its headers
    path = write_csv(place / "mine.csv")
    echo = f"you sent {TOKEN} and {KEY}"
    said = ""
    for method, fault in [
        ("IntrospectToken", answer_status(500, echo)),
        ("GetCompetition", answer_status(403, "x" * 290 + echo)),
        ("CreateSubmission", answer_status(418, echo)),
        ("CreateSubmission", lambda handler: handler.send(200, {"message": echo})),
    ]:
        service.faults = {method: [fault] * 3}
        done = upload(productrec, path)
        assert done.code == 9, done.err
        said += done.out + done.err
    service.faults, service.scoring_error = {}, echo
    done = upload(productrec, path)
    assert done.code == 9 and "could not: you sent" in done.err
    service.token.write_text("wrong-sentinel-token")
    refused = upload(productrec, path, "--force")
    service.token.unlink()
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    monkeypatch.setenv("KAGGLE_KEY", "wrong-sentinel-key")
    other = upload(productrec, path, "--force")
    assert (refused.code, other.code) == (9, 9) and "credentials must be valid" in refused.err + other.err
    said += done.out + done.err + refused.out + refused.err + other.out + other.err
    files = [one for one in place.rglob("*") if one.is_file()]
    kept = "".join(one.read_text(errors="replace") for one in files)
    assert place / "ledger.csv" in files
    for secret in (TOKEN, "wrong-sentinel", "blob-1"):
        assert secret not in said and secret not in kept
