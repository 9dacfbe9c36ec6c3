"""Ranks: two processes are one with the whole batch; a dead one ends the other; options of the launch."""

import socket

import pytest
import torch

from productrec.launch import drop_own_options
from productrec.training.ranks.group import Ranks
from productrec.training.run.validation import slice_of_rank
from tests.warm import ROOT, start_code

STEPS = """
import os, sys, torch
sys.path.insert(0, os.getcwd())
from productrec.training.ranks.group import join_ranks, leave_ranks
from tests.unit.training.small_training import PlainImages, build

torch.set_num_threads(1)
ranks = join_ranks(torch.device("cpu"), timeout_minutes=1)
for value in ({"rank": ranks.rank, "weights": torch.arange(3) * ranks.rank}, None if ranks.is_first else "other"):
    told = ranks.broadcast(value)  # the first rank's, whatever the others hold
    assert told is None or (told["rank"] == 0 and not told["weights"].any()), told

def play(metric, chunk_size, out):
    trainer = build(metric, dropout=0.0, chunk_size=chunk_size, ranks=ranks, ema_decay=0.9)
    for module in trainer.recognizer.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    gradients = []
    step = trainer.optimizer.step
    def watch(*a, **k):
        named = [*trainer.recognizer.parameters(), *trainer.objective.parameters()]
        # Fused optimisers want it.
        assert all(one.grad.stride() == one.stride() for one in named if one.grad is not None)
        gradients.append({name: one.grad.clone() for name, one in [*trainer.recognizer.named_parameters(),
            *trainer.objective.named_parameters()] if one.grad is not None})
        return step(*a, **k)
    trainer.optimizer.step = watch
    images, labels = PlainImages(None).images[:8], PlainImages(None).labels[:8]
    size = len(images) // ranks.size
    own = slice(ranks.rank * size, (ranks.rank + 1) * size)
    losses = []
    for number in range(3):
        losses.append(trainer.run_step(images[own], labels[own])["metric"].item())
    # One rank's fault skips the step on all.
    if ranks.rank == ranks.size - 1:
        hook = trainer.recognizer.head.register_forward_hook(lambda module, given, said: said * float("nan"))
    trainer.run_step(images[own], labels[own])
    state = trainer.state_dict()
    assert state["progress"]["skipped"] == 1, state["progress"]
    assert len(gradients) == 3
    kept = {"gradients": gradients, "state": state["recognizer"], "objective": state["objective"], "losses": losses}
    torch.save(kept, f"{out}.{ranks.rank}")

for case in sys.argv[2:]:  # together, since most of the time is imports
    name, size = case.split("/")
    play(name, int(size), f"{sys.argv[1]}-{name}-{size}")
leave_ranks()
"""
DYING = """
import os, sys, torch
sys.path.insert(0, os.getcwd())
from productrec.runtime import StopRequest
from productrec.training.run.endings import explain_death
from productrec.training.ranks.group import join_ranks
ranks = join_ranks(torch.device("cpu"), timeout_minutes=0.2)
ranks.agree([True], torch.device("cpu"))
if ranks.rank == 1:
    os._exit(3)
try:
    for _ in range(3):
        ranks.agree([True], torch.device("cpu"))
except RuntimeError as error:
    print(type(explain_death(error, StopRequest(), ranks)).__name__, explain_death(error, StopRequest(), ranks))
"""


def run_ranks(size, code, *arguments, timeout=240):
    """Start ``size`` ranks of a script; their exit codes and outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(size):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started.append(start_code(code, arguments, cwd=ROOT, environment=environment))
    said = ["".join(process.communicate(timeout=timeout)) for process in started]
    return [process.returncode for process in started], said


CASES = ["multi_similarity/0", "multi_similarity/3", "soft_triple/0", "momentum/0"]


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Folder of what one rank, and each of two, have seen in every case."""
    folder = tmp_path_factory.mktemp("ranks")
    for size in (1, 2):
        codes, said = run_ranks(size, STEPS, folder / f"size{size}", *CASES)
        assert codes == [0] * size, said
    return folder


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_with_the_whole_batch(case, played):
    metric, chunk_size = case.split("/")
    seen = {
        size: [
            torch.load(played / f"size{size}-{metric}-{chunk_size}.{rank}", weights_only=True) for rank in range(size)
        ]
        for size in (1, 2)
    }
    (alone,), (first, second) = seen[1], seen[2]
    for step in range(3):
        assert alone["gradients"][step].keys() == first["gradients"][step].keys()
        for name, value in alone["gradients"][step].items():
            scale = max(1.0, float(value.abs().max()))
            for other in (first, second):
                assert float((other["gradients"][step][name] - value).abs().max()) <= 1e-5 * scale, (step, name)
    # The first gradient is of equal weights, and so free of what steps add up.
    worst = max(float((first["gradients"][0][name] - v).abs().max()) for name, v in alone["gradients"][0].items())
    largest = max(float(value.abs().max()) for value in alone["gradients"][0].values())
    print(f"{metric}, chunks of {chunk_size}: largest difference {worst:.1e} of gradients up to {largest:.2f}")
    assert worst <= 1e-6 * max(1.0, largest)
    # The ranks themselves never drift apart, bit for bit: weights, centres, memory.
    for kind in ("state", "objective"):
        for name, value in first[kind].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, second[kind][name]), name
            else:
                assert value == second[kind][name]
    assert first["losses"] == second["losses"]


def test_a_dead_rank_ends_the_other_with_a_message():
    codes, said = run_ranks(2, DYING, timeout=60)
    assert codes[1] == 3
    assert "ProcessLost training: another of the 2 processes ended" in said[0], said


@pytest.mark.parametrize("count", [0, 1, 7, 16])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_slices_put_together_are_all_rows_once(count, size):
    rows = list(range(count))
    assert [row for rank in range(size) for row in rows[slice_of_rank(count, Ranks(rank, size))]] == rows


def test_alone_nothing_is_sent():
    ranks = Ranks()
    rows = torch.ones(2, 3, requires_grad=True)
    assert ranks.gather_rows(rows) is rows
    assert ranks.agree([True, False], torch.device("cpu")) == [True, False]
    assert ranks.gather_objects("x") == ["x"]
    assert ranks.broadcast("x") == "x"


@pytest.mark.parametrize(
    "given",
    [
        ["train", "a.yaml", "--nproc", "4", "--resume"],
        ["train", "--nproc=4", "a.yaml", "--max-restarts=2", "--resume"],
        ["train", "a.yaml", "--resume", "--max-restarts", "2", "--nproc", "4"],
    ],
)
def test_ranks_are_not_told_to_launch_ranks(given):
    assert drop_own_options(given) == ["train", "a.yaml", "--resume"]


def test_norms_that_keep_their_statistics_are_not_averaged(monkeypatch):
    """The mean of equal numbers may be off by rounding."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value: value.mul_(3 * (1 + 1e-6)))
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4))
    network[0].eval()
    Ranks(0, 3).average_statistics(network)
    assert torch.equal(network[0].running_var, torch.ones(4))
    assert not torch.equal(network[1].running_var, torch.ones(4))
