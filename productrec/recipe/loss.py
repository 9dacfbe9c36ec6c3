"""The joint loss of a recipe: a metric term, chosen by name with its own settings, and a classification term."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializeAsAny, field_serializer, field_validator, model_validator

from productrec.losses.catalogue import list_losses
from productrec.losses.declared import MetricLoss, PairLoss
from productrec.losses.engine.mining import MINING_RULES, MiningRule
from productrec.losses.own_loss import OwnLoss
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.settings.choices import read_choice
from productrec.settings.fields import Count, NonNegative, PositiveFloat, Settings, ShareBelowOne, setting
from productrec.settings.text import NAME

DEFAULT_LOSS = "multi_similarity"
DEFAULT_TITLE_LOSS = "nt_xent"
NONE, AUTO = "none", "auto"
CHOICES = ("loss.metric", "loss.mining", "loss.titles.loss", "loss.titles.mining")  # settings that are one of several


class MemorySettings(Settings):
    """Cross-batch memory of a pair loss (XBM, Wang et al. 2020)."""

    rows: Count = setting(0, "embeddings of past batches to compare with; 0: none")
    start_step: Count = setting(1000, "batches before the first is remembered")
    weight: PositiveFloat = setting(1.0, "weight of the term against the memory")
    momentum: ShareBelowOne = setting(
        0.0, "above 0 the memory holds keys of a momentum encoder with this decay (MoCo); 0.999 is common"
    )


class TitleMemorySettings(Settings):
    """Cross-batch memory of images and of titles."""

    rows: Count = setting(0, "images, and titles, of past batches to compare with; 0: none")
    start_step: Count = setting(1000, "batches before the first is remembered")
    weight: PositiveFloat = setting(1.0, "weight of the term against the memory")


class TitleLossSettings(Settings):
    """The loss between images and titles, both ways, where there is a text tower."""

    loss: SerializeAsAny[PairLoss] = setting(
        DEFAULT_TITLE_LOSS,
        "a loss over pairs that `productrec losses` lists, with images as anchors and titles as references and back; "
        "alone, or with settings as {name: max_of_hinges, margin: 0.3}",
        validate_default=True,
    )
    mining: SerializeAsAny[MiningRule] | Literal["auto"] | None = setting(
        AUTO, "which pairs are weighed, as loss.mining"
    )
    weight: NonNegative = setting(1.0, "weight of the term")
    warm_up_epochs: NonNegative = setting(
        0.0, "epochs in which a sum of hinges passes over into the loss, for max_of_hinges, which begins hard"
    )
    positives: Literal["class", "title"] = setting(
        "class",
        "what else than its own title an image matches: class: those of its class, and equal ones; title: equal ones",
    )
    memory: TitleMemorySettings = TitleMemorySettings()

    @field_validator("loss", mode="before")
    @classmethod
    def _choose_loss(cls, value: Any) -> PairLoss:
        losses = list_losses()
        chosen = read_choice(value, losses.get, losses, default=DEFAULT_TITLE_LOSS)
        if not isinstance(chosen, PairLoss):
            raise ValueError(f"must be a loss over pairs; {chosen.get_name()} learns centres of classes instead")
        return chosen

    @field_validator("mining", mode="before")
    @classmethod
    def _choose_title_mining(cls, value: Any) -> MiningRule | str | None:
        return _read_mining(value)

    @model_validator(mode="after")
    def _check_warm_up(self) -> TitleLossSettings:
        if self.warm_up_epochs and not isinstance(self.loss, MaxOfHinges):
            raise ValueError(
                f"warm_up_epochs leads from the sum of hinges to max_of_hinges; got {self.loss.get_name()}. Set it to 0"
            )
        return self

    @field_serializer("loss", "mining", mode="wrap")
    def _dump_title_choice(self, value: Any, handler: Any) -> Any:
        return NONE if value is None else handler(value)


class LossSettings(Settings):
    """The joint loss: a metric term and a classification term."""

    metric: SerializeAsAny[MetricLoss] | None = setting(
        DEFAULT_LOSS,
        "metric head: one that `productrec losses` lists, none, or your own as package.module:Name (with "
        "--allow-code); alone, or with settings as {name: circle, margin: 0.3}",
        validate_default=True,
    )
    mining: SerializeAsAny[MiningRule] | Literal["auto"] | None = setting(
        AUTO,
        f"which pairs are weighed: {', '.join(MINING_RULES)}, none, or auto, the mining of the loss's own paper, such "
        "as multi_similarity for multi_similarity, and none for most; alone, or with settings as {name: semi_hard, "
        "margin: 0.2}",
    )
    memory: MemorySettings = MemorySettings()
    metric_weight: NonNegative = setting(0.5, "weight of the metric term")
    classification_weight: NonNegative = setting(1.0, "weight of the classification term")
    label_smoothing: ShareBelowOne = setting(
        0.1, "share of the classification term's target that all classes have evenly"
    )
    titles: TitleLossSettings = TitleLossSettings()

    @field_validator("metric", mode="before")
    @classmethod
    def _choose_metric(cls, value: Any) -> MetricLoss | None:
        name = value.get(NAME) if isinstance(value, dict) else value
        if name in (NONE, None) and not (isinstance(value, dict) and NAME not in value):
            return None
        if isinstance(name, str) and ":" in name:
            settings = {key: given for key, given in value.items() if key != NAME} if isinstance(value, dict) else {}
            return OwnLoss(path=name, **settings)
        losses = list_losses()
        return read_choice(value, losses.get, [*losses, NONE, "package.module:Name"], default=DEFAULT_LOSS)

    @field_validator("mining", mode="before")
    @classmethod
    def _choose_mining(cls, value: Any) -> MiningRule | str | None:
        return _read_mining(value)

    @field_serializer("metric", "mining", mode="wrap")
    def _dump_choice(self, value: Any, handler: Any) -> Any:
        return NONE if value is None else handler(value)

    @property
    def needs_labels(self) -> bool:
        """Whether a term looks at classes."""
        return self.classification_weight > 0 or (self.metric is not None and self.metric_weight > 0)

    @property
    def compares_pairs(self) -> bool:
        """Whether the metric term compares images with images."""
        return self.metric is not None and self.metric.kind == "pair"


def _read_mining(value: Any) -> MiningRule | str | None:
    if value in (NONE, None):
        return None
    if value == AUTO:
        return AUTO
    return read_choice(value, MINING_RULES.get, [*MINING_RULES, NONE, AUTO], default="multi_similarity")
