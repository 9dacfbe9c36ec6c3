"""Where pytorch-metric-learning and our losses differ, and which is right: every line runs both beside the formula.

The right value is the paper's formula in float64, in plain loops over cosines; that of a gradient's norm is by central
differences of the same. Lines on which both agree (it may depend on torch's version) are named below the table. Needs
``pip install pytorch-metric-learning``; the words are about 2.9.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import NamedTuple

import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor
from torch.nn import functional

from productrec.errors import TrainingError
from productrec.losses.declared import PairLoss
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.memory import CrossBatchMemory
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import Mining
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.lifted_structure import LiftedStructure
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.nt_xent import NTXent
from productrec.losses.pair.smooth_ap import SmoothAP
from productrec.losses.pair.sup_con import SupCon
from productrec.losses.pair.triplet import Triplet
from productrec.losses.proxy.arc_face import ArcFace
from productrec.losses.proxy.normalised_softmax import NormalisedSoftmax
from productrec.losses.proxy.proxy_nca import ProxyNCA
from productrec.losses.proxy.soft_triple import SoftTriple

_COSINE = distances.CosineSimilarity()


class Difference(NamedTuple):
    """What the library says of a case, what we say, what is right, and why they differ."""

    library: float | str
    ours: float | str
    right: float | str
    why: str


def main() -> None:
    """Print the table, or one line of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES, metavar="KEY", help=f"one of {', '.join(CASES)}")
    chosen = parser.parse_args().only
    print(f"pytorch-metric-learning {version('pytorch-metric-learning')}, torch {torch.__version__}\n")
    print("| key | case | library | ours | right | why |")
    print("|---|---|---|---|---|---|")
    agreeing = []
    for key in [chosen] if chosen else CASES:
        found = CASES[key]()
        library, ours, right = (one if isinstance(one, str) else f"{one:.5g}" for one in found[:3])
        print(f"| {key} | {CASES[key].__doc__} | {library} | {ours} | {right} | {found.why} |")
        if library == ours:
            agreeing.append(key)
    if agreeing:
        print(f"\nNo difference here: {', '.join(agreeing)}.")


def single_mined_pair() -> Difference:
    """Multi-Similarity with its mining; one positive and one negative pair survive."""
    rows, labels = _turn(0, 60, -63), torch.tensor([0, 0, 1])
    return Difference(
        losses.MultiSimilarityLoss()(rows, labels, miners.MultiSimilarityMiner(0.1)(rows, labels)).item(),
        _ours(rows, labels, MultiSimilarity(), MultiSimilarityMining(epsilon=0.1)).item(),
        _mean([_weigh_mined(p, n) for p, n in _pairs(rows, labels)]),
        "the library returns 0 as soon as there is at most one positive and one negative pair",
    )


def single_query() -> Difference:
    """NT-Xent of one anchor against one positive and one negative reference."""
    rows, labels = _turn(0, 60, 20), torch.tensor([0, 0, 1])
    (p,), (n,) = next(_pairs(rows, labels))
    mine = compute_pair_loss(
        Comparison(rows[:1], labels[:1], references=rows[1:], reference_labels=labels[1:]), NTXent(temperature=0.1)
    )
    return Difference(
        losses.NTXentLoss(0.1)(rows[:1], labels[:1], ref_emb=rows[1:], ref_labels=labels[1:]).item(),
        mine.item(),
        math.log(1 + math.exp((n - p) / 0.1)),
        "the same rule",
    )


def nt_xent_cold() -> Difference:
    """NT-Xent at temperature 0.02, a random batch in a plane."""
    rows, labels = _draw(8, 2, seed=1343), torch.arange(8) // 2
    return Difference(
        losses.NTXentLoss(0.02)(rows, labels).item(),
        _ours(rows, labels, NTXent(temperature=0.02)).item(),
        _nt_xent(rows, labels, 0.02),
        "the library adds the smallest normal number inside the logarithm, so no pair's loss passes 87.3 in float32",
    )


def nt_xent_wrong() -> Difference:
    """NT-Xent at temperature 0.02, positives opposite and negatives alike."""
    rows, labels = _wrong()
    return Difference(
        losses.NTXentLoss(0.02)(rows, labels).item(),
        _ours(rows, labels, NTXent(temperature=0.02)).item(),
        _nt_xent(rows, labels, 0.02),
        "capped, as above",
    )


def nt_xent_wrong_gradient() -> Difference:
    """The norm of the gradient there."""
    rows, labels = _wrong()
    return Difference(
        _gradient(lambda leaf: losses.NTXentLoss(0.02)(leaf, labels), rows),
        _gradient(lambda leaf: _ours(leaf, labels, NTXent(temperature=0.02)), rows),
        _slope(lambda point: _nt_xent(point, labels, 0.02), rows),
        "the added number swallows the ratio: the worse a pair, the less it learns",
    )


def nt_xent_half() -> Difference:
    """NT-Xent at its usual temperature of 0.07 on the same batch in float16."""
    rows, labels = _wrong()
    rows = rows.half()
    return Difference(
        losses.NTXentLoss(0.07)(rows, labels).item(),
        _ours(rows, labels, NTXent(temperature=0.07)).item(),
        _nt_xent(rows, labels, 0.07),
        "in float16 the cap is 9.7 (and the gradient 0); ours computes in float32 whatever comes in",
    )


def nt_xent_autocast() -> Difference:
    """NT-Xent at 0.07 under bfloat16 autocast, classes already apart."""
    labels = torch.arange(64) // 4
    rows = _draw(16, 128)[labels] + 0.3 * _draw(64, 128, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        library = losses.NTXentLoss(0.07)(rows, labels).item()
        ours = _ours(rows, labels, NTXent(temperature=0.07)).item()
    why = "similarities of two to three digits; ours leaves autocast"
    return Difference(library, ours, _nt_xent(rows, labels, 0.07), why)


def soft_triple_coincident() -> Difference:
    """SoftTriple, two centres of a class coincide: norm of the gradient by the centres."""
    rows, labels = _draw(4, 4), torch.tensor([0, 0, 1, 1])
    centres = _draw(4, 4, seed=1)
    centres[0] = centres[1] = torch.eye(4)[0]
    regulariser = regularizers.SparseCentersRegularizer(2, 2)
    theirs = losses.SoftTripleLoss(2, 4, 2, weight_regularizer=regulariser, weight_reg_weight=0.2)
    theirs.fc.data = centres.T.contiguous()
    theirs(rows, labels).backward()
    mine = SoftTriple(centres_per_class=2).build(4, 2)
    mine.centres.data = centres.view(2, 2, 4).clone()
    torch.autograd.backward(mine(_unit(rows), labels))
    assert mine.centres.grad is not None

    def formula(point: Tensor) -> float:
        near = (_unit(rows.double()) @ _unit(point).T).view(4, 2, 2).tolist()
        logits = [
            [20 * sum(s * math.exp(s / 0.1) for s in c) / sum(math.exp(s / 0.1) for s in c) for c in row]
            for row in near
        ]
        total = 0.0
        for row, label in zip(logits, labels.tolist(), strict=True):
            row[label] -= 20 * 0.01
            total += math.log(sum(math.exp(one - row[label]) for one in row)) / 4
        apart = [math.dist(*_unit(two).tolist()) for two in point.view(2, 2, 4)]
        return total + 0.2 * sum(apart) / (2 * 2 * 1)

    return Difference(
        theirs.fc.grad.norm().item(),
        mine.centres.grad.norm().item(),
        _slope(formula, centres),
        "a square root at 0: NaN in the library with torch 2.13; with 2.15 the clamp before it stops the infinity",
    )


def arc_face_on_centre() -> Difference:
    """ArcFace, an embedding lies on its class's centre: norm of its gradient."""
    row, labels, scale, margin = torch.eye(3)[:1], torch.tensor([0]), 8.0, 0.5
    theirs = losses.ArcFaceLoss(3, 3, margin=math.degrees(margin), scale=scale)
    theirs.W.data = torch.eye(3)
    mine = ArcFace(scale=scale, margin_rad=margin).build(3, 3)
    mine.centres.data = torch.eye(3)[:, None]

    def formula(point: Tensor) -> float:
        p, *others = _unit(point)[0].tolist()
        turned = math.cos(math.acos(min(1.0, p)) + margin)
        return math.log(1 + sum(math.exp(scale * (n - turned)) for n in others))

    return Difference(
        _gradient(lambda leaf: theirs(leaf, labels), row),
        _gradient(lambda leaf: mine(_unit(leaf), labels), row),
        _slope(formula, row),
        "the arc cosine's slope is infinite at 1: NaN in the library with torch 2.13, as above",
    )


def lifted_alone() -> Difference:
    """Lifted structure (generalised), anchors without positives in the batch."""
    rows, labels = _turn(0, 20, 40, 50), torch.tensor([0, 0, 1, 2])
    right = []
    for p, n in _pairs(rows, labels):
        product = sum(math.exp(-s) for s in p) * sum(math.exp(s) for s in n)
        right.append(max(0.0, math.log(product)) if product else 0.0)
    return Difference(
        losses.GeneralizedLiftedStructureLoss(0, 0, distance=_COSINE)(rows, labels).item(),
        _ours(rows, labels, LiftedStructure(margin=0.0)).item(),
        _mean(right),
        "the logarithm of an empty sum is minus infinity, and the hinge over it 0; the library takes it as 0",
    )


def sup_con_alone() -> Difference:
    """SupCon, anchors without positives in the batch."""
    rows, labels = _turn(0, 40, 60, 90), torch.tensor([0, 0, 1, 2])
    return Difference(
        losses.SupConLoss(0.1)(rows, labels).item(),
        _ours(rows, labels, SupCon(temperature=0.1)).item(),
        _sup_con(rows, labels, 0.1),
        "the library averages over anchors with a loss above 0, the authors' code over all",
    )


def sup_con_settled() -> Difference:
    """SupCon at temperature 0.05, a settled class and a wrong one."""
    rows, labels = _turn(0, 1, 90, 270), torch.tensor([0, 0, 1, 1])
    return Difference(
        losses.SupConLoss(0.05)(rows, labels).item(),
        _ours(rows, labels, SupCon(temperature=0.05)).item(),
        _sup_con(rows, labels, 0.05),
        "the same: an anchor that gets right to the last digit leaves the mean, and the loss rises",
    )


def sup_con_one_class() -> Difference:
    """SupCon, a batch of one class."""
    rows, labels = _turn(0, 40, 90), torch.tensor([0, 0, 0])
    return Difference(
        losses.SupConLoss(0.1)(rows, labels).item(),
        _ours(rows, labels, SupCon(temperature=0.1)).item(),
        _sup_con(rows, labels, 0.1),
        "its denominator holds positives too, so that they compete; the library returns 0 without negatives",
    )


def circle_alone() -> Difference:
    """Circle, anchors without positives in the batch."""
    rows, labels = _turn(0, 40, 60, 90), torch.tensor([0, 0, 1, 2])
    right = []
    for p, n in _pairs(rows, labels):
        pushed = sum(math.exp(80 * max(0, s + 0.4) * (s - 0.4)) for s in n)
        right.append(math.log(1 + pushed * sum(math.exp(-80 * max(0, 1.4 - s) * (s - 0.6)) for s in p)))
    return Difference(
        losses.CircleLoss(0.4, 80)(rows, labels).item(),
        _ours(rows, labels, Circle(margin=0.4, gamma=80.0)).item(),
        _mean(right),
        "the library averages over anchors with a loss above 0, ours over all",
    )


def smooth_ap() -> Difference:
    """Smooth-AP, six classes of four, each turned far from the others."""
    rows, labels = _turn(*(60 * (row // 4) + row % 4 for row in range(24))), torch.arange(24) // 4
    return Difference(
        losses.SmoothAPLoss(0.01)(rows, labels).item(),
        _ours(rows, labels, SmoothAP(temperature=0.01)).item(),
        1 - _mean([_average_precision(p, n) for p, n in _pairs(rows, labels)]),
        "the library groups the rows as four classes of six; it is right where a class has as many rows as are classes",
    )


def smooth_ap_self() -> Difference:
    """Smooth-AP, four classes of four, where the library's groups are right."""
    rows, labels = _draw(16, 8), torch.arange(16) // 4
    right = []
    for p, n in _pairs(rows, labels):
        among = [sum(_sigmoid((s - one) / 0.01) for s in p) + 0.5 for one in p]  # the positive itself makes 1/2, not 1
        right.append(_mean([one / (one + sum(_sigmoid((s - p[i]) / 0.01) for s in n)) for i, one in enumerate(among)]))
    return Difference(
        losses.SmoothAPLoss(0.01)(rows, labels).item(),
        _ours(rows, labels, SmoothAP(temperature=0.01)).item(),
        1 - _mean(right),
        "the library, as the authors' code, counts the anchor among its own positives; retrieval leaves the query out",
    )


def contrastive_mean() -> Difference:
    """Contrastive, margins 0.9 and 0.2."""
    rows, labels = _draw(12, 4), torch.arange(12) // 3
    return Difference(
        losses.ContrastiveLoss(0.9, 0.2, distance=_COSINE)(rows, labels).item(),
        _ours(rows, labels, Contrastive(positive_margin=0.9, negative_margin=0.2)).item(),
        _mean([sum(max(0, 0.9 - s) for s in p) + sum(max(0, s - 0.2) for s in n) for p, n in _pairs(rows, labels)]),
        "the library takes the mean of the active pairs on either side; XBM's equation has sums, over N anchors",
    )


def memory_batch() -> Difference:
    """Memory with contrastive loss, the first batch."""
    rows, labels = _draw(6, 2), torch.arange(6) // 2
    summed = losses.ContrastiveLoss(0.9, 0.2, distance=_COSINE, reducer=reducers.SumReducer())
    batch = _mean([sum(max(0, 0.9 - s) for s in p) + sum(max(0, s - 0.2) for s in n) for p, n in _pairs(rows, labels)])
    return Difference(
        losses.CrossBatchMemory(summed, 2, 16)(rows, labels).item() / 6,
        _remember(Contrastive(positive_margin=0.9, negative_margin=0.2))(_unit(rows), labels).item(),
        batch + batch,  # the memory holds this batch and nothing else
        "the authors' code adds the batch's own loss to the memory's; the library has the memory's only",
    )


def memory_alone() -> Difference:
    """Memory with Multi-Similarity and its mining, an anchor alone in its class: the memory's term."""
    rows, labels = _turn(0, 15, 60), torch.tensor([0, 1, 1])
    theirs = losses.CrossBatchMemory(losses.MultiSimilarityLoss(), 2, 16, miners.MultiSimilarityMiner(0.1))
    mine = _remember(MultiSimilarity(), MultiSimilarityMining(epsilon=0.1))
    return Difference(
        theirs(rows, labels).item(),
        (mine(_unit(rows), labels) - mine.loss(_unit(rows), labels)).item(),
        _mean([_weigh_mined(p, n) for p, n in _pairs(rows, labels)]),
        "the library mines before it takes the anchor's own row out: as its own positive, at 1, it keeps negatives",
    )


def memory_one_row() -> Difference:
    """Memory with contrastive loss, batches of one row, all of different classes: the memory's term of the third."""
    rows, labels = _turn(0, 60, 100), torch.arange(3)
    summed = losses.ContrastiveLoss(2, 0, distance=_COSINE, reducer=reducers.SumReducer())
    theirs, mine = (
        losses.CrossBatchMemory(summed, 2, 16),
        _remember(Contrastive(positive_margin=2.0, negative_margin=0.0)),
    )
    both = [(theirs(rows[i : i + 1], labels[i : i + 1]), mine(rows[i : i + 1], labels[i : i + 1])) for i in range(3)]
    _, negatives = list(_pairs(rows, labels))[2]
    return Difference(
        both[2][0].item(),
        both[2][1].item(),
        sum(max(0, s) for s in negatives),
        "in a batch of one the library does not find the anchor's own row: it stays a positive",
    )


def proxy_nca() -> Difference:
    """Proxy-NCA on squared distances."""
    rows, labels, centres = _draw(6, 4), torch.arange(6) // 2, _draw(3, 4, seed=1)
    theirs = losses.ProxyNCALoss(3, 4, softmax_scale=1)
    theirs.proxies.data = centres.clone()
    mine = ProxyNCA().build(4, 3)
    mine.centres.data = centres[:, None]
    right = []
    for row, label in zip(_unit(rows.double()), labels.tolist(), strict=True):
        apart = [math.dist(row.tolist(), centre) ** 2 for centre in _unit(centres.double()).tolist()]
        own = apart.pop(label)
        right.append(own + math.log(sum(math.exp(-one) for one in apart)))
    return Difference(
        theirs(rows, labels).item(),
        mine(_unit(rows), labels).item(),
        _mean(right),
        "the paper's denominator leaves the true class out; the library's holds it, which is Proxy-NCA++",
    )


def proxy_nca_far() -> Difference:
    """Proxy-NCA++ at scale 32, an anchor opposite to its centre."""
    rows, labels, centres = _turn(180, 100), torch.tensor([0, 1]), _turn(0, 90, 180)
    theirs = losses.ProxyNCALoss(3, 2, softmax_scale=32)
    theirs.proxies.data = centres.clone()
    mine = NormalisedSoftmax(temperature=1 / 64).build(2, 3)
    mine.centres.data = centres[:, None]
    right = []
    for row, label in zip((_unit(rows.double()) @ _unit(centres.double()).T).tolist(), labels.tolist(), strict=True):
        right.append(math.log(sum(math.exp(64 * (s - row[label])) for s in row)))
    return Difference(
        theirs(rows, labels).item(),
        mine(_unit(rows), labels).item(),
        _mean(right),
        "the library leaves out anchors whose probability is 0 in float32, the most wrong ones",
    )


def not_a_number() -> Difference:
    """Triplet, an embedding is NaN."""
    rows, labels = _draw(16, 8), torch.arange(16) // 4
    rows[3] = torch.nan
    try:
        ours: float | str = _ours(rows, labels, Triplet(margin=0.1)).item()
    except TrainingError:
        ours = "TrainingError"
    return Difference(
        losses.TripletMarginLoss(0.1, distance=_COSINE)(rows, labels).item(),
        ours,
        "none",
        "NaN is not above 0, so the library's mean leaves it out: the loss looks sound, its whole gradient is NaN",
    )


CASES: dict[str, Callable[[], Difference]] = {
    case.__name__: case
    for case in (
        single_mined_pair,
        single_query,
        nt_xent_cold,
        nt_xent_wrong,
        nt_xent_wrong_gradient,
        nt_xent_half,
        nt_xent_autocast,
        soft_triple_coincident,
        arc_face_on_centre,
        lifted_alone,
        sup_con_alone,
        sup_con_settled,
        sup_con_one_class,
        circle_alone,
        smooth_ap,
        smooth_ap_self,
        contrastive_mean,
        memory_batch,
        memory_alone,
        memory_one_row,
        proxy_nca,
        proxy_nca_far,
        not_a_number,
    )
}


def _ours(rows: Tensor, labels: Tensor, loss: PairLoss, mining: Mining | None = None) -> Tensor:
    return compute_pair_loss(Comparison(_unit(rows), labels), loss, mining=mining)


def _remember(loss: PairLoss, mining: Mining | None = None) -> CrossBatchMemory:
    return CrossBatchMemory(PairModule(loss, mining), rows=16, embedding_dim=2, start_step=0)


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=1)


def _draw(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def _turn(*degrees: float) -> Tensor:
    """Unit rows at these angles in a plane."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def _wrong() -> tuple[Tensor, Tensor]:
    return _turn(0, 163, 6, 191), torch.tensor([0, 0, 1, 1])


def _pairs(rows: Tensor, labels: Tensor) -> Iterator[tuple[list[float], list[float]]]:
    """Each anchor's cosines with its positives and with its negatives, in float64."""
    classes = labels.tolist()
    for i, row in enumerate((_unit(rows.double()) @ _unit(rows.double()).T).tolist()):
        positives = [s for j, s in enumerate(row) if j != i and classes[j] == classes[i]]
        yield positives, [s for j, s in enumerate(row) if classes[j] != classes[i]]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _weigh_mined(p: list[float], n: list[float]) -> float:
    hard_p = [s for s in p if n and s < max(n) + 0.1]
    hard_n = [s for s in n if p and s > min(p) - 0.1]
    pulled = math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in hard_p)) / 2
    return pulled + math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in hard_n)) / 50


def _nt_xent(rows: Tensor, labels: Tensor, temperature: float) -> float:
    return _mean(
        [math.log(1 + sum(math.exp((s - one) / temperature) for s in n)) for p, n in _pairs(rows, labels) for one in p]
    )


def _sup_con(rows: Tensor, labels: Tensor, temperature: float) -> float:
    values = []
    for p, n in _pairs(rows, labels):
        logs = [math.log(sum(math.exp((s - one) / temperature) for s in p + n)) for one in p]
        values.append(_mean(logs) if p else 0.0)
    return _mean(values)


def _average_precision(p: list[float], n: list[float]) -> float:
    ranks = [(sum(s >= one for s in p), sum(s > one for s in p + n) + 1) for one in p]
    return _mean([among / overall for among, overall in ranks])


def _sigmoid(exponent: float) -> float:
    return (1 + math.tanh(exponent / 2)) / 2


def _gradient(loss: Callable[[Tensor], Tensor], rows: Tensor) -> float:
    """Norm of the gradient of a loss."""
    leaf = rows.clone().requires_grad_()
    gradient: Tensor = torch.autograd.grad(loss(leaf), leaf)[0]
    return float(gradient.norm())


def _slope(formula: Callable[[Tensor], float], rows: Tensor, step: float = 1e-6) -> float:
    """Norm of the gradient of a formula, by central differences, which leave out the tip of a cone."""
    squares = 0.0
    for place in range(rows.numel()):
        moved = torch.zeros(rows.numel(), dtype=torch.float64)
        moved[place] = step
        away = moved.view(rows.shape)
        squares += ((formula(rows.double() + away) - formula(rows.double() - away)) / (2 * step)) ** 2
    return math.sqrt(squares)


if __name__ == "__main__":
    main()
