"""Training: schedule, groups, averages, a loop that learns, stops and resumes exactly."""

import numpy as np
import pytest
import torch

from productrec.data.dataset import TrainingBatch
from productrec.data.samplers import EpochSampler
from productrec.errors import ArtifactError, Interrupted, TrainingError
from productrec.losses.memory import CrossBatchMemory
from productrec.losses.mining import MultiSimilarityMining
from productrec.losses.pair_logistic import PairLogisticLoss
from productrec.losses.pairwise import MultiSimilarity, PairwiseLoss
from productrec.losses.soft_triple import SoftTripleLoss
from productrec.models.recognizer import build_recognizer
from productrec.runtime import StopRequest
from productrec.training.average import WeightAverage
from productrec.training.checkpoint import load_checkpoint, save_checkpoint
from productrec.training.loop import Trainer, run_training
from productrec.training.objective import JointLoss
from productrec.training.optimiser import build_optimizer, compute_rate_factor
from productrec.training.run_folder import RunLog, check_run_folder, finish_run, start_run

CLASSES, SIDE_PX = 4, 32


class PlainImages:
    """Sixteen easily told images, addressed as the sampler does."""

    def __init__(self, sampler):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(16) % CLASSES
        noise = torch.randint(0, 40, (16, SIDE_PX, SIDE_PX, 3), generator=generator)
        self.images = (noise + 50 * self.labels[:, None, None, None]).to(torch.uint8)
        self.sampler = sampler

    def __iter__(self):
        for batch in self.sampler:
            rows = [row for _, row in batch]
            yield TrainingBatch(self.images[rows], self.labels[rows], [])


def build(metric="multi_similarity", ema_decay=0.9, optimizer="adamw", learning_rate=1e-3, dropout=0.2, cut_mix=0.0):
    torch.manual_seed(0)
    recognizer = build_recognizer(
        backbone="mobilenetv3_small_050",
        pretrained=False,
        side_px=SIDE_PX,
        pooling="gem",
        gem_power=3.0,
        embedding_dim=8,
        class_count=CLASSES,
        dropout=dropout,
    )
    pairwise = PairwiseLoss(MultiSimilarity(), MultiSimilarityMining())
    loss = {
        "multi_similarity": lambda: pairwise,
        "momentum": lambda: CrossBatchMemory(pairwise, rows=10, embedding_dim=8, start_step=2, momentum=0.8),
        "soft_triple": lambda: SoftTripleLoss(8, CLASSES, 2),
        "pair_logistic": PairLogisticLoss,
    }[metric]()
    objective = JointLoss(loss, metric_weight=0.5, classification_weight=1.0, label_smoothing=0.1)
    return Trainer(
        recognizer,
        objective,
        build_optimizer(
            optimizer,
            backbone=recognizer.backbone.named_parameters(),
            heads=[*recognizer.iterate_head_parameters(), *objective.iterate_other_parameters()],
            centres=objective.iterate_centres(),
            learning_rate=learning_rate,
            head_rate_factor=2.0,
            centre_rate_factor=10.0,
            weight_decay=0.1,
        ),
        device=torch.device("cpu"),
        dtype=torch.float32,
        warmup_steps=2,
        total_steps=24,
        gradient_clip=5.0,
        ema_decay=ema_decay,
        cut_mix_share=cut_mix,
    )


def play(trainer, epochs=6, stop_after=None, saved=None):
    sampler = EpochSampler(np.arange(16) % CLASSES, batch_size=4, images_per_class=2, seed=0)
    stop, steps, log = StopRequest(), [], []

    def on_step(epoch, images, losses):
        steps.append(images)
        stop.wanted = stop_after is not None and len(steps) == stop_after

    def save(name, figures):
        if saved is not None:
            saved[name] = trainer.state_dict()

    run_training(
        trainer,
        PlainImages(sampler),
        sampler,
        epochs=epochs,
        validate=lambda network: {"top_1_accuracy": 0.5},
        validate_every=1,
        keep_best_by="top_1_accuracy",
        save=save,
        on_step=on_step,
        on_epoch=lambda epoch, figures: log.append(figures),
        stop=stop,
        log_every=1,
    )
    return log


def copy_state(trainer):
    return {name: value.clone() for name, value in trainer.recognizer.state_dict().items()}


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


@pytest.mark.parametrize("left_out", ["random", "average", "optimizer", "progress"])
def test_a_resume_without_part_of_the_state_is_not_the_same_run(left_out):
    whole = build()
    play(whole)
    saved = {}
    with pytest.raises(Interrupted):
        play(build(), stop_after=5, saved=saved)
    second = build()
    torch.manual_seed(99)
    fresh = second.state_dict()
    second.load_state_dict(saved["last"] | {left_out: fresh[left_out]})
    play(second)
    mine, theirs = whole.average.network.state_dict(), second.average.network.state_dict()
    assert any(not torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_loss_that_is_not_finite_ends_training_with_advice():
    trainer = build()
    with torch.no_grad():
        trainer.recognizer.head.linear.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="learning_rate"):
        play(trainer)


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
    average = trainer._keys_of.network
    with torch.no_grad():
        keys = average(images).embeddings
    trainer.run_step(images, labels)  # the fourth: rows 4 to 7 of the memory
    torch.testing.assert_close(trainer.objective.metric.embeddings[4:8], keys)
    slow, fast = average.state_dict(), trainer.recognizer.state_dict()
    assert any(not torch.equal(slow[name], fast[name]) for name in slow)


def test_near_classes_are_searched_between_epochs_and_reach_the_sampler():
    trainer, seen = build(), []
    sampler = EpochSampler(np.arange(16) % CLASSES, batch_size=4, images_per_class=2, seed=0, hard_share=1.0)

    def mine(network):
        seen.append(trainer.progress.epoch)
        return np.array([[1], [0], [3], [2]])  # pairs of classes that belong together

    batches = []

    class Watched(PlainImages):
        def __iter__(self):
            for batch in super().__iter__():
                batches.append((self.sampler.epoch, set(batch.labels.tolist())))
                yield batch

    run_training(
        trainer,
        Watched(sampler),
        sampler,
        epochs=5,
        validate=None,
        validate_every=1,
        keep_best_by="top_1_accuracy",
        save=lambda name, figures: None,
        on_step=lambda epoch, images, losses: None,
        on_epoch=lambda epoch, figures: None,
        stop=StopRequest(),
        mine=mine,
        mine_every=2,
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


def save(folder, trainer, state=None, class_ids=(3, 5, 8, 9)):
    save_checkpoint(
        folder,
        trainer.recognizer,
        class_ids=list(class_ids),
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
    (folder / "checkpoints" / "last").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="--resume"):
        check_run_folder(folder, settings, resume=False)
    assert check_run_folder(folder, settings, resume=True) is False
    with pytest.raises(ArtifactError, match=r"train\.epochs"):
        check_run_folder(folder, {"table": "t", "train": {"epochs": 4}}, resume=True)
    finish_run(folder, settings, {})
    assert check_run_folder(folder, settings, resume=False) is True


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
