"""A small network and a few images to train on, for the tests of training."""

import time
from functools import partial

import numpy as np
import torch

from productrec.data.dataset import TrainingBatch
from productrec.data.samplers import EpochSampler
from productrec.losses.classification.cross_entropy import compute_classification_loss
from productrec.losses.engine.memory import CrossBatchMemory
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.pair_logistic import PairLogistic
from productrec.losses.proxy.ada_cos import AdaCos
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.models.recognizer import build_recognizer
from productrec.runtime import StopRequest
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.sharded_head import ShardedHead
from productrec.training.run.loop import Plan, run_training
from productrec.training.step.objective import JointLoss
from productrec.training.step.optimiser import build_optimizer
from productrec.training.step.schedule import compute_rate_factor
from productrec.training.step.trainer import Trainer
from productrec.training.tricks.jigsaw import Jigsaw
from productrec.training.tricks.mixing import Mixing

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
            rows = [row for _, row, _ in batch]
            yield TrainingBatch(self.images[rows], self.labels[rows], [], torch.tensor(rows))


def build(
    metric="multi_similarity",
    ema_decay=0.9,
    optimizer="adamw",
    learning_rate=1e-3,
    dropout=0.2,
    cut_mix=0.0,
    backbone="mobilenetv3_small_050",
    dtype=torch.float32,
    puzzle=False,
    negative_share=None,
    **options,
):
    torch.manual_seed(0)
    recognizer = build_recognizer(
        backbone=backbone,
        pretrained=False,
        side_px=SIDE_PX,
        pooling="gem",
        gem_power=3.0,
        embedding_dim=8,
        class_count=CLASSES,
        dropout=dropout,
    )
    if negative_share is not None:
        shard_head(recognizer, dropout, negative_share, options.get("ranks") or Ranks())
    pairwise = PairModule(MultiSimilarity(), MultiSimilarityMining())
    loss = {
        "none": lambda: None,
        "memory": lambda: CrossBatchMemory(pairwise, rows=10, embedding_dim=8, start_step=0),
        "multi_similarity": lambda: pairwise,
        "momentum": lambda: CrossBatchMemory(pairwise, rows=10, embedding_dim=8, start_step=2, momentum=0.8),
        "soft_triple": lambda: SoftTriple(centres_per_class=2).build(8, CLASSES),
        "pair_logistic": PairLogistic,
        "ada_cos": lambda: AdaCos().build(8, CLASSES),
    }[metric]()
    jigsaw, classify = None, compute_classification_loss
    if negative_share is not None:
        classify = recognizer.head.compute_loss
    if puzzle:
        features = recognizer.backbone.feature_dim
        jigsaw = Jigsaw(features, parts=4, reach=2, adversarial_weight=1.0, alignment_weight=1.0, seed=0)
    objective = JointLoss(
        loss, metric_weight=0.5, classification_weight=1.0, label_smoothing=0.1, jigsaw=jigsaw, classify=classify
    )
    return Trainer(
        recognizer,
        objective,
        build_optimizer(
            optimizer,
            backbone=recognizer.backbone,
            heads=[*recognizer.iterate_head_parameters(), *objective.iterate_other_parameters()],
            centres=objective.iterate_centres(),
            learning_rate=learning_rate,
            head_rate_factor=2.0,
            centre_rate_factor=10.0,
            weight_decay=0.1,
        ),
        device=torch.device("cpu"),
        dtype=dtype,
        schedule=partial(compute_rate_factor, warmup_steps=2, total_steps=24),
        gradient_clip=5.0,
        ema_decay=ema_decay,
        mixing=Mixing(cut_mix_share=cut_mix, mix_up_share=0.0, mix_up_alpha=0.4, seed=0) if cut_mix else None,
        **options,
    )


def shard_head(recognizer, dropout, negative_share, ranks):
    """Put this rank's rows of the plain head in its place."""
    plain = recognizer.head.linear
    head = ShardedHead(plain.in_features, CLASSES, dropout=dropout, negative_share=negative_share, ranks=ranks)
    own = slice(ranks.rank * len(head.weight), min(CLASSES, (ranks.rank + 1) * len(head.weight)))
    with torch.no_grad():
        for mine, theirs in ((head.weight, plain.weight), (head.bias, plain.bias)):
            mine[: max(0, own.stop - own.start)] = theirs[own]
    recognizer.head = head


def play(
    trainer,
    epochs=6,
    stop_after=None,
    saved=None,
    images=PlainImages,
    figures=(0.5,),
    validation_seconds=0.0,
    merge=None,
    **plan,
):
    """Train for some epochs; what each epoch said. ``figures``: what validation says, the last one from then on."""
    sampler = EpochSampler(np.arange(16) % CLASSES, batch_size=4, images_per_class=2, seed=0)
    stop, steps, log = StopRequest(), [], []

    def on_step(epoch, count, losses):
        steps.append(count)
        stop.wanted = stop_after is not None and len(steps) == stop_after

    def save(name, shown):
        state = trainer.state_dict()
        if saved is not None:
            saved[name] = state

    def validate():
        time.sleep(validation_seconds)
        epoch = trainer.progress.epoch
        return {"top_1_accuracy": figures[min(epoch, len(figures) - 1)]}

    trainer.ending = run_training(
        trainer,
        images(sampler),
        sampler,
        Plan(**({"epochs": epochs, "keep_best_by": "top_1_accuracy", "log_every": 1} | plan)),
        validate=validate,
        save=save,
        on_step=on_step,
        on_epoch=lambda epoch, shown: log.append(dict(shown)),
        stop=stop,
        merge=merge,
        describe_rows=lambda rows: f"rows {rows}",
    )
    return log


def copy_state(trainer):
    return {name: value.clone() for name, value in trainer.recognizer.state_dict().items()}
