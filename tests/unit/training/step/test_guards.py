"""Guards: what is not finite never reaches the state, collapse is told, time and patience end a training."""

import time

import pytest
import torch

from productrec.errors import TrainingError
from productrec.losses.engine.diagnostics import PairDiagnostics
from productrec.losses.engine.module import MetricModule
from productrec.losses.proxy.ada_cos import AdaCos
from productrec.training.run.endings import Ending, describe_images
from productrec.training.step.objective import JointLoss
from tests.unit.training.small_training import CLASSES, PlainImages, build, play


def flatten(value, prefix=""):
    """Every tensor and number of a state, by its place."""
    if isinstance(value, dict):
        return {k: v for name, below in value.items() for k, v in flatten(below, f"{prefix}.{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for place, below in enumerate(value) for k, v in flatten(below, f"{prefix}.{place}").items()}
    return {prefix: value.clone() if isinstance(value, torch.Tensor) else value}


def find_changes(before, after):
    def is_same(one, other):
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other

    return {
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or not is_same(before[name], after[name])
    }


class SpoiltLoss(MetricModule):
    """A metric loss that spoils its value, or only its gradient, at wish."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.spoil = inner, ""

    def forward(self, embeddings, labels, *keys):
        value = self.inner(embeddings, labels, *keys)
        if self.spoil == "value":
            return value * float("inf")
        if self.spoil == "gradient":  # the slope of the root of 0 is infinite, and 0 times that is not a number
            return value + (embeddings * 0).abs().sum().sqrt()
        return value

    def forget_last(self):
        if hasattr(self.inner, "forget_last"):
            self.inner.forget_last()


@pytest.mark.parametrize("metric", ["multi_similarity", "memory", "soft_triple", "ada_cos"])
@pytest.mark.parametrize("spoil", ["value", "gradient", "network"])
@pytest.mark.parametrize("chunk_size", [0, 3])
def test_a_step_that_is_not_finite_changes_nothing_but_its_count(metric, spoil, chunk_size):
    trainer = build(metric, chunk_size=chunk_size)
    images, labels = PlainImages(None).images[:8], PlainImages(None).labels[:8]
    trainer.objective.metric = SpoiltLoss(trainer.objective.metric)
    trainer.run_step(images, labels)
    before = flatten(trainer.state_dict())
    hook = None
    if spoil == "network":
        hook = trainer.recognizer.pooling.register_forward_hook(lambda module, given, said: said * float("nan"))
    else:
        trainer.objective.metric.spoil = spoil
    losses = trainer.run_step(images, labels)
    assert spoil == "gradient" or not losses["loss"].isfinite()
    changes = find_changes(before, flatten(trainer.state_dict()))
    # The tally, which says how often it happened, gains a line; dropout has drawn.
    counts = {
        ".progress.step",
        ".progress.skipped",
        ".progress.skipped_in_a_row",
        ".random.0.tally.counts.skipped_steps",
    }
    assert changes <= counts | {".random.0.torch"} | {
        name for name in before if name.startswith(".optimizer.param_groups")
    }
    assert trainer.progress.skipped == trainer.progress.skipped_in_a_row == 1
    trainer.objective.metric.spoil = ""
    if hook is not None:
        hook.remove()
    assert trainer.run_step(images, labels)["loss"].isfinite()
    assert (trainer.progress.skipped, trainer.progress.skipped_in_a_row) == (1, 0)
    assert find_changes(before, flatten(trainer.state_dict())) > {".recognizer.head.linear.weight"}


def test_too_many_in_a_row_end_training_and_name_the_images(tmp_path):
    trainer = build()
    with torch.no_grad():
        trainer.recognizer.head.linear.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"10 steps in a row.*16 \(image .*not_finite\.txt.*learning_rate"):
        play(trainer, folder=tmp_path)
    assert trainer.progress.step == 10


def test_skipped_steps_are_counted_in_their_epoch():
    trainer = build()
    trainer.objective.metric = SpoiltLoss(trainer.objective.metric)
    seen = []

    class Spoilt(PlainImages):
        def __iter__(self):
            for batch in super().__iter__():
                trainer.objective.metric.spoil = "value" if len(seen) in (1, 5, 6) else ""
                seen.append(len(batch.labels))
                yield batch

    log = play(trainer, epochs=2, images=Spoilt)
    assert [one["skipped_steps"] for one in log] == [1.0, 2.0]
    assert all(torch.isfinite(torch.tensor(one["train_loss"])) for one in log)


def test_infinite_gradients_of_half_precision_lower_the_scale_and_are_no_fault():
    trainer = build(dtype=torch.float16, ema_decay=0.9)
    assert trainer.scaler.is_enabled()
    images, labels = PlainImages(None).images[:8], PlainImages(None).labels[:8]
    for _ in range(30):
        losses = trainer.run_step(images, labels)
    assert losses["loss"].isfinite()
    assert trainer.progress.skipped == 0
    assert trainer.scaler.get_scale() < 2.0**16
    assert all(value.isfinite().all() for value in trainer.recognizer.state_dict().values())


def test_a_gradient_that_no_scale_of_half_precision_helps_ends_training(tmp_path):
    trainer = build(dtype=torch.float16)
    trainer.objective.metric = SpoiltLoss(trainer.objective.metric)
    trainer.objective.metric.spoil = "gradient"
    before = trainer.recognizer.head.linear.weight.detach().clone()
    with pytest.raises(TrainingError, match="10 steps in a row"):
        play(trainer, epochs=20, folder=tmp_path)
    assert torch.equal(before, trainer.recognizer.head.linear.weight)
    assert trainer.progress.step < 40  # some halve the scale from 65,536 to below 1


def test_a_scale_found_in_embeddings_that_are_not_finite_is_not_kept():
    loss = AdaCos().build(8, CLASSES).train()
    before = float(loss.scale)
    with pytest.raises(TrainingError, match="must be finite"):  # of the loss itself, on a CPU
        loss(torch.full((4, 8), torch.nan), torch.arange(4))
    assert float(loss.scale) == before


@pytest.mark.parametrize("metric", ["multi_similarity", "memory", "momentum"])
def test_collapse_is_told_while_it_happens(metric, capfd):
    trainer = build(metric)
    with torch.no_grad():
        trainer.recognizer.neck.norm.weight.zero_()
        trainer.recognizer.neck.norm.bias.fill_(1.0)
    log = play(trainer, epochs=1)
    assert log[0]["embedding_similarity"] > 0.9
    assert "nearly one point" in capfd.readouterr().err
    assert play(build(metric), epochs=1)[0]["embedding_similarity"] < 0.9
    assert "nearly one point" not in capfd.readouterr().err


def test_a_batch_of_one_class_is_no_collapse(capfd):
    class Alike(PlainImages):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch._replace(images=self.images[:1].expand(4, -1, -1, -1), labels=self.labels[:1].expand(4))

    log = play(build(dropout=0.0), epochs=1, images=Alike)
    assert log[0]["embedding_similarity"] > 0.95
    assert "nearly one point" not in capfd.readouterr().err


def test_pairs_that_teach_nothing_any_more_are_told_once(capfd, monkeypatch):
    idle = PairDiagnostics(0.0, 0.0, 0.0, None, None)
    monkeypatch.setattr(JointLoss, "diagnose", lambda self, embeddings, labels: idle)
    play(build(), epochs=12)
    assert capfd.readouterr().err.count("hardly any pair is active") == 1


def test_health_is_the_mean_over_all_pairs():
    trainer = build()
    assert trainer.measure_health() is None
    trainer.run_step(PlainImages(None).images[:8], PlainImages(None).labels[:8])
    embeddings, _ = trainer.passes.newest
    matrix = embeddings @ embeddings.T
    expected = (matrix.sum() - matrix.trace()) / (8 * 7)
    health = trainer.measure_health()
    assert health.mean_similarity == pytest.approx(float(expected), abs=1e-5)
    assert 0 <= health.pairs.active_share <= 1


def test_batches_without_positives_train_the_rest_and_are_counted():
    trainer = build()

    class Lonely(PlainImages):
        def __iter__(self):
            for batch in super().__iter__():
                rows = list(range(CLASSES))
                yield batch._replace(images=self.images[rows], labels=self.labels[rows])

    before = trainer.recognizer.head.linear.weight.detach().clone()
    log = play(trainer, epochs=1, images=Lonely)
    assert log[0]["batches_without_positives"] == 4.0
    assert not torch.equal(before, trainer.recognizer.head.linear.weight)


def test_only_pair_losses_want_positives():
    class Lonely(PlainImages):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch._replace(images=self.images[:CLASSES], labels=self.labels[:CLASSES])

    assert play(build("memory"), epochs=1, images=Lonely)[0]["batches_without_positives"] == 4.0
    for options in ({"metric": "soft_triple"}, {"metric": "none"}, {"metric": "momentum"}, {"cut_mix": 1.0}):
        assert "batches_without_positives" not in play(build(**options), epochs=1, images=Lonely)[0]


def test_a_figure_that_stays_the_same_is_no_better_one():
    trainer, saved = build(), {}
    assert len(play(trainer, epochs=9, figures=(0.5,), patience=2, saved=saved)) == 3
    assert trainer.ending is Ending.NO_BETTER
    assert (trainer.progress.improved_epoch, trainer.progress.best_epoch) == (0, 2)  # of equals the newest is kept


def test_the_images_of_all_steps_that_were_not_finite_are_listed(tmp_path):
    said = describe_images([f"i{number}" for number in range(8)], tmp_path / "not_finite.txt")
    assert said.startswith("8 (i0, i1, i2, i3, i4, ...)")
    assert "not_finite.txt" in said
    assert (tmp_path / "not_finite.txt").read_text().split() == [f"i{number}" for number in range(8)]


@pytest.mark.parametrize("validation", [0.0, 0.6])
def test_a_training_ends_before_its_deadline_with_time_to_validate_and_save(validation):
    trainer, saved = build(), {}
    play(trainer, epochs=2)  # what is slow at first is behind us
    allowed = 3.0
    started = time.monotonic()
    trainer = build()
    play(trainer, epochs=5000, saved=saved, deadline=started + allowed, validation_seconds=validation)
    assert trainer.ending is Ending.OUT_OF_TIME
    assert 0.3 * allowed < time.monotonic() - started < allowed
    assert set(saved) == {"best", "last"}


def test_patience_ends_a_training_and_a_resume_ends_at_the_same_place():
    trainer = build()
    log = play(trainer, epochs=20, figures=(0.1, 0.5, 0.3), patience=3)
    assert trainer.ending is Ending.NO_BETTER
    assert len(log) == 5  # the second was the best, and three came after it
    saved = {}
    play(build(), epochs=4, figures=(0.1, 0.5, 0.3), patience=3, saved=saved)
    second = build()
    second.load_state_dict(saved["last"])
    assert len(play(second, epochs=20, figures=(0.1, 0.5, 0.3), patience=3)) == 1
    assert second.ending is Ending.NO_BETTER


def test_a_deadline_leaves_a_best_checkpoint_and_a_state_to_resume():
    saved = {}
    trainer = build()
    play(trainer, epochs=6, saved=saved, deadline=time.monotonic() - 1)
    assert trainer.ending is Ending.OUT_OF_TIME
    assert set(saved) == {"best", "last"}
    assert trainer.progress.batch == 1
    second = build()
    second.load_state_dict(saved["last"])
    play(second)
    whole = build()
    play(whole)
    assert second.ending is Ending.FINISHED
    mine, theirs = whole.recognizer.state_dict(), second.recognizer.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_mixed_batch_that_is_skipped_leaves_the_memory_of_the_batch_before():
    trainer = build("memory", cut_mix=0.5)
    images, labels = PlainImages(None).images[:8], PlainImages(None).labels[:8]
    taken = skipped = 0
    while not (taken and skipped):
        trainer.run_step(images, labels)  # mixed or not, by its number
        before = flatten(trainer.objective.state_dict())
        hook = trainer.recognizer.head.register_forward_hook(lambda module, given, said: said * float("nan"))
        met = trainer.run_step(images, labels)
        hook.remove()
        assert not met["loss"].isfinite()
        assert find_changes(before, flatten(trainer.objective.state_dict())) == set()
        mixed = trainer.mixing.mix(images, labels, trainer.progress.step - 1)[1] is not None
        skipped, taken = skipped + mixed, taken + (not mixed)
