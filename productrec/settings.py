"""Settings: every section of a recipe, typed, each field with its default, unit and meaning."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Split = Literal["train", "val", "test"]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


PAIR_LOSSES = (
    "multi_similarity",
    "contrastive",
    "euclidean_contrastive",
    "pair_logistic",
    "binomial_deviance",
    "triplet",
    "lifted_structure",
    "original_lifted_structure",
    "sum_of_hinges",
    "max_of_hinges",
    "smooth_ap",
    "n_pair",
    "nt_xent",
    "sup_con",
    "circle",
)
METRIC_LOSSES = (
    *PAIR_LOSSES,
    "normalised_softmax",
    "cos_face",
    "arc_face",
    "ada_cos",
    "proxy_nca",
    "proxy_nca_pp",
    "proxy_anchor",
    "soft_triple",
)


class Settings(BaseModel):
    """A section of the recipe: unknown keys are refused and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class DataSettings(Settings):
    """Where the images and labels come from, and the table they become."""

    source: Path | None = Field(None, description="folder, zip or tar of the competition's files")
    format: Literal["auto", "table", "fgvc_json", "coco", "csv", "sop", "in_shop", "cub", "cars", "folders"] = Field(
        "auto", description="layout of the source; auto: as its files tell"
    )
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
    images: Path | None = Field(None, description="image folder, where it does not stand in the source")
    id_column: str | None = Field(
        None, description="CSV column of image ids or file names; found by itself where usual"
    )
    label_column: str | None = Field(None, description="CSV column of labels; found by itself where usual")
    table: Path | None = Field(None, description="folder of the image table; default data/NAME")
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of each class held out of train as val, where the source has no val"
    )
    verify: bool = Field(
        True, description="decode every image once at ingest, so that broken ones are known before training"
    )


class ModelSettings(Settings):
    """The backbone and the two heads on it."""

    backbone: str = Field("resnet50", description="any timm model name")
    pretrained: bool | str = Field(
        True, description="true: timm's weights; false: random; a path: a local weights file"
    )
    pooling: Literal["gem", "average"] = Field("gem", description="how the feature map becomes one vector")
    gem_power: PositiveFloat = Field(3.0, description="initial GeM exponent, learned")
    embedding_dim: Positive = Field(512, description="D, dimensions of the embedding")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="stochastic depth rate, where the backbone has it"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the classification head")


class MultiSimilaritySettings(Settings):
    """Multi-Similarity loss (Wang et al. 2019)."""

    alpha: PositiveFloat = Field(2.0, description="sharpness for positives")
    beta: PositiveFloat = Field(
        50.0, description="sharpness for negatives; 50 in the paper, 40 in the authors' configuration"
    )
    base: float = Field(
        0.5, description="lambda, the similarity both terms pivot on; 1 in the paper's text, 0.5 in practice"
    )
    epsilon: NonNegative = Field(0.1, description="margin of its mining")


class SoftTripleSettings(Settings):
    """SoftTriple loss (Qian et al. 2019)."""

    centres_per_class: Positive = Field(10, description="K, centres of each class")
    scale: PositiveFloat = Field(20.0, description="lambda, inverse temperature of the softmax over classes")
    gamma: PositiveFloat = Field(0.1, description="entropy weight: temperature of the softmax over centres")
    margin: NonNegative = Field(0.01, description="similarity margin of the true class")
    tau: NonNegative = Field(0.2, description="weight of the regulariser that merges centres")


class ContrastiveSettings(Settings):
    """Contrastive loss (Hadsell et al. 2006), on similarities."""

    positive_margin: float = Field(1.0, description="positives below this similarity are pulled")
    negative_margin: float = Field(0.5, description="negatives above this similarity are pushed")


class BinomialDevianceSettings(Settings):
    """Binomial deviance (Yi et al. 2014)."""

    alpha: PositiveFloat = Field(2.0, description="sharpness for positives")
    beta: PositiveFloat = Field(40.0, description="sharpness for negatives")
    base: float = Field(0.5, description="similarity that both terms pivot on")


class TripletSettings(Settings):
    """Triplet loss (Schroff et al. 2015; Hermans et al. 2017), on similarities."""

    margin: float = Field(0.1, description="by how much a positive shall be more similar than a negative")
    soft: bool = Field(False, description="a soft margin, log(1 + exp), in place of the hinge")
    negatives: Literal["all", "semi_hard"] = Field("all", description="which negatives stand in a triplet")
    average: Literal["active", "all"] = Field("active", description="over which triplets the mean is taken")


class LiftedStructureSettings(Settings):
    """Lifted structure generalised to all positives (Hermans et al. 2017), on similarities."""

    scale: PositiveFloat = Field(1.0, description="sharpness")
    margin: float = Field(1.0, description="added to similarities of negatives")


class OriginalLiftedStructureSettings(Settings):
    """Lifted structure as in the paper (Song et al. 2016), on Euclidean distances."""

    margin: float = Field(1.0, description="distance that negatives shall have")


class EuclideanContrastiveSettings(Settings):
    """Contrastive loss on Euclidean distances (Hadsell et al. 2006)."""

    positive_margin: NonNegative = Field(0.0, description="positives beyond this distance are pulled")
    negative_margin: PositiveFloat = Field(1.0, description="negatives within this distance are pushed; at most 2")
    power: Literal[1, 2] = Field(2, description="of the hinges; 2 in the paper")


class PairLogisticSettings(Settings):
    """Logistic loss of each pair, on a learned affine of the similarity (Zhai et al. 2023)."""

    scale: PositiveFloat = Field(10.0, description="of similarities, at the start")
    bias: float = Field(-10.0, description="at the start; below 0, because most pairs are negatives")


class HingesSettings(Settings):
    """Sum or max of hinges (Kiros et al. 2014; VSE++, Faghri et al. 2018)."""

    margin: float = Field(0.2, description="by how much a positive shall be more similar than a negative")


class SmoothAPSettings(Settings):
    """Smooth-AP (Brown et al. 2020)."""

    temperature: PositiveFloat = Field(0.01, description="differences of similarities are divided by it")


class NPairSettings(Settings):
    """N-pair loss (Sohn 2016)."""

    temperature: PositiveFloat = Field(1.0, description="similarities are divided by it")


class NTXentSettings(Settings):
    """NT-Xent, or InfoNCE (Chen et al. 2020)."""

    temperature: PositiveFloat = Field(0.07, description="similarities are divided by it")


class SupConSettings(Settings):
    """Supervised contrastive loss (Khosla et al. 2020)."""

    temperature: PositiveFloat = Field(0.1, description="similarities are divided by it")


class CircleSettings(Settings):
    """Circle loss (Sun et al. 2020)."""

    margin: float = Field(0.4, description="m; 0.25 for faces and 0.4 for retrieval in the paper")
    gamma: PositiveFloat = Field(80.0, description="scale; 256 for faces and 80 for retrieval in the paper")


class NormalisedSoftmaxSettings(Settings):
    """Normalised softmax over class centres (Zhai and Wu 2019)."""

    temperature: PositiveFloat = Field(0.05, description="similarities are divided by it")


class CosFaceSettings(Settings):
    """CosFace (Wang et al. 2018)."""

    scale: PositiveFloat = Field(64.0, description="inverse temperature")
    margin: float = Field(0.35, description="similarity taken off the true class")


class ArcFaceSettings(Settings):
    """ArcFace (Deng et al. 2019); sub-centre ArcFace with several centres a class (Deng et al. 2020)."""

    centres_per_class: Positive = Field(1, description="K; 3 in the sub-centre paper")
    scale: PositiveFloat = Field(64.0, description="inverse temperature")
    margin_rad: Annotated[float, Field(ge=0, lt=1.57)] = Field(0.5, description="angle added to the true class's")
    margin_power: NonNegative = Field(
        0.0, description="above 0 the margin shrinks with the class's training images n, by n^-power; 0.25 is common"
    )
    least_margin_rad: Annotated[float, Field(ge=0, lt=1.57)] = Field(
        0.05, description="margin of a class of very many images, where it shrinks"
    )


class AdaCosSettings(Settings):
    """AdaCos (Zhang et al. 2019): it has none."""


class ProxyNCASettings(Settings):
    """Proxy-NCA (Movshovitz-Attias et al. 2017)."""

    scale: PositiveFloat = Field(2.0, description="of similarities; 2 is the paper's squared distance")


class ProxyNCAPlusPlusSettings(Settings):
    """Proxy-NCA++ (Teh et al. 2020)."""

    temperature: PositiveFloat = Field(1 / 9, description="squared distances are divided by it; 1/9 in the paper")


class ProxyAnchorSettings(Settings):
    """Proxy-Anchor (Kim et al. 2020)."""

    alpha: PositiveFloat = Field(32.0, description="sharpness")
    margin: float = Field(0.1, description="similarity margin")


class MemorySettings(Settings):
    """Cross-batch memory of a pair loss (XBM, Wang et al. 2020)."""

    rows: Annotated[int, Field(ge=0)] = Field(0, description="embeddings of past batches to compare with; 0: none")
    start_step: Annotated[int, Field(ge=0)] = Field(1000, description="batches before the first is remembered")
    weight: PositiveFloat = Field(1.0, description="weight of the term against the memory")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="above 0 the memory holds keys of a momentum encoder with this decay (MoCo); 0.999 is common"
    )


class LossSettings(Settings):
    """The joint loss: a metric term and a classification term."""

    metric: str = Field(
        "multi_similarity",
        description="metric head: one that `productrec losses` lists, none, or your own as package.module:Name",
    )
    mining: Literal[
        "auto", "none", "multi_similarity", "semi_hard", "hardest", "easy_positive", "distance_weighted"
    ] = Field("auto", description="which pairs are weighed; auto: multi_similarity for multi_similarity, else none")
    memory: MemorySettings = MemorySettings()
    options: dict[str, Any] = Field(default_factory=dict, description="settings of a loss of your own")
    metric_weight: NonNegative = Field(0.5, description="weight of the metric term")
    classification_weight: NonNegative = Field(1.0, description="weight of the classification term")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="of the classification term")
    multi_similarity: MultiSimilaritySettings = MultiSimilaritySettings()
    contrastive: ContrastiveSettings = ContrastiveSettings()
    euclidean_contrastive: EuclideanContrastiveSettings = EuclideanContrastiveSettings()
    pair_logistic: PairLogisticSettings = PairLogisticSettings()
    binomial_deviance: BinomialDevianceSettings = BinomialDevianceSettings()
    triplet: TripletSettings = TripletSettings()
    lifted_structure: LiftedStructureSettings = LiftedStructureSettings()
    original_lifted_structure: OriginalLiftedStructureSettings = OriginalLiftedStructureSettings()
    sum_of_hinges: HingesSettings = HingesSettings()
    max_of_hinges: HingesSettings = HingesSettings()
    smooth_ap: SmoothAPSettings = SmoothAPSettings()
    n_pair: NPairSettings = NPairSettings()
    nt_xent: NTXentSettings = NTXentSettings()
    sup_con: SupConSettings = SupConSettings()
    circle: CircleSettings = CircleSettings()
    normalised_softmax: NormalisedSoftmaxSettings = NormalisedSoftmaxSettings()
    cos_face: CosFaceSettings = CosFaceSettings()
    arc_face: ArcFaceSettings = ArcFaceSettings()
    ada_cos: AdaCosSettings = AdaCosSettings()
    proxy_nca: ProxyNCASettings = ProxyNCASettings()
    proxy_nca_pp: ProxyNCAPlusPlusSettings = ProxyNCAPlusPlusSettings()
    proxy_anchor: ProxyAnchorSettings = ProxyAnchorSettings()
    soft_triple: SoftTripleSettings = SoftTripleSettings()

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, value: str) -> str:
        if value not in (*METRIC_LOSSES, "none") and ":" not in value:
            near = difflib.get_close_matches(value, METRIC_LOSSES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"{hint}must be one of {', '.join(METRIC_LOSSES)}, none, or package.module:Name")
        return value

    def get_metric_settings(self) -> dict[str, Any]:
        """Settings of the chosen metric loss itself, without those of its mining."""
        if self.metric in METRIC_LOSSES:
            section: Settings = getattr(self, self.metric)
            return section.model_dump(exclude={"epsilon"})
        return dict(self.options)

    @model_validator(mode="after")
    def _check_something_is_learned(self) -> "LossSettings":
        if self.classification_weight == 0 and (self.metric == "none" or self.metric_weight == 0):
            raise ValueError(
                "a loss must be left; both terms are off. Give metric_weight or classification_weight above 0"
            )
        return self


class TrainSettings(Settings):
    """How the model is trained."""

    splits: tuple[Literal["train", "val"], ...] = Field(("train",), min_length=1, description="splits to train on")
    force_splits: bool = Field(False, description="train on splits the competition's rules forbid")
    epochs: Positive = Field(30, description="passes over the training images")
    batch_size: Annotated[int, Field(ge=2)] = Field(64, description="images per step")
    sampler: Literal["auto", "pk", "shuffle"] = Field(
        "auto",
        description="pk: P classes times K images (auto takes it for pair losses); shuffle: each image once",
    )
    images_per_class: Annotated[int, Field(ge=2)] = Field(4, description="K of the PK sampler; must divide batch_size")
    hard_classes: Fraction = Field(
        0.0,
        description="share of a PK batch's classes that are the nearest to its first, searched as training goes on",
    )
    mine_every: Positive = Field(1, description="epochs between two searches for near classes")
    side_px: Annotated[int, Field(ge=16)] = Field(224, description="side of the square the network sees")
    augmentation: str = Field(
        "product", description="none, light, product, in_the_wild, heavy, or a serialised albumentations file"
    )
    cut_mix: Fraction = Field(
        0.0, description="share of batches mixed by CutMix; they have the classification term alone"
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="SGD has Nesterov momentum 0.9")
    learning_rate: PositiveFloat = Field(1e-3, description="peak rate of the backbone")
    head_rate_factor: PositiveFloat = Field(
        1.0, description="rate of pooling, neck and classification head, times the backbone's"
    )
    centre_rate_factor: PositiveFloat = Field(
        100.0, description="rate of a metric loss's centres, times the backbone's"
    )
    weight_decay: NonNegative = Field(0.05, description="decoupled for AdamW; not on norms, biases and centres")
    warmup_epochs: NonNegative = Field(1.0, description="linear warm-up before the cosine")
    gradient_clip: NonNegative = Field(5.0, description="largest gradient norm; 0 for no clipping")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="decay per step of the weights' moving average, which is then validated and kept; 0: off",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of activations; losses stay float32"
    )
    compile: bool = Field(False, description="torch.compile the network")
    workers: Annotated[int, Field(ge=-1)] = Field(-1, description="loader processes; -1 chooses by cores and device")
    validate_every: Positive = Field(1, description="epochs between validations")
    keep_best_by: Literal["top_1_accuracy", "top_3_error", "recall@1", "map@r"] = Field(
        "top_1_accuracy", description="validation figure that decides which checkpoint is the best one"
    )


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
    sample: Path | None = Field(None, description="sample submission; default the one in the source folder")
