"""The catalogue: every metric loss by the name a recipe calls it, with its formula and where it is from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from productrec.errors import RecipeError
from productrec.losses.engine.mining import (
    DistanceWeightedMining,
    EasyPositiveMining,
    HardestMining,
    MultiSimilarityMining,
    SemiHardMining,
)
from productrec.losses.engine.pair_loss import Mining, PairLoss, RelatedPairLoss
from productrec.losses.pair.euclidean import EuclideanContrastive, OriginalLiftedStructure
from productrec.losses.pair.memory import CrossBatchMemory
from productrec.losses.pair.own_loss import build_own_loss
from productrec.losses.pair.pair_logistic import Logistic, PairLogisticLoss
from productrec.losses.pair.pairwise import (
    BinomialDeviance,
    Circle,
    Contrastive,
    LiftedStructure,
    MultiSimilarity,
    NPair,
    NTXent,
    PairwiseLoss,
    SupCon,
)
from productrec.losses.pair.ranking import MaxOfHinges, SmoothAP, SumOfHinges, Triplet
from productrec.losses.proxy.margin_softmax import (
    AdaCosLoss,
    ArcFaceLoss,
    CosFaceLoss,
    NormalisedSoftmaxLoss,
    ProxyNCAPlusPlusLoss,
)
from productrec.losses.proxy.proxy import ProxyAnchorLoss, ProxyNCALoss
from productrec.losses.proxy.soft_triple import SoftTripleLoss

MiningName = Literal["auto", "none", "multi_similarity", "semi_hard", "hardest", "easy_positive", "distance_weighted"]


@dataclass(frozen=True)
class Entry:
    """One loss: how it is built, what it computes for an anchor (p: its positives, n: its negatives), its source."""

    build: type
    formula: str
    source: str


PAIR_LOSSES: dict[str, Entry] = {
    "multi_similarity": Entry(
        MultiSimilarity,
        "log(1 + sum_p e^(-alpha (p - base))) / alpha + log(1 + sum_n e^(beta (n - base))) / beta",
        "Wang et al., CVPR 2019",
    ),
    "contrastive": Entry(
        Contrastive,
        "sum_p [positive_margin - p]+ + sum_n [n - negative_margin]+",
        "Hadsell et al., CVPR 2006",
    ),
    "euclidean_contrastive": Entry(
        EuclideanContrastive,
        "sum_p [d_p - positive_margin]+^power + sum_n [negative_margin - d_n]+^power, d = sqrt(2 - 2 s)",
        "Hadsell et al., CVPR 2006",
    ),
    "pair_logistic": Entry(
        PairLogisticLoss,
        "sum_p log(1 + e^(-(a p + b))) + sum_n log(1 + e^(a n + b)), learned a and b",
        "Zhai et al., ICCV 2023",
    ),
    "binomial_deviance": Entry(
        BinomialDeviance,
        "mean_p log(1 + e^(-alpha (p - base))) + mean_n log(1 + e^(beta (n - base)))",
        "Yi et al., ICPR 2014",
    ),
    "triplet": Entry(
        Triplet, "mean over triplets of [n - p + margin]+", "Schroff et al., CVPR 2015; Hermans et al. 2017"
    ),
    "lifted_structure": Entry(
        LiftedStructure,
        "[log sum_p e^(-scale p) + log sum_n e^(scale (n + margin))]+ / scale",
        "Song et al., CVPR 2016; Hermans et al. 2017",
    ),
    "original_lifted_structure": Entry(
        OriginalLiftedStructure,
        "mean over positive pairs of [d + log(sum of e^(margin - d) over the negatives of both)]+^2 / 2",
        "Song et al., CVPR 2016",
    ),
    "sum_of_hinges": Entry(SumOfHinges, "sum_p sum_n [n - p + margin]+", "Kiros et al. 2014"),
    "max_of_hinges": Entry(MaxOfHinges, "sum_p [max_n - p + margin]+", "Faghri et al., BMVC 2018 (VSE++)"),
    "smooth_ap": Entry(
        SmoothAP, "1 - average precision, ranks smoothed by sigmoid((s - p) / t)", "Brown et al., ECCV 2020"
    ),
    "n_pair": Entry(NPair, "mean over positives of log(1 + sum_n e^((n - p) / t))", "Sohn, NeurIPS 2016"),
    "nt_xent": Entry(
        NTXent, "mean over positives of -log e^(p/t) / (e^(p/t) + sum_n e^(n/t))", "Chen et al., ICML 2020"
    ),
    "sup_con": Entry(SupCon, "mean_p -log e^(p/t) / (sum_p e^(p/t) + sum_n e^(n/t))", "Khosla et al., NeurIPS 2020"),
    "circle": Entry(
        Circle,
        "log(1 + sum_n e^(gamma [n + m]+ (n - m)) sum_p e^(-gamma [1 + m - p]+ (p - 1 + m)))",
        "Sun et al., CVPR 2020",
    ),
}
PROXY_LOSSES: dict[str, Entry] = {
    "normalised_softmax": Entry(
        NormalisedSoftmaxLoss, "-log e^(p/t) / (e^(p/t) + sum_n e^(n/t))", "Zhai and Wu, BMVC 2019"
    ),
    "cos_face": Entry(
        CosFaceLoss, "normalised softmax, scale (p - margin) in place of scale p", "Wang et al., CVPR 2018"
    ),
    "arc_face": Entry(
        ArcFaceLoss,
        "normalised softmax, scale cos(arccos p + margin_rad) in place of scale p; nearest of several centres; with "
        "margin_power > 0 the margin is smaller for classes of many images",
        "Deng et al., CVPR 2019 and ECCV 2020",
    ),
    "ada_cos": Entry(
        AdaCosLoss, "normalised softmax whose scale follows the median angle of the batch", "Zhang et al., CVPR 2019"
    ),
    "proxy_nca": Entry(ProxyNCALoss, "-scale p + log sum_n e^(scale n)", "Movshovitz-Attias et al., ICCV 2017"),
    "proxy_nca_pp": Entry(
        ProxyNCAPlusPlusLoss, "-log e^(2 p/t) / (e^(2 p/t) + sum_n e^(2 n/t))", "Teh et al., ECCV 2020"
    ),
    "proxy_anchor": Entry(
        ProxyAnchorLoss,
        "of a centre: log(1 + sum_p e^(-alpha (p - margin))) + log(1 + sum_n e^(alpha (n + margin)))",
        "Kim et al., CVPR 2020",
    ),
    "soft_triple": Entry(
        SoftTripleLoss,
        "-log softmax_y(scale (sum_k softmax_k(x w / gamma) x w - margin [y])) + tau mean centre distance",
        "Qian et al., ICCV 2019",
    ),
}


_SIZES = "class_sizes"
_NOT_SETTINGS = (_SIZES, "mining")


class Description(NamedTuple):
    """A loss as a list shows it."""

    name: str
    formula: str
    settings: str
    source: str


def describe_losses() -> list[Description]:
    """Every loss with its formula, its settings with their defaults, and its source."""
    described = []
    for name, entry in (PAIR_LOSSES | PROXY_LOSSES).items():
        parameters = inspect.signature(entry.build).parameters.values()
        known = [one for one in parameters if one.default is not one.empty and one.name not in _NOT_SETTINGS]
        settings = [f"{one.name} {one.default}" for one in known]
        described.append(Description(name, entry.formula, ", ".join(settings), entry.source))
    return described


def list_pair_losses() -> dict[str, tuple[PairLoss | RelatedPairLoss, Mining | None]]:
    """Every pair loss with its default settings, and the mining that ``auto`` means for it."""
    losses: dict[str, tuple[PairLoss | RelatedPairLoss, Mining | None]] = {}
    for name, entry in PAIR_LOSSES.items():
        built = entry.build()
        if isinstance(built, PairLogisticLoss):
            built = Logistic(built.log_scale.exp().item(), built.bias.item())
        mining = MultiSimilarityMining() if name == "multi_similarity" else None
        losses[name] = (built, mining)
    return losses


def build_metric_loss(
    name: str,
    settings: Mapping[str, Any],
    *,
    mining: MiningName = "auto",
    mining_epsilon: float = 0.1,
    memory_rows: int = 0,
    memory_start_step: int = 1000,
    memory_weight: float = 1.0,
    memory_momentum: float = 0.0,
    embedding_dim: int,
    class_count: int,
    class_sizes: Sequence[int] | None = None,
    allow_code: bool = False,
) -> nn.Module | None:
    """A metric loss by name, or a user's own pair loss by its import path.

    Args:
        name: one of the catalogue, ``none``, or ``package.module:Name`` of a class whose instances are a `PairLoss`.
        settings: keyword arguments of the loss.
        mining: rule of a pair loss; ``auto`` is Multi-Similarity's own for Multi-Similarity, none for all others.
        mining_epsilon: margin of Multi-Similarity's mining.
        memory_rows: embeddings of past batches that a pair loss also compares with; 0 for none.
        memory_start_step: batches before the first is remembered.
        memory_weight: weight of the term against the memory.
        memory_momentum: above 0 the memory holds what a momentum encoder says.
        embedding_dim: D, for losses with centres.
        class_count: C, for losses with centres.
        class_sizes: (C,) training images of each class, for margins that depend on them.
        allow_code: whether an import path outside of `productrec.losses` may be imported, which runs it.

    Raises:
        RecipeError: no such loss, its code is not allowed, its settings do not fit, or a mining rule for a loss
            without pairs.
    """
    if name == "none":
        return None
    if name in PROXY_LOSSES:
        if mining not in ("auto", "none"):
            raise RecipeError(f"loss.mining: must be auto or none for {name}, which has no pairs; got {mining!r}.")
        if memory_rows:
            raise RecipeError(f"loss.memory: must be left out for {name}, which has no pairs; got {memory_rows} rows.")
        build = PROXY_LOSSES[name].build
        given = {_SIZES: class_sizes} if _SIZES in inspect.signature(build).parameters else {}
        module: nn.Module = build(embedding_dim, class_count, **settings, **given)
        return module
    if name in PAIR_LOSSES:
        try:
            loss = PAIR_LOSSES[name].build(**settings)
        except TypeError as error:
            raise RecipeError(f"loss.metric {name}: its settings do not fit ({error}).") from None
    elif ":" in name:
        loss = build_own_loss(name, settings, allow_code=allow_code)
    else:
        known = ", ".join([*PAIR_LOSSES, *PROXY_LOSSES])
        raise RecipeError(f"loss.metric: must be one of {known}, none, or package.module:Name; got {name!r}.")
    rule: str = ("multi_similarity" if name == "multi_similarity" else "none") if mining == "auto" else mining
    if hasattr(loss, "summarise") and (rule != "none" or memory_rows):
        raise RecipeError(
            f"loss.mining and loss.memory: must be left out for {name}, which weighs a pair by both rows; got mining "
            f"{rule} and {memory_rows} rows."
        )
    pairwise = loss if isinstance(loss, PairwiseLoss) else PairwiseLoss(loss)
    pairwise.mining = _build_mining(rule, mining_epsilon, getattr(loss, "margin", 0.1), embedding_dim)
    if not memory_rows:
        return pairwise
    return CrossBatchMemory(
        pairwise,
        rows=memory_rows,
        embedding_dim=embedding_dim,
        start_step=memory_start_step,
        weight=memory_weight,
        momentum=memory_momentum,
    )


def _build_mining(rule: str, epsilon: float, margin: float, embedding_dim: int) -> Mining | None:
    rules: dict[str, Callable[[], Mining | None]] = {
        "none": lambda: None,
        "multi_similarity": lambda: MultiSimilarityMining(epsilon),
        "semi_hard": lambda: SemiHardMining(margin),
        "hardest": HardestMining,
        "easy_positive": EasyPositiveMining,
        "distance_weighted": lambda: DistanceWeightedMining(embedding_dim),
    }
    return rules[rule]()
