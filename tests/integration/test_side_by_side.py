"""Members that train side by side are those that train in turn; a fault of one, or a stop, ends all politely.

Their processes are warm here; those of the demo's test are started as a user's are.
"""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from productrec.artifacts import compute_file_digest
from tests.integration.conftest import TINY, write_recipe
from tests.warm import get_warm_context

MEMBERS = {"a": {"seed": 1}, "b": {"loss": {"metric": "soft_triple"}}}
SETTINGS = [*TINY, "train.epochs=3", "train.workers=1"]

LATE = """
import os, pathlib, signal, time

class Late:
    def __init__(self, how):
        self.how = how

    def weigh(self, positives, negatives):
        while not pathlib.Path("runs/tiny/a/checkpoints/last/manifest.json").exists():
            time.sleep(0.02)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return [][3]
"""


@pytest.fixture(autouse=True)
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    context = get_warm_context()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


def stop_once_there_are(paths: list[Path]) -> threading.Thread:
    """Send this process a SIGTERM as soon as all of these files are there."""

    def watch() -> None:
        deadline = time.monotonic() + 100
        while not all(path.exists() for path in paths) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def list_digests(run: str) -> dict[str, str]:
    folders = {name: Path("runs") / run / name / "checkpoints" for name in MEMBERS}
    return {
        f"{name} {checkpoint}": compute_file_digest(folder / checkpoint / "weights.safetensors")
        for name, folder in folders.items()
        for checkpoint in ("best", "last")
    }


def test_what_is_trained_side_by_side_is_what_is_trained_in_turn_also_after_a_stop(place, drawn, productrec):
    recipe = write_recipe(place, drawn, members=MEMBERS)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    turn = productrec("train", recipe, *SETTINGS, "name=turn", "data.table=data/tiny", "--jobs", "1")
    assert turn.code == 0, turn.err
    assert turn.err.splitlines()[0].startswith("training a: ")  # in this process, where names would tell nothing

    beside = productrec("train", recipe, *SETTINGS, "name=beside", "data.table=data/tiny", "--jobs", "2")
    assert beside.code == 0, beside.err
    assert list_digests("beside") == list_digests("turn")
    started = [json.loads((place / f"runs/{run}/a/started.json").read_text()) for run in ("turn", "beside")]
    assert started[0] == started[1]  # the number of jobs decides nothing
    *said, first, second, _ = beside.err.splitlines()
    assert all(re.match("[ab]: ", line) for line in said), beside.err
    assert {line[:10] for line in said} >= {"a: trainin", "b: trainin", "a: epoch 3", "b: epoch 3"}
    assert first.startswith("run runs/beside/a finished in") and second.startswith("run runs/beside/b finished in")
    assert (place / "runs/beside/recipe.yaml").exists()
    assert not re.search("^[ab]: ", (place / "runs/beside/a/train.log").read_text(), re.MULTILINE)

    earlier = signal.signal(signal.SIGTERM, lambda number, frame: None)  # where it comes too late for the training
    try:
        watching = stop_once_there_are([place / f"runs/tiny/{name}/checkpoints/last/manifest.json" for name in MEMBERS])
        stopped = productrec("train", recipe, *SETTINGS, "--jobs", "2")
        watching.join()
    finally:
        signal.signal(signal.SIGTERM, earlier)
    if stopped.code == 0:
        pytest.skip("the training was over before the signal came")
    assert stopped.code == 143, stopped.err
    assert "the state is saved" in stopped.err and "Traceback" not in stopped.err
    assert re.fullmatch("error: stopped while training [ab, ]+; what each .* saved.", stopped.err.splitlines()[-1])
    refused = productrec("train", recipe, *SETTINGS, "--jobs", "2")
    assert refused.code == 4 and "--resume" in refused.err
    resumed = productrec("train", recipe, *SETTINGS, "--jobs", "2", "--resume")
    assert resumed.code == 0, resumed.err
    assert list_digests("tiny") == list_digests("turn")


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("raise", 7, r"error: training: late:Late failed at .*late\.py:13 \(IndexError: list index out of range\)\."),
        (
            "kill",
            8,
            r"error: training: the process that trained b was ended \(SIGKILL\); .*--jobs 1.*--resume goes on\.",
        ),
    ],
)
def test_a_member_that_fails_stops_the_others_and_has_the_last_word(
    place, drawn, productrec, monkeypatch, how, code, message
):
    (place / "late.py").write_text(LATE)
    monkeypatch.syspath_prepend(str(place))
    own = {"loss": {"metric": {"name": "late:Late", "how": how}}}
    recipe = write_recipe(place, drawn, members={"a": {"train": {"epochs": 1000}}, "b": own, "c": {}})
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    failed = productrec("train", recipe, *SETTINGS, "train.workers=0", "--jobs", "2", "--allow-code")
    assert failed.code == code, failed.err
    assert "warning: b failed; stopping a, which can be resumed" in failed.err.splitlines()
    assert re.search(r"^a: stopped .*; the state is saved\.$", failed.err, re.MULTILINE)
    assert re.fullmatch(message, failed.err.splitlines()[-1]), failed.err
    assert not (place / "runs/tiny/c/started.json").exists()  # it was still waiting


def test_processes_that_share_a_model_train_one_at_a_time(place, drawn, productrec, monkeypatch):
    recipe = write_recipe(place, drawn, members=MEMBERS)
    refused = productrec("train", recipe, *TINY, "--nproc", "2", "--jobs", "2")
    assert refused.code == 2 and "--jobs: must be 1 with --nproc" in refused.err
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = productrec("train", recipe, *TINY, "--jobs", "2")
    assert (
        refused.code == 2 and "jobs: must be 1 where several processes train one model together; got 2" in refused.err
    )
