"""Checkpoints on a full disk, with other people's files in them, and under any umask."""

import io
import json
import os
import pickle
import resource
import stat
from contextlib import contextmanager

import pytest
import torch

from productrec.artifacts import compute_file_digest
from productrec.data.samplers import ORDER
from productrec.errors import ArtifactError, StorageError
from productrec.training.run.checkpoint import load_checkpoint, save_checkpoint
from productrec.training.run.resume import resume_training
from productrec.training.run.run_folder import RunLog, check_run_folder, load_epochs
from tests.unit.training.small_training import build


@contextmanager
def limit_files(most):
    """No file may be larger: the system refuses as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save(folder, network, state=None, centres=None):
    save_checkpoint(
        folder,
        network,
        class_ids=[3, 5],
        class_keys=["3", "5"],
        class_names=["cola", "tea"],
        recipe={},
        table_fingerprint="t",
        figures={},
        state=state,
        centres=None if centres is None else {"centres": centres},
    )


@pytest.mark.parametrize("what", ["weights", "centres", "state"])
def test_a_full_disk_is_told_and_the_earlier_checkpoint_stays(tmp_path, what):
    folder = tmp_path / "last"
    network = torch.nn.Linear(4, 4)
    save(folder, network, {"step": torch.tensor(1)})
    large = torch.nn.Linear(500, 500) if what == "weights" else network
    centres = torch.zeros(500, 1, 500) if what == "centres" else None
    state = {"step": torch.zeros(500, 500) if what == "state" else torch.tensor(2)}
    with limit_files(200_000), pytest.raises(StorageError, match=r"last: no space left while writing.*Free some disk"):
        save(folder, large, state, centres)
    assert load_checkpoint(folder).load_state()["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    save(folder, large, state, centres)
    assert load_checkpoint(folder).load_state()["step"].sum() in (0, 2)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_all_its_files_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        save(tmp_path / "last", torch.nn.Linear(4, 4), {"step": 1}, torch.zeros(2, 1, 4))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "last").iterdir()}
    assert {"weights.safetensors", "centres.safetensors", "state.pt"} < modes.keys()
    assert set(modes.values()) == {0o666 & ~umask}, modes


class Command:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


def exchange(folder, name, data):
    """Put another file into a checkpoint, with a manifest that agrees."""
    path = folder / name
    path.write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": compute_file_digest(path), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_zip(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: pickle.dumps(Command()),
        lambda: write_zip({"random": Command()}),
        lambda: write_zip([1, 2]),
        lambda: b"not a state",
        lambda: b"",
    ],
)
def test_a_crafted_state_is_refused_in_one_line_and_never_run(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints" / "last"
    save(folder, torch.nn.Linear(4, 4), {"step": 1})
    exchange(folder, "state.pt", make())
    with pytest.raises(ArtifactError, match=r"state\.pt: must hold") as caught:
        load_checkpoint(folder).load_state()
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("state", [{"step": 1}, {"random": [{"tally": {}}], "scaler": {}, "recognizer": {"x": 1}}])
def test_a_state_of_something_else_is_refused(tmp_path, state):
    trainer = build()
    save(tmp_path / "checkpoints" / "last", trainer.recognizer, {"order": ORDER, **state})
    with pytest.raises(ArtifactError, match=r"the state is not one of this training"):
        resume_training(trainer, None, tmp_path, [3, 5])


def test_other_files_that_were_changed_are_refused(tmp_path):
    network = torch.nn.Linear(4, 4)
    save(tmp_path / "last", network, centres=torch.zeros(2, 1, 4))
    for name in ("weights.safetensors", "centres.safetensors"):
        exchange(tmp_path / "last", name, b"\xff" * 64)
    checkpoint = load_checkpoint(tmp_path / "last")
    with pytest.raises(ArtifactError, match=r"do not fit"):
        checkpoint.load_weights(network)
    with pytest.raises(ArtifactError, match=r"cannot be read as centres"):
        checkpoint.load_centres()
    exchange(tmp_path / "last", "classes.json", b'{"a": 1}')
    with pytest.raises(ArtifactError, match=r"is no whole checkpoint"):
        load_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("text", ["not JSON", '["a list"]', "\xff"])
def test_notes_of_a_run_that_were_changed_are_told(tmp_path, text):
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    for name in ("started.json", "metrics.jsonl"):
        (tmp_path / name).write_text(text + "\n", encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"started\.json: (is damaged|must hold)"):
        check_run_folder(tmp_path, {}, resume=True)
    for read in (lambda: RunLog(tmp_path, 1), lambda: load_epochs(tmp_path)):
        with pytest.raises(ArtifactError, match=r"metrics\.jsonl: (is damaged|must hold)"):
            read()


def test_a_state_of_another_order_of_batches_is_refused(tmp_path):
    """A run that was stopped when epochs held other batches would go on with images twice and others never."""
    trainer = build()
    save(tmp_path / "checkpoints" / "last", trainer.recognizer, trainer.state_dict())
    with pytest.raises(ArtifactError, match=r"was stopped under an older version, whose epochs hold other batches"):
        resume_training(trainer, None, tmp_path, [3, 5])
