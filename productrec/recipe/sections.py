"""Settings: every section of a recipe, typed, each field with its default, unit and meaning."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from productrec.settings.fields import Fraction, NonNegative, Positive, PositiveFloat, Settings


class DataSettings(Settings):
    """Where the images and labels come from, and the table they become."""

    source: Path | None = Field(None, description="folder, zip or tar of the competition's files")
    format: Literal[
        "auto",
        "table",
        "fgvc_json",
        "coco",
        "csv",
        "sop",
        "in_shop",
        "cub",
        "cars",
        "webdataset",
        "huggingface",
        "folders",
    ] = Field("auto", description="layout of the source; auto: as its files tell")
    dedup: Literal["off", "report", "drop", "group"] = Field(
        "off",
        description="near-duplicates: report, drop training copies, or group so that no split parts them",
    )
    folds: Annotated[int, Field(ge=0)] = Field(0, description="cross-validation folds of the training images; 0: none")
    pack: bool = Field(False, description="shrink and encode the images once into a store that is fast to read")
    max_side_px: Positive = Field(320, description="longer side of a packed image at most")
    download: bool = Field(False, description="fetch images from the source's URLs, beside the table")
    allow_private: bool = Field(False, description="also fetch from addresses that are not public")
    box_margin: NonNegative = Field(0.1, description="share by which COCO's boxes are widened on every side")
    findings: Path | None = Field(
        None, description="edited findings of an audit (CSV): images to drop, relabel or weigh"
    )
    images: Path | None = Field(None, description="image folder, where it does not stand in the source")
    id_column: str | None = Field(
        None, description="CSV column of image ids or file names; found by itself where usual"
    )
    label_column: str | None = Field(None, description="CSV column of labels; found by itself where usual")
    file_column: str | None = Field(None, description="CSV column of file names, where images are not named by id")
    table: Path | None = Field(
        None, description="folder of the image table; default data/ and the name of the source's folder or archive"
    )
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share held out of train as val, where the source has no val"
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="decides which images are held out and the folds, so that recipes of other seeds share a table"
    )
    hold_out: Literal["images", "classes"] = Field(
        "images",
        description="what that is a share of: each class's images, or whole classes (keep_best_by=recall@1 suits it)",
    )
    verify: bool = Field(
        True, description="decode every image once at ingest, so that broken ones are known before training"
    )


class ModelSettings(Settings):
    """The backbone and the two heads on it."""

    backbone: str = Field("resnet50", description="any timm model name")
    pretrained: bool | str = Field(
        True,
        description="true: timm's weights; false: random; a path: a weights file, or a run whose backbone is taken",
    )
    pooling: Literal["gem", "average"] = Field("gem", description="how the feature map becomes one vector")
    gem_power: PositiveFloat = Field(3.0, description="initial GeM exponent, learned")
    embedding_dim: Positive = Field(512, description="D, dimensions of the embedding")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="stochastic depth rate, where the backbone has it"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the classification head")


class JigsawSettings(Settings):
    """Destroyed images beside whole ones (DCL, Chen et al. 2019): twice the time a step."""

    parts: Annotated[int, Field(ge=0)] = Field(
        0, description="regions along a side, which are shuffled; 0: off; 7 at 448 px in the paper"
    )
    reach: Positive = Field(2, description="a region moves fewer than twice as many places")
    adversarial_weight: NonNegative = Field(1.0, description="weight of telling whole images from destroyed ones")
    alignment_weight: NonNegative = Field(1.0, description="weight of telling where each region was")


class TrainSettings(Settings):
    """How the model is trained."""

    splits: tuple[Literal["train", "val"], ...] = Field(("train",), min_length=1, description="splits to train on")
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None, description="fold of the table that is left out of training, for an audit to judge"
    )
    force_splits: bool = Field(False, description="train on splits and labels the competition's rules forbid")
    pseudo_labels: Path | None = Field(
        None,
        description="class probabilities of images without a label (runs/NAME/predictions/VIEWS/test); the surest "
        "are trained on as well",
    )
    pseudo_confidence: Fraction = Field(0.9, description="top probability from which such an image is")
    pseudo_weight: Fraction = Field(1.0, description="sample weight of these images, times their own")
    epochs: Positive = Field(30, description="passes over the training images")
    batch_size: Annotated[int, Field(ge=2)] = Field(64, description="images per step, on all ranks together")
    chunk_size: Annotated[int, Field(ge=0)] = Field(
        0, description="images a network sees at a time at most, while losses see the whole batch; 0: all of them"
    )
    sampler: Literal["auto", "pk", "shuffle", "balanced", "square_root", "mixed"] = Field(
        "auto",
        description="pk: P classes times K images (auto takes it for pair losses); shuffle: each image once; "
        "balanced: each class equally often; square_root: by the root of its size; mixed: pk and shuffle",
    )
    pk_share: Fraction = Field(0.5, description="share of the batches that are PK ones, where the sampler is mixed")
    images_per_class: Annotated[int, Field(ge=2)] = Field(4, description="K of the PK sampler; must divide batch_size")
    class_repeats: Annotated[float, Field(ge=1)] = Field(
        10.0,
        description="how often at most PK batches repeat a class in an epoch, so that one with far more images never "
        "fills a batch alone",
    )
    hard_classes: Fraction = Field(
        0.0,
        description="share of a PK batch's classes that are the nearest to its first, searched as training goes on",
    )
    category_share: Fraction = Field(
        0.0, description="share of a PK batch's classes that are drawn from the category of its first"
    )
    mine_every: Positive = Field(1, description="epochs between two searches for near classes")
    side_px: Annotated[int, Field(ge=16, le=8192)] = Field(224, description="side of the square the network sees")
    first_side_px: Annotated[int, Field(ge=0)] = Field(
        0, description="side in the first epoch; squares grow to side_px over the first half of them; 0: always side_px"
    )
    augmentation: str = Field(
        "product", description="none, light, product, in_the_wild, heavy, or a serialised albumentations file"
    )
    cut_mix: Fraction = Field(
        0.0, description="share of batches mixed by CutMix; they have the classification term alone"
    )
    mix_up: Fraction = Field(0.0, description="share of batches mixed by MixUp; likewise")
    mix_up_alpha: PositiveFloat = Field(0.4, description="of the Beta distribution that MixUp draws shares from")
    jigsaw: JigsawSettings = JigsawSettings()
    optimizer: str = Field(
        "adamw", description="adamw, sgd (Nesterov momentum 0.9), lamb, or any other of timm's optimisers by its name"
    )
    learning_rate: PositiveFloat = Field(1e-3, description="peak rate of the backbone")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="rate of each earlier stage of the backbone, times that of the one after it"
    )
    head_rate_factor: PositiveFloat = Field(
        1.0, description="rate of pooling, neck and classification head, times the backbone's"
    )
    centre_rate_factor: PositiveFloat = Field(
        100.0, description="rate of a metric loss's centres, times the backbone's"
    )
    weight_decay: NonNegative = Field(0.05, description="decoupled for AdamW; not on norms, biases and centres")
    warmup_epochs: NonNegative = Field(1.0, description="linear warm-up before the schedule")
    schedule: Literal["cosine", "flat", "step"] = Field(
        "cosine", description="of the rate: half a cosine to zero; flat, then linear to zero; or steps down"
    )
    cooldown: Fraction = Field(0.25, description="share of the training that the flat schedule's way to zero takes")
    drop_at: tuple[Fraction, ...] = Field(
        (0.6, 0.85), description="shares of the training after which the step schedule drops the rate"
    )
    drop_factor: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="what each drop multiplies the rate with")
    gradient_clip: NonNegative = Field(5.0, description="largest gradient norm; 0 for no clipping")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="decay per step of the weights' moving average, which is then validated and kept; 0: off",
    )
    soup: Annotated[int, Field(ge=0)] = Field(
        0, description="newest epochs whose weights are averaged at the end, kept if that validates better; 0: off"
    )
    freeze_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs in which the heads learn alone, and the backbone stays as it is"
    )
    validate_raw: bool = Field(True, description="where weights are averaged, validate the raw ones beside them")
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="validations without a better one after which training ends; 0: never"
    )
    freeze_norms: bool = Field(
        False,
        description="batch norms of the backbone keep the statistics of its pretrained weights, as is usual on small "
        "batches; their scales and shifts still learn",
    )
    sync_norms: bool = Field(False, description="batch norms see the images of all ranks (on GPUs)")
    shard_head: bool = Field(False, description="each rank keeps its share of the classes' weights (Partial FC)")
    negative_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the classes a step compares with, the batch's among them, where the head is sharded"
    )
    timeout_minutes: PositiveFloat = Field(10.0, description="without an answer for so long a rank counts as dead")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of activations; losses stay float32"
    )
    compile: bool = Field(False, description="torch.compile the network")
    workers: Annotated[int, Field(ge=-1, le=256)] = Field(
        -1, description="loader processes; -1 chooses by cores and device"
    )
    validate_every: Positive = Field(1, description="epochs between validations")
    track: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        (), description="also write figures for these, beside metrics.jsonl: tensorboard, wandb"
    )
    keep_best_by: Literal["top_1_accuracy", "top_3_error", "recall@1", "map@r"] = Field(
        "top_1_accuracy", description="validation figure that decides which checkpoint is the best one"
    )


def check_train_settings(train: TrainSettings) -> None:
    """Refuse settings that do not go together.

    Raises:
        ValueError: they do not; the message says what to change.
    """
    if train.chunk_size == 1:
        raise ValueError("train.chunk_size must be 0 or at least 2: batch norms need two images")
    if train.first_side_px and not 16 <= train.first_side_px <= train.side_px:
        raise ValueError(f"train.first_side_px must be 0 or from 16 to train.side_px; got {train.first_side_px}")
    if train.negative_share < 1 and not train.shard_head:
        raise ValueError("train.negative_share needs a head in shards; add train.shard_head=true, or leave it at 1")
    parts = train.jigsaw.parts
    if not parts:
        return
    if train.side_px % parts or parts in (1, train.side_px):
        valid = [number for number in range(2, train.side_px) if train.side_px % number == 0][:6]
        raise ValueError(
            f"train.jigsaw.parts must divide train.side_px; got {parts} and {train.side_px}. Use one of {valid}"
        )
    if train.first_side_px and 16 % parts:
        raise ValueError(f"train.jigsaw.parts must divide 16 where squares grow; got {parts}. Use 2 or 4")
    if train.chunk_size:
        raise ValueError("train.jigsaw.parts must be 0 where train.chunk_size is not: it takes whole batches")


class PredictSettings(Settings):
    """How test images are embedded, compared with the gallery and given class probabilities."""

    checkpoint: Literal["best", "last"] = Field("best", description="which checkpoint of the run")
    tta: str = Field(
        "plain", description="views of an image: plain, flip, five_crops, scales, zoom (crops, enlarged) or full"
    )
    gallery_tta: str = Field(
        "flip", description="views of a gallery image, where test images have more than the plain one"
    )
    gallery_splits: tuple[Literal["train", "val"], ...] = Field(
        ("train",), min_length=1, description="splits to retrieve from"
    )
    batch_size: Positive = Field(128, description="images per forward pass")
    neighbours: Positive = Field(50, description="nearest gallery images fetched for each query")
    k_grid: tuple[Positive, ...] = Field((1, 3, 5, 10, 20, 50), min_length=1, description="votes tried on validation")
    power_grid: tuple[NonNegative, ...] = Field(
        (1.0, 4.0, 16.0, 64.0), min_length=1, description="powers of the similarity tried on validation"
    )
    head_weight_grid: tuple[Fraction, ...] = Field(
        tuple(round(0.1 * step, 1) for step in range(11)), min_length=1, description="fusion weights of the head tried"
    )
    member_weights: dict[str, NonNegative] = Field(
        default_factory=dict, description="weight of each member in the ensemble; 1 where none is given"
    )
    keep_parts: bool = Field(False, description="also write the probabilities of head, nearest and vote")


class SubmitSettings(Settings):
    """Where the CSV lands."""

    out: Path | None = Field(None, description="CSV to write; default submissions/NAME.csv")
    sample: Path | None = Field(
        None, description="sample submission; default the one in the source folder; none: compare with none"
    )
