"""Training: groups, averages, a loop that learns, stops and resumes exactly; checkpoints and run folders."""

from functools import partial

import numpy as np
import pytest
import torch

from productrec.data.samplers import EpochSampler
from productrec.errors import ArtifactError, Interrupted
from productrec.training.run.checkpoint import load_checkpoint, save_checkpoint
from productrec.training.run.loop import run_training
from productrec.training.run.run_folder import RunLog, check_run_folder, finish_run, start_run
from productrec.training.step.schedule import compute_rate_factor
from productrec.training.tricks.average import WeightAverage
from tests.unit.training.small_training import CLASSES, PlainImages, build, copy_state, play, start

PUZZLE = {"parts": 4, "reach": 2}


@pytest.mark.parametrize("metric", ["multi_similarity", "soft_triple"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_steps_on_one_batch_lower_its_loss(metric, optimizer):
    trainer = build(metric, optimizer=optimizer, learning_rate=3e-3 if optimizer == "adamw" else 3e-2, dropout=0.0)
    images, labels = PlainImages(None).images, PlainImages(None).labels
    losses = [trainer.run_step(images, labels) for _ in range(24)]
    assert set(losses[0]) == {"loss", "metric", "classification"}
    assert losses[-1]["loss"] < 0.8 * losses[0]["loss"]


def test_an_epoch_gives_the_mean_of_every_term_and_the_validation_figures():
    log = play(build(), epochs=2)
    assert len(log) == 2
    assert set(log[0]) >= {"train_loss", "train_metric", "train_classification", "top_1_accuracy"}


@pytest.mark.parametrize("stop_after", [1, 3, 4, 11])
@pytest.mark.parametrize(("metric", "cut_mix"), [("multi_similarity", 0.0), ("soft_triple", 0.5), ("momentum", 0.3)])
def test_a_stopped_run_resumes_bit_for_bit(stop_after, metric, cut_mix, tmp_path):
    whole = build(metric, cut_mix=cut_mix)
    play(whole)
    saved = {}
    first = build(metric, cut_mix=cut_mix)
    with pytest.raises(Interrupted):
        play(first, stop_after=stop_after, saved=saved)
    torch.save(saved["last"], tmp_path / "state.pt")
    second = build(metric, cut_mix=cut_mix)
    torch.manual_seed(99)  # a new process has another random state
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    play(second)
    for name, value in copy_state(whole).items():
        assert torch.equal(value, copy_state(second)[name]), name
    for mine, theirs in zip(
        whole.average.network.state_dict().values(), second.average.network.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_groups_have_their_own_rates_and_vectors_are_not_decayed():
    trainer = build("soft_triple")
    groups = trainer.optimizer.param_groups
    assert sorted({group["peak_lr"] for group in groups}) == pytest.approx([1e-3, 2e-3, 1e-2])
    for group in groups:
        if group["weight_decay"]:
            assert all(parameter.ndim > 1 for parameter in group["params"])
    counted = sum(len(group["params"]) for group in groups)
    assert counted == len(list(trainer.recognizer.parameters())) + 1


def test_what_a_loss_learns_besides_centres_learns_with_the_heads():
    trainer = build("pair_logistic")
    start = trainer.objective.metric.bias.item()
    play(trainer, epochs=2)
    assert trainer.objective.metric.bias.item() != start
    (group,) = [
        g for g in trainer.optimizer.param_groups if any(p is trainer.objective.metric.bias for p in g["params"])
    ]
    assert group["peak_lr"] == pytest.approx(2e-3)
    assert group["weight_decay"] == 0.0


def test_keys_are_what_a_slower_network_says():
    trainer = build("momentum", dropout=0.0, ema_decay=0.0)
    images, labels = PlainImages(None).images[:4], PlainImages(None).labels[:4]
    for _ in range(3):
        trainer.run_step(images, labels)
    encoder = trainer.key_encoder.network
    with torch.no_grad():
        keys = encoder(images).embeddings
    trainer.run_step(images, labels)  # the fourth: rows 4 to 7 of the memory
    torch.testing.assert_close(trainer.objective.metric.embeddings[4:8], keys)
    slow, fast = encoder.state_dict(), trainer.recognizer.state_dict()
    assert any(not torch.equal(slow[name], fast[name]) for name in slow)


def test_near_classes_are_searched_between_epochs_and_reach_the_sampler():
    trainer, seen = build(), []
    sampler = EpochSampler(np.arange(16) % CLASSES, batch_size=4, images_per_class=2, seed=1, hard_share=1.0)

    class Search:
        def find(self, network):
            seen.append(trainer.progress.epoch)
            return np.array([[1], [0], [3], [2]])  # pairs of classes that belong together

    batches = []

    class Watched(PlainImages):
        def __iter__(self):
            for batch in super().__iter__():
                batches.append((self.sampler.epoch, set(batch.labels.tolist())))
                yield batch

    run_training(
        *start(trainer, images=Watched, sampler=sampler, parts={"near_classes": Search()}, epochs=5, mine_every=2)
    )
    assert seen == [2, 4]
    assert all(classes in ({0, 1}, {2, 3}) for epoch, classes in batches if epoch >= 2)
    assert any(classes not in ({0, 1}, {2, 3}) for epoch, classes in batches if epoch < 2)


def test_the_rate_warms_up_and_follows_half_a_cosine():
    rates = [compute_rate_factor(step, warmup_steps=4, total_steps=24) for step in range(25)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[14] == pytest.approx(0.5)
    assert rates[24] == pytest.approx(0.0)


def test_the_average_equals_its_recurrence_and_copies_counters():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = WeightAverage(network, 0.5)
    expected = network[0].weight.detach().clone()
    for step in range(3):
        with torch.no_grad():
            network[0].weight.add_(1.0)
            network[1].num_batches_tracked.add_(1)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
    torch.testing.assert_close(average.network[0].weight, expected)
    assert average.network[1].num_batches_tracked == 3


def test_tied_weights_of_an_averaged_network_move_once():
    recognizer = build("none", ema_decay=0.0).recognizer
    recognizer.neck.norm.weight = recognizer.neck.norm.bias
    tied = WeightAverage(recognizer, 0.99)
    before = {name: value.clone() for name, value in tied.network.state_dict().items()}
    with torch.no_grad():
        for one in recognizer.parameters():
            one.add_(1.0)
    tied.update(0)
    share = 1 - 1 / 10
    for name, value in tied.network.state_dict().items():
        if name in dict(recognizer.named_parameters(remove_duplicate=False)):
            torch.testing.assert_close(value - before[name], torch.full_like(value, share), msg=name)


def save(folder, trainer, state=None, class_ids=(3, 5, 8, 9)):
    save_checkpoint(
        folder,
        trainer.recognizer,
        class_ids=list(class_ids),
        class_keys=[f"sku {class_id}" for class_id in class_ids],
        class_names=[f"sku {class_id}" for class_id in class_ids],
        recipe={"name": "x"},
        table_fingerprint="t",
        figures={"top_1_accuracy": 0.5},
        state=state,
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    trainer = build()
    save(tmp_path / "best", trainer)
    checkpoint = load_checkpoint(tmp_path / "best")
    assert checkpoint.class_ids == [3, 5, 8, 9]
    assert checkpoint.figures == {"top_1_accuracy": 0.5}
    other = build()
    with torch.no_grad():
        other.recognizer.head.linear.weight.zero_()
    checkpoint.load_weights(other.recognizer)
    for name, value in copy_state(trainer).items():
        assert torch.equal(value, copy_state(other)[name])
    with pytest.raises(ArtifactError, match="weights alone"):
        checkpoint.load_state()


def test_a_damaged_checkpoint_is_refused(tmp_path):
    save(tmp_path / "best", build())
    path = tmp_path / "best" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="damaged"):
        load_checkpoint(tmp_path / "best")


def test_weights_of_another_architecture_are_refused(tmp_path):
    save(tmp_path / "best", build())
    with pytest.raises(ArtifactError, match="do not fit"):
        load_checkpoint(tmp_path / "best").load_weights(torch.nn.Linear(2, 2))


def test_a_run_folder_is_taken_up_only_by_its_own_run(tmp_path):
    folder = tmp_path / "run"
    settings = {"table": "t", "train": {"epochs": 3}}
    assert check_run_folder(folder, settings, resume=False) is False
    start_run(folder, settings, "name: x\n")
    assert check_run_folder(folder, settings, resume=False) is False
    # One that died before its first checkpoint may be started with what its message advised.
    assert check_run_folder(folder, {"table": "t", "train": {"epochs": 3, "chunk_size": 8}}, resume=True) is False
    (folder / "checkpoints" / "last").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="--resume"):
        check_run_folder(folder, settings, resume=False)
    assert check_run_folder(folder, settings, resume=True) is False
    with pytest.raises(ArtifactError, match=r"train\.epochs"):
        check_run_folder(folder, {"table": "t", "train": {"epochs": 4}}, resume=True)
    # A setting that did not exist yet counts as what it is by default.
    later = {"table": "t", "train": {"epochs": 3, "new": 7}}
    assert check_run_folder(folder, later, resume=True, defaults={"train": {"epochs": 9, "new": 7}}) is False
    with pytest.raises(ArtifactError, match=r"train\.new"):
        check_run_folder(folder, later, resume=True, defaults={"train": {"epochs": 9, "new": 8}})
    finish_run(folder, settings, {})
    assert check_run_folder(folder, settings, resume=False) is True


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"chunk_size": 3}, marks=pytest.mark.exhaustive),
        pytest.param({"jigsaw": PUZZLE}, marks=pytest.mark.exhaustive),
    ],
)
def test_a_compiled_network_trains_as_the_plain_one(options, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # needs no C++ compiler
    images, labels = PlainImages(None).images[:8], PlainImages(None).labels[:8]
    plain, compiled = (build(dropout=0.0, compile=wanted, **options) for wanted in (False, True))
    for trainer in (plain, compiled) if "jigsaw" in options else ():
        trainer.objective.jigsaw.locate = None  # 32 px leave no grid
    for _ in range(2):
        one, other = (trainer.run_step(images, labels)["loss"] for trainer in (plain, compiled))
        assert float(one) == pytest.approx(float(other), rel=1e-4)
    assert compiled.recognizer.state_dict().keys() == plain.recognizer.state_dict().keys()


def test_foreign_files_are_no_run(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="no run"):
        check_run_folder(tmp_path, {"table": "t"}, resume=True)


def test_the_log_drops_epochs_that_are_run_again_and_half_lines(tmp_path):
    log = RunLog(tmp_path, 0)
    for epoch in range(3):
        log.write(epoch, {"train_loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "tr')
    RunLog(tmp_path, 2).write(2, {"train_loss": 0.5})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [line[:11] for line in lines] == ['{"epoch": 0', '{"epoch": 1', '{"epoch": 2']
    assert "0.5" in lines[-1]
