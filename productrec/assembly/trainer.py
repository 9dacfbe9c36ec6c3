"""What a training is made of, as a recipe says: network, losses, optimiser, schedule."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from productrec.assembly.network import build_network
from productrec.errors import RecipeError
from productrec.losses.build import build_metric_loss
from productrec.losses.classification.cross_entropy import compute_classification_loss
from productrec.losses.cross_modal.build import build_cross_modal_loss
from productrec.losses.cross_modal.objective import CrossModalObjective
from productrec.models.backbone import synchronise_norms
from productrec.models.recognizer import Recognizer
from productrec.models.text.tokens import Tokeniser
from productrec.recipe import Recipe
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.sharded_head import ShardedHead
from productrec.training.step.objective import JointLoss
from productrec.training.step.optimiser import build_optimizer
from productrec.training.step.schedule import compute_rate_factor
from productrec.training.step.trainer import Trainer
from productrec.training.tricks.freezing import freeze_stages
from productrec.training.tricks.jigsaw import Jigsaw
from productrec.training.tricks.mixing import Mixing

_ELEMENTWISE = ("adamw", "sgd", "adam", "nadam", "nadamw", "lion", "rmsprop")  # whatever else is in a rank's shard


def build_trainer(
    recipe: Recipe,
    class_sizes: Sequence[int],
    steps_per_epoch: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks | None = None,
    allow_code: bool = False,
    tokeniser: Tokeniser | None = None,
) -> Trainer:
    """The model, its losses and its optimiser as a recipe says, on ``device``, ready for the first step.

    Args:
        recipe: every setting.
        class_sizes: (C,) training images of each class.
        steps_per_epoch: of the sampler.
        device: where to train.
        dtype: of activations.
        ranks: that train together.
        allow_code: whether a loss from outside productrec may be imported.
        tokeniser: of the text tower, where the recipe wants one.
    """
    class_count = len(class_sizes)
    ranks = ranks or Ranks()
    build_head = _choose_head(recipe, class_count, ranks, dtype)
    recognizer = build_network(recipe, class_count, build_head=build_head, tokeniser=tokeniser)
    if recipe.train.freeze_stages:
        freeze_stages(recognizer, recipe.train.freeze_stages)
    head = recognizer.head
    if isinstance(head, ShardedHead) and dtype == torch.float16:  # its scale would differ between ranks
        raise RecipeError("train.shard_head: must have bfloat16 or float32 activations; give train.precision=float32.")
    if isinstance(head, ShardedHead) and ranks.size > 1 and recipe.train.optimizer not in _ELEMENTWISE:
        raise RecipeError(
            f"train.optimizer: must be one of {', '.join(_ELEMENTWISE)} where the head stands in shards, as they treat "
            f"every number by itself; got {recipe.train.optimizer}."
        )
    if recipe.train.sync_norms and ranks.size > 1:
        if device.type != "cuda":
            raise RecipeError(
                f"train.sync_norms: must be false but on GPUs, as torch has it for them alone; got {device}."
            )
        synchronise_norms(recognizer)
    recognizer = recognizer.to(device)
    loss = recipe.loss
    metric = None
    if loss.metric is not None:
        metric = build_metric_loss(
            loss.metric,
            mining=loss.mining,
            memory_rows=loss.memory.rows,
            memory_start_step=loss.memory.start_step,
            memory_weight=loss.memory.weight,
            memory_momentum=loss.memory.momentum,
            embedding_dim=recipe.model.embedding_dim,
            class_count=class_count,
            class_sizes=class_sizes,
            allow_code=allow_code,
        )
    objective = JointLoss(
        metric,
        metric_weight=loss.metric_weight,
        classification_weight=loss.classification_weight,
        label_smoothing=loss.label_smoothing,
        jigsaw=_build_jigsaw(recipe, recognizer),
        classify=head.compute_loss if isinstance(head, ShardedHead) else compute_classification_loss,
        titles=None if tokeniser is None else _build_title_loss(recipe, steps_per_epoch),
        titles_weight=loss.titles.weight,
    ).to(device)
    text = recognizer.text
    optimizer = build_optimizer(
        recipe.train.optimizer,
        backbone=recognizer.backbone,
        heads=itertools.chain(
            recognizer.iterate_head_parameters(),
            () if text is None else text.iterate_head_parameters(),
            objective.iterate_other_parameters(),
        ),
        centres=objective.iterate_centres(),
        learning_rate=recipe.train.learning_rate,
        head_rate_factor=recipe.train.head_rate_factor,
        centre_rate_factor=recipe.train.centre_rate_factor,
        weight_decay=recipe.train.weight_decay,
        layer_decay=recipe.train.layer_decay,
        encoder=() if text is None else text.iterate_backbone_parameters(),
        encoder_rate_factor=recipe.model.text.rate_factor,
    )
    schedule = partial(
        compute_rate_factor,
        warmup_steps=round(recipe.train.warmup_epochs * steps_per_epoch),
        total_steps=recipe.train.epochs * steps_per_epoch,
        schedule=recipe.train.schedule,
        cooldown=recipe.train.cooldown,
        drop_at=recipe.train.drop_at,
        drop_factor=recipe.train.drop_factor,
    )
    return Trainer(
        recognizer,
        objective,
        optimizer,
        device=device,
        dtype=dtype,
        schedule=schedule,
        gradient_clip=recipe.train.gradient_clip,
        ema_decay=recipe.train.ema_decay,
        compile_network=recipe.train.compile,
        mixing=_build_mixing(recipe, ranks),
        chunk_size=recipe.train.chunk_size,
        ranks=ranks,
    )


def _choose_head(
    recipe: Recipe, class_count: int, ranks: Ranks, dtype: torch.dtype
) -> Callable[[int], nn.Module] | None:
    """What builds the head, where it stands in shards."""
    if not recipe.train.shard_head or not class_count:
        return None
    return partial(
        ShardedHead,
        class_count=class_count,
        dropout=recipe.model.dropout,
        negative_share=recipe.train.negative_share,
        ranks=ranks,
        dtype=dtype,
    )


def _build_title_loss(recipe: Recipe, steps_per_epoch: int) -> CrossModalObjective:
    titles = recipe.loss.titles
    return build_cross_modal_loss(
        titles.loss,
        mining=titles.mining,
        warm_up_steps=round(titles.warm_up_epochs * steps_per_epoch),
        memory_rows=titles.memory.rows,
        memory_start_step=titles.memory.start_step,
        memory_weight=titles.memory.weight,
        embedding_dim=recipe.model.embedding_dim,
    )


def _build_mixing(recipe: Recipe, ranks: Ranks) -> Mixing | None:
    train = recipe.train
    if not train.cut_mix and not train.mix_up:
        return None
    return Mixing(
        cut_mix_share=train.cut_mix,
        mix_up_share=train.mix_up,
        mix_up_alpha=train.mix_up_alpha,
        seed=recipe.seed,
        rank=ranks.rank,
    )


def _build_jigsaw(recipe: Recipe, recognizer: Recognizer) -> Jigsaw | None:
    jigsaw = recipe.train.jigsaw
    if not jigsaw.parts:
        return None
    return Jigsaw(recognizer.backbone.feature_dim, **jigsaw.model_dump(), seed=recipe.seed)
