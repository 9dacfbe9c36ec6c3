"""The recipe: every setting of every stage, typed, with default, unit and meaning; read from YAML plus ``key=value``.

Only `cli` and `stages` see a recipe; library functions take plain keyword arguments. Relative paths are relative to the
folder the command is run in.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from productrec.errors import RecipeError

Split = Literal["train", "val", "test"]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


PAIR_LOSSES = (
    "multi_similarity",
    "contrastive",
    "binomial_deviance",
    "triplet",
    "lifted_structure",
    "nt_xent",
    "sup_con",
    "circle",
)
METRIC_LOSSES = (
    *PAIR_LOSSES,
    "normalised_softmax",
    "cos_face",
    "arc_face",
    "proxy_nca",
    "proxy_anchor",
    "soft_triple",
)


class Settings(BaseModel):
    """A section of the recipe: unknown keys are refused and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class DataSettings(Settings):
    """Where the images and labels come from, and the table they become."""

    source: Path | None = Field(None, description="folder of the competition's files")
    format: Literal["auto", "fgvc_json", "csv", "folders"] = Field("auto", description="layout of the source")
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
    """Lifted structure (Song et al. 2016), generalised to all positives (Hermans et al. 2017)."""

    scale: PositiveFloat = Field(1.0, description="sharpness")
    base: float = Field(0.5, description="similarity that both terms pivot on")


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


class ProxyNCASettings(Settings):
    """Proxy-NCA (Movshovitz-Attias et al. 2017)."""

    scale: PositiveFloat = Field(2.0, description="of similarities; 2 is the paper's squared distance")


class ProxyAnchorSettings(Settings):
    """Proxy-Anchor (Kim et al. 2020)."""

    alpha: PositiveFloat = Field(32.0, description="sharpness")
    margin: float = Field(0.1, description="similarity margin")


class MemorySettings(Settings):
    """Cross-batch memory of a pair loss (XBM, Wang et al. 2020)."""

    rows: Annotated[int, Field(ge=0)] = Field(0, description="embeddings of past batches to compare with; 0: none")
    start_step: Annotated[int, Field(ge=0)] = Field(1000, description="batches before the first is remembered")
    weight: PositiveFloat = Field(1.0, description="weight of the term against the memory")


class LossSettings(Settings):
    """The joint loss: a metric term and a classification term."""

    metric: str = Field(
        "multi_similarity",
        description="metric head: one that `productrec losses` lists, none, or your own as package.module:Name",
    )
    mining: Literal["auto", "none", "multi_similarity", "hardest", "easy_positive"] = Field(
        "auto", description="which pairs a pair loss weighs; auto: multi_similarity for multi_similarity, else none"
    )
    memory: MemorySettings = MemorySettings()
    options: dict[str, Any] = Field(default_factory=dict, description="settings of a loss of your own")
    metric_weight: NonNegative = Field(0.5, description="weight of the metric term")
    classification_weight: NonNegative = Field(1.0, description="weight of the classification term")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="of the classification term")
    multi_similarity: MultiSimilaritySettings = MultiSimilaritySettings()
    contrastive: ContrastiveSettings = ContrastiveSettings()
    binomial_deviance: BinomialDevianceSettings = BinomialDevianceSettings()
    triplet: TripletSettings = TripletSettings()
    lifted_structure: LiftedStructureSettings = LiftedStructureSettings()
    nt_xent: NTXentSettings = NTXentSettings()
    sup_con: SupConSettings = SupConSettings()
    circle: CircleSettings = CircleSettings()
    normalised_softmax: NormalisedSoftmaxSettings = NormalisedSoftmaxSettings()
    cos_face: CosFaceSettings = CosFaceSettings()
    arc_face: ArcFaceSettings = ArcFaceSettings()
    proxy_nca: ProxyNCASettings = ProxyNCASettings()
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
    side_px: Annotated[int, Field(ge=16)] = Field(224, description="side of the square the network sees")
    augmentation: str = Field("product", description="none, light, product, heavy, or a serialised albumentations file")
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


class Recipe(Settings):
    """A whole pipeline, from a source folder to a CSV."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = Field(
        description="names runs, table and CSV"
    )
    competition: str = Field("plain", description="contract: a bundled name or a YAML file")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="decides initial weights, data order and augmentation")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    runs: Path = Field(Path("runs"), description="folder that run folders land in")
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    predict: PredictSettings = PredictSettings()
    submit: SubmitSettings = SubmitSettings()
    members: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="several models: a name and what differs from the recipe above for each"
    )

    @field_validator("members", mode="before")
    @classmethod
    def _check_members(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name in value:
                if not str(name).replace("_", "").replace("-", "").isalnum():
                    raise ValueError(f"a member's name must be letters, digits, - and _; got {name!r}")
        return value

    @model_validator(mode="after")
    def _check_mixing(self) -> "Recipe":
        if self.train.cut_mix and not self.loss.classification_weight:
            raise ValueError(
                "train.cut_mix must be 0 where loss.classification_weight is 0, or mixed batches teach nothing"
            )
        return self

    @model_validator(mode="after")
    def _check_batches(self) -> "Recipe":
        if self.uses_pk_sampler and self.train.batch_size % self.train.images_per_class:
            raise ValueError(
                f"train.images_per_class must divide train.batch_size; got {self.train.images_per_class} and "
                f"{self.train.batch_size}. Use {_nearest_divisor(self.train.batch_size, self.train.images_per_class)}"
            )
        return self

    @property
    def uses_pk_sampler(self) -> bool:
        """Whether batches hold P classes times K images."""
        pairwise = self.loss.metric in PAIR_LOSSES or ":" in self.loss.metric
        auto = self.train.sampler == "auto" and pairwise
        return self.train.sampler == "pk" or auto

    @property
    def table(self) -> Path:
        """Folder of the image table."""
        return self.data.table or Path("data") / self.name

    @property
    def run_folder(self) -> Path:
        """Folder of the run (of the members' runs, where there are several)."""
        return self.runs / self.name

    def resolve_members(self) -> dict[str, "Recipe"]:
        """One recipe a model, by run folder name: itself, or each member with its own settings and no members.

        Raises:
            RecipeError: a member's settings are not valid.
        """
        if not self.members:
            return {self.name: self}
        plain = self.model_dump(exclude={"members"})
        resolved = {}
        for name, changes in self.members.items():
            fixed = sorted({"name", "runs", "members"} & changes.keys())
            if fixed:
                raise RecipeError(
                    f"member {name}: {', '.join(fixed)} must be left to the recipe above. "
                    "A member is named by its key, and its run lands below the recipe's."
                )
            merged = _merge(plain, changes)
            merged.update(name=name, runs=self.run_folder, data=merged["data"] | {"table": self.table})
            resolved[name] = _validate(merged, f"member {name}")
        return resolved

    def dump(self) -> dict[str, Any]:
        """The recipe as plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in one section, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML and apply ``key=value`` overrides, for instance ``loss.metric=soft_triple``.

    Raises:
        RecipeError: no such file, not YAML, an unknown key (the nearest valid one is named), or a value of wrong type.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # a SafeLoader
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe. See pipelines/ for some to run and copy.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}). Name a YAML file.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise RecipeError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: must hold settings by name; got {type(raw).__name__}. See pipelines/ for examples.")
    raw.setdefault("name", path.stem)
    for override in overrides:
        raw = _merge(raw, _parse_override(override))
    return _validate(raw, str(path))


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, with the same checks as `load_recipe`."""
    return _validate(dict(values), "recipe")


def save_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every setting spelled out."""
    return yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True)


def list_settings() -> dict[str, tuple[str, str]]:
    """Every dotted key with its default and its meaning."""
    return dict(_walk(Recipe, ""))


def _walk(section: type[BaseModel], prefix: str) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for name, field in section.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            found += _walk(nested, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
            found.append((prefix + name, (default, field.description or "")))
    return found


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"override {text!r}: must be key=value, for instance train.epochs=10.")
    try:
        parsed: Any = yaml.safe_load(value) if value.strip() else None
    except (yaml.YAMLError, ValueError):
        parsed = value
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    assert isinstance(parsed, dict)
    return parsed


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and value and isinstance(below, Mapping):
            merged[key] = _merge(below, value)  # an empty mapping empties: members={}
        else:
            merged[key] = value
    return merged


def _validate(raw: dict[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(_describe(item) for item in error.errors()[:5])) from None
    recipe.resolve_members()  # a member's fault is told now, not after the first one's training
    return recipe


def _describe(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}. {_suggest_key(key)}"
    if item["type"] == "missing":
        return f"{key!r} must be given"
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return f"{message}."
    return f"{key}: {message[:1].lower()}{message[1:]}; got {item['input']!r}."


def _suggest_key(key: str) -> str:
    known = list(list_settings())
    sections = {name.rpartition(".")[0] for name in known if "." in name}
    last = key.rpartition(".")[2]
    elsewhere = [name for name in known if name.rpartition(".")[2] == last]  # the right name in the wrong section
    near = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(key, [*known, *sections], n=1, cutoff=0.6)
    if not near:
        by_last = {name.rpartition(".")[2]: name for name in known}
        near = [by_last[match] for match in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)]
    return f"Did you mean {near[0]!r}?" if near else "`productrec settings` lists the valid ones."


def _nearest_divisor(batch_size: int, wanted: int) -> str:
    divisors = [number for number in range(2, batch_size + 1) if batch_size % number == 0]
    below = [number for number in divisors if number < wanted][-1:]
    above = [number for number in divisors if number > wanted][:1]
    return " or ".join(str(number) for number in below + above)
