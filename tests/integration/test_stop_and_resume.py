"""A training that is killed or interrupted goes on and ends as if nothing had happened."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from productrec.artifacts import compute_file_digest
from tests.integration.conftest import TINY, write_recipe
from tests.warm import WarmProcess, start_command, wait_for

SETTINGS = [*TINY, "train.epochs=3", "train.workers=1", "train.ema_decay=0.9"]


def start(place: Path, *arguments: str) -> WarmProcess:
    return start_command(["train", place / "tiny.yaml", *SETTINGS, *arguments], cwd=place)


def start_launcher(place: Path, *arguments: str) -> subprocess.Popen:
    """A command that starts processes of its own."""
    command = [sys.executable, "-m", "productrec", "train", str(place / "tiny.yaml"), *SETTINGS, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("how", ["kill", "ctrl-c", "terminate"])
def test_a_stopped_training_resumes_to_the_same_weights(place, drawn, productrec, how):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    whole = productrec("train", recipe, *SETTINGS, "name=whole", "data.table=data/tiny")
    assert whole.code == 0, whole.err

    process = start(place)
    wait_for(place / "runs/tiny/checkpoints/last/manifest.json", process)
    # Ctrl-C and a notebook's end reach the loader processes too.
    number = {"kill": signal.SIGKILL, "ctrl-c": signal.SIGINT, "terminate": signal.SIGTERM}[how]
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the training was over before the signal came")
    if how == "kill":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == {"ctrl-c": 130, "terminate": 143}[how], error
        assert [line for line in error.splitlines() if line.startswith("error: stopped")], error
        assert "Traceback" not in error

    refused = productrec("train", recipe, *SETTINGS)
    assert refused.code == 4
    assert "--resume" in refused.err
    resumed = productrec("train", recipe, *SETTINGS, "--resume")
    assert resumed.code == 0, resumed.err
    digests = [
        compute_file_digest(place / f"runs/{run}/checkpoints/last/weights.safetensors") for run in ("whole", "tiny")
    ]
    assert digests[0] == digests[1]
    lines = (place / "runs/tiny/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]


MINING = ["train.hard_classes=0.5", "train.mine_every=2", "loss.memory.rows=32"]
MERGING = [f"loss.metric.merge_{name}" for name in ("every_epochs=1", "distance=2", "tolerance=1.0")]


@pytest.mark.parametrize(
    "own",
    [
        [*MINING, "loss.memory.start_step=2", "loss.memory.momentum=0.9"],
        ["loss.metric=soft_triple", *MERGING, "loss.metric.centres_per_class=2"],
    ],
    ids=["mining and momentum", "merging"],
)
def test_what_an_epoch_begins_with_outlives_a_stop(place, drawn, productrec, own):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    settings = [*TINY, "train.epochs=3", *own]
    whole = productrec("train", recipe, *settings, "name=whole", "data.table=data/tiny")
    assert whole.code == 0, whole.err
    process = start_command(["train", recipe, *settings], cwd=place)
    wait_for(place / "runs/tiny/checkpoints/last/manifest.json", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    resumed = productrec("train", recipe, *settings, "--resume")
    assert resumed.code == 0, resumed.err
    names = ["weights.safetensors"] + ["centres.safetensors"] * ("loss.metric=soft_triple" in own)
    for name in names:
        digests = [compute_file_digest(place / f"runs/{run}/checkpoints/last/{name}") for run in ("whole", "tiny")]
        assert digests[0] == digests[1], name
    if len(names) > 1:
        lines = [json.loads(line) for line in (place / "runs/tiny/metrics.jsonl").read_text().splitlines()]
        assert ["centres_per_class" in line for line in lines] == [False, True, True]
        assert lines[-1]["centres_per_class"] == 1


def test_a_resume_with_other_settings_is_refused_by_name(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    process = start(place)
    wait_for(place / "runs/tiny/checkpoints/last/manifest.json", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    outcome = productrec("train", recipe, *SETTINGS, "train.learning_rate=0.5", "--resume")
    assert outcome.code == 4
    assert "train.learning_rate" in outcome.err


def test_a_broken_image_of_one_process_ends_both_at_once(place, drawn, productrec):
    shutil.copytree(drawn, place / "source")
    recipe = write_recipe(place, place / "source")
    assert productrec("ingest", "source", "--out", "data/tiny").code == 0
    broken = sorted((place / "source").rglob("*.jpg"))
    train = {image["id"] for image in json.loads((place / "source/train.json").read_text())["images"]}
    victim = next(path for path in broken if path.name in train)
    victim.write_bytes(victim.read_bytes()[:40])
    started = time.monotonic()
    command = [sys.executable, "-m", "productrec", "train", str(recipe), *TINY]
    command += ["train.timeout_minutes=5", "--nproc", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 3, done.stderr
    assert victim.name in done.stderr and "another process met an image that cannot be read" in done.stderr
    assert time.monotonic() - started < 120


@pytest.mark.exhaustive
def test_two_processes_save_at_sigterm_and_one_that_is_killed_is_replaced(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    for name, action in (("whole", None), ("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
        more = ["--nproc", "2", "--max-restarts", "1"] if name == "killed" else ["--nproc", "2"]
        process = start_launcher(place, f"name={name}", "data.table=data/tiny", *more)
        if action is not None:
            wait_for(place / f"runs/{name}/checkpoints/last/manifest.json", process)
            ranks = list_ranks(process)
            assert len(ranks) == 2
            os.kill(process.pid if action == signal.SIGTERM else ranks[1], action)
        said = process.communicate(timeout=300)[1]
        assert process.returncode == (143 if name == "stopped" else 0), said
        if name == "stopped":
            assert "the state is saved" in said
            again = start_launcher(place, "name=stopped", "data.table=data/tiny", "--nproc", "2", "--resume")
            again.communicate(timeout=300)
            assert again.returncode == 0
        if name == "killed":
            assert "SIGKILL" in said
            assert "resuming" in said
    digests = {
        compute_file_digest(place / f"runs/{name}/checkpoints/last/weights.safetensors")
        for name in ("whole", "stopped", "killed")
    }
    assert len(digests) == 1
    assert recipe.exists()


def list_ranks(launcher: subprocess.Popen) -> list[int]:
    """Processes that torchrun started, in the order of ranks, without their loader processes."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {}
    for pid, parent in parents.items():
        if parent == launcher.pid:
            with contextlib.suppress(OSError):
                place = dict(
                    one.partition("=")[::2] for one in (Path("/proc") / str(pid) / "environ").read_text().split("\0")
                )
                if "RANK" in place:
                    found[int(place["RANK"])] = pid
    return [found[rank] for rank in sorted(found)]


def test_two_processes_train_one_model_and_a_fault_keeps_its_line_and_code(finished, productrec):
    def train(*settings):
        command = [sys.executable, "-m", "productrec", "train", "tiny.yaml", *TINY, "data.table=data/tiny", *settings]
        return subprocess.run([*command, "--nproc", "2"], capture_output=True, text=True, timeout=240, check=False)

    wrong = train("name=odd", "train.sampler=shuffle", "train.batch_size=15")
    assert wrong.returncode == 2, wrong.stderr
    assert wrong.stderr.splitlines() == [  # once, though both refuse it
        "error: sampler: world_size must divide batch_size; got 2 and 15. Use a batch_size of 14."
    ]
    done = train("name=two")
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert (finished / "runs/two/checkpoints/best/weights.safetensors").exists()
    assert len((finished / "runs/two/metrics.jsonl").read_text().splitlines()) == 2

    command = ["predict", "runs/two", "--views", "zoom", "predict.batch_size=4"]
    together = subprocess.run(
        [sys.executable, "-m", "productrec", *command, "--nproc", "2"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert together.returncode == 0, together.stderr
    assert together.stderr.count("class probabilities") == 1
    # One process searches and votes; what two share is embedding, and a tie of neighbours may turn on its rounding.
    seen = {path: np.load(path) for path in (finished / "runs/two/embeddings").rglob("*.npy")}
    assert {path.name for path in seen} >= {"embeddings.npy", "logits.npy"}
    for name in ("embeddings", "neighbours", "predictions"):
        shutil.rmtree(finished / "runs/two" / name)
    assert productrec(*command).code == 0
    for path, values in seen.items():
        np.testing.assert_allclose(values, np.load(path), atol=1e-4, err_msg=str(path))
