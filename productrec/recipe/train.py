"""Settings of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.settings.choices import check_name
from productrec.settings.fields import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    PositiveFloat,
    Settings,
    ShareBelowOne,
    setting,
)
from productrec.settings.names import Precision, Sampler, Schedule


class JigsawSettings(Settings):
    """Destroyed images beside whole ones (DCL, Chen et al. 2019): twice the time a step."""

    parts: Count = setting(0, "regions along a side, which are shuffled; 0: off; 7 at 448 px in the paper")
    reach: Positive = setting(2, "a shuffled region moves fewer than twice as many regions along either side")
    adversarial_weight: NonNegative = setting(1.0, "weight of telling whole images from destroyed ones")
    alignment_weight: NonNegative = setting(1.0, "weight of telling where each region was")


class TrainSettings(Settings):
    """How the model is trained."""

    splits: tuple[Literal["train", "val"], ...] = setting(
        ("train",), "splits to train on", min_length=1, commands=("train", "audit"), judges=True
    )
    fold: Count | None = setting(
        None,
        "fold of the table that is left out of training, for an audit to judge",
        commands=("train", "audit"),
        judges=True,
    )
    force_splits: bool = setting(False, "train on splits and labels the competition's rules forbid", judges=True)
    pseudo_labels: Path | None = setting(
        None,
        "class probabilities of images without a label (runs/NAME/predictions/VIEWS/test), of which the surest are "
        "trained on with their predicted labels",
    )
    pseudo_confidence: Fraction = setting(0.9, "top probability from which train.pseudo_labels are trained on")
    pseudo_weight: Fraction = setting(1.0, "sample weight of the images of train.pseudo_labels, times their own weight")
    epochs: Positive = setting(30, "passes over the training images")
    batch_size: Annotated[int, Field(ge=2)] = setting(64, "images per step, on all ranks together")
    chunk_size: Count = setting(
        0, "images a network sees at a time at most, while losses see the whole batch; 0: all of them"
    )
    sampler: Sampler = setting(
        "auto",
        "pk: P classes times K images; shuffle: each image once; balanced: each class equally often; square_root: by "
        "the root of its size; mixed: pk and shuffle; auto: mixed for a pair loss beside the head, pk for one alone, "
        "shuffle for others",
    )
    pk_share: Fraction = setting(0.5, "share of the batches that are PK ones, where the sampler is mixed")
    images_per_class: Annotated[int, Field(ge=2)] = setting(4, "K of the PK sampler; must divide batch_size")
    class_repeats: Annotated[float, Field(ge=1)] = setting(
        10.0,
        "how often at most PK batches repeat a class in an epoch, so that one with far more images never "
        "fills a batch alone",
    )
    hard_classes: Fraction = setting(
        0.0,
        "share of a PK batch's classes that are the nearest to its first, searched as training goes on",
    )
    category_share: Fraction = setting(
        0.0, "share of a PK batch's classes that are drawn from the category of its first"
    )
    mine_every: Positive = setting(1, "epochs between two searches for near classes")
    side_px: Annotated[int, Field(ge=16, le=8192)] = setting(224, "side of the square the network sees")
    first_side_px: Count = setting(
        0, "side in the first epoch; squares grow to side_px over the first half of them; 0: always side_px"
    )
    augmentation: str = setting(
        "product", "none, light, product, in_the_wild, heavy, or a serialised albumentations file"
    )
    bands: Count = setting(
        0,
        "bands of rows, and as many of columns, that are masked in every training image at most, beside "
        "train.augmentation (SpecAugment, on images); 0: none; the paper has 1 or 2",
    )
    band_share: Annotated[float, Field(gt=0, lt=1)] = setting(
        0.2, "largest share of the side that one of train.bands covers; widths are drawn evenly from 0 up to it"
    )
    cut_mix: Fraction = setting(0.0, "share of batches mixed by CutMix; they have the classification term alone")
    mix_up: Fraction = setting(0.0, "share of batches mixed by MixUp; they have the classification term alone")
    mix_up_alpha: PositiveFloat = setting(0.4, "both parameters of the Beta distribution that MixUp draws shares from")
    jigsaw: JigsawSettings = JigsawSettings()
    optimizer: str = setting(
        "adamw", "adamw, sgd (Nesterov momentum 0.9), lamb, or any other of timm's optimisers by its name"
    )
    learning_rate: PositiveFloat = setting(1e-3, "peak rate of the backbone")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = setting(
        1.0, "rate of each earlier stage of the backbone, times that of the one after it"
    )
    head_rate_factor: PositiveFloat = setting(
        1.0, "rate of pooling, neck and classification head, times the backbone's"
    )
    centre_rate_factor: PositiveFloat = setting(100.0, "rate of a metric loss's centres, times the backbone's")
    weight_decay: NonNegative = setting(0.05, "decoupled for AdamW; not on norms, biases and centres")
    warmup_epochs: NonNegative = setting(1.0, "linear warm-up before the schedule")
    schedule: Schedule = setting(
        "cosine", "course of the learning rate: half a cosine to zero; flat, then linear to zero; or steps down"
    )
    cooldown: Fraction = setting(0.25, "share of the training that the flat schedule's way to zero takes")
    drop_at: tuple[Fraction, ...] = setting(
        (0.6, 0.85), "shares of the training after which the step schedule drops the rate"
    )
    drop_factor: Annotated[float, Field(gt=0, le=1)] = setting(
        0.1, "factor of the rate at each drop of the step schedule"
    )
    gradient_clip: NonNegative = setting(5.0, "largest gradient norm; 0 for no clipping")
    ema_decay: ShareBelowOne = setting(
        0.0,
        "decay per step of the weights' moving average, which is then validated and kept; 0: off",
    )
    soup: Count = setting(
        0, "newest epochs whose weights are averaged at the end, kept if that validates better; 0: off"
    )
    freeze_epochs: Count = setting(0, "epochs in which the heads learn alone, and the backbone stays as it is")
    freeze_stages: Count = setting(
        0,
        "first stages of the backbone, the stem among them, that never learn: fine-tuning is faster, and small sets "
        "spoil less of what was pretrained",
    )
    validate_raw: bool = setting(True, "where weights are averaged, validate the raw ones beside them")
    patience: Count = setting(0, "validations without a better one after which training ends; 0: never")
    freeze_norms: bool = setting(
        False,
        "batch norms of the backbone keep the statistics of its pretrained weights, as is usual on small "
        "batches; their scales and shifts still learn",
    )
    sync_norms: bool = setting(False, "batch norms see the images of all ranks (on GPUs)")
    shard_head: bool = setting(False, "each rank keeps its share of the classes' weights (Partial FC)")
    negative_share: Annotated[float, Field(gt=0, le=1)] = setting(
        1.0, "share of the classes a step compares with, the batch's among them, where the head is sharded"
    )
    timeout_minutes: PositiveFloat = setting(
        10.0,
        "minutes without an answer after which a rank counts as dead",
        decides="nothing",
        commands=("train", "predict", "audit"),
    )
    precision: Precision = setting(
        "auto", "number type of activations; losses stay float32", commands=("train", "predict", "photos", "audit")
    )
    compile: bool = setting(False, "compile the network with torch.compile")
    workers: Annotated[int, Field(ge=-1, le=256)] = setting(
        -1,
        "loader processes; -1 chooses by cores and device",
        decides="nothing",
        commands=("train", "predict", "photos", "audit"),
    )
    validate_every: Positive = setting(1, "epochs between validations")
    track: tuple[Literal["tensorboard", "wandb"], ...] = setting(
        (), "trackers that figures are written for, beside metrics.jsonl: tensorboard, wandb", decides="nothing"
    )
    keep_best_by: str = setting(
        "top_1_accuracy",
        f"validation figure that decides which checkpoint is the best one: {', '.join(VALIDATION_FIGURES)}; "
        "competition is the mean of the contract's metric (1 less an error) and the top-1 accuracy",
        judges=True,
    )

    @field_validator("keep_best_by")
    @classmethod
    def _check_figure(cls, value: str) -> str:
        return check_name(value, VALIDATION_FIGURES)

    @model_validator(mode="after")
    def _check_together(self) -> TrainSettings:
        if self.chunk_size == 1:
            raise ValueError("train.chunk_size must be 0 or at least 2: batch norms need two images")
        if self.first_side_px and not 16 <= self.first_side_px <= self.side_px:
            raise ValueError(
                f"train.first_side_px must be 0 or from 16 to train.side_px, {self.side_px}; got {self.first_side_px}. "
                "Give 0 for squares that do not grow"
            )
        if self.negative_share < 1 and not self.shard_head:
            raise ValueError("train.negative_share needs a head in shards; add train.shard_head=true, or leave it at 1")
        parts = self.jigsaw.parts
        if not parts:
            return self
        if self.side_px % parts or parts in (1, self.side_px):
            valid = [number for number in range(2, self.side_px) if self.side_px % number == 0][:6]
            raise ValueError(
                f"train.jigsaw.parts must divide train.side_px; got {parts} and {self.side_px}. Use one of {valid}"
            )
        if self.first_side_px and 16 % parts:
            raise ValueError(f"train.jigsaw.parts must divide 16 where squares grow; got {parts}. Use 2 or 4")
        if self.chunk_size:
            raise ValueError("train.jigsaw.parts must be 0 where train.chunk_size is not: it takes whole batches")
        return self
