"""Settings of the losses: a section for each metric loss, and the joint loss they stand in."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from productrec.settings.fields import NonNegative, Positive, PositiveFloat, Settings

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


_NOT_OF_THE_LOSS = {"epsilon", "merge_every_epochs", "merge_distance", "merge_tolerance"}


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
    merge_every_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs between two merges of centres that came together; 0: never"
    )
    merge_distance: Annotated[float, Field(ge=0, le=2)] = Field(
        0.2, description="centres of a class joined by steps of at most this become one"
    )
    merge_tolerance: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="fall of top-1 accuracy by centres, on validation images, above which a merge is taken back"
    )


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
        description="metric head: one that `productrec losses` lists, none, or your own as package.module:Name (with "
        "--allow-code)",
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
        """Settings of the chosen metric loss itself, without those of its mining and of what merges its centres."""
        if self.metric in METRIC_LOSSES:
            section: Settings = getattr(self, self.metric)
            return section.model_dump(exclude=_NOT_OF_THE_LOSS)
        return dict(self.options)

    @model_validator(mode="after")
    def _check_options(self) -> "LossSettings":
        if self.options and ":" not in self.metric:
            place = (
                f"those of {self.metric} stand in loss.{self.metric}"
                if self.metric in METRIC_LOSSES
                else "there is none"
            )
            raise ValueError(f"options must be left out but for a loss of your own (package.module:Name); {place}")
        return self

    @model_validator(mode="after")
    def _check_something_is_learned(self) -> "LossSettings":
        if self.classification_weight == 0 and (self.metric == "none" or self.metric_weight == 0):
            raise ValueError(
                "a loss must be left; both terms are off. Give metric_weight or classification_weight above 0"
            )
        return self
