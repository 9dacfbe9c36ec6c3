"""Each loss against loops written from its paper, in float64, and against its own inputs in another order."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from productrec.losses.centres.soft_triple import compute_soft_triple_loss
from productrec.losses.classification.cross_entropy import compute_classification_loss
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.quadruplet import Quadruplet

SEEDS = st.integers(0, 2**31 - 1)
# Ratios that no difference of similarities meets exactly, so that loop and library mine the same pairs.
EPSILONS = st.sampled_from([0.0313, 0.1, 0.5077])


def compute_multi_similarity_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float = 0.1,
) -> Tensor:
    loss, mining = MultiSimilarity(alpha=alpha, beta=beta, base=base), MultiSimilarityMining(epsilon=epsilon)
    return compute_pair_loss(Comparison(embeddings, labels), loss, mining=mining)


def draw_rows(seed: int, rows: int, columns: int, distinct: int) -> Tensor:
    """Unit rows (rows, columns), of which at most ``distinct`` differ: duplicates are the interesting case."""
    generator = torch.Generator().manual_seed(seed)
    pool = functional.normalize(torch.randn(distinct, columns, generator=generator, dtype=torch.float64), dim=1)
    return pool[torch.randint(distinct, (rows,), generator=generator)]


def draw_labels(seed: int, rows: int, classes: int) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed + 1))


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def multi_similarity_by_loops(
    embeddings: Tensor, labels: Tensor, alpha: float, beta: float, base: float, epsilon: float
) -> float:
    rows, classes = embeddings.tolist(), labels.tolist()
    total = 0.0
    for i in range(len(rows)):
        positives = [dot(rows[i], rows[j]) for j in range(len(rows)) if j != i and classes[j] == classes[i]]
        negatives = [dot(rows[i], rows[j]) for j in range(len(rows)) if classes[j] != classes[i]]
        if not positives or not negatives:
            continue
        kept_negatives = [s for s in negatives if s > min(positives) - epsilon]  # (11)
        kept_positives = [s for s in positives if s < max(negatives) + epsilon]  # (12)
        total += math.log(1 + sum(math.exp(-alpha * (s - base)) for s in kept_positives)) / alpha  # (15)
        total += math.log(1 + sum(math.exp(beta * (s - base)) for s in kept_negatives)) / beta
    return total / len(rows)


def soft_triple_by_loops(
    embeddings: Tensor, labels: Tensor, centres: Tensor, scale: float, gamma: float, margin: float, tau: float
) -> float:
    unit = [[[v / math.sqrt(dot(w, w)) for v in w] for w in group] for group in centres.tolist()]
    class_count, per_class = len(unit), len(unit[0])
    total = 0.0
    for row, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        relaxed = []
        for group in unit:
            similarities = [dot(row, w) for w in group]
            weights = [math.exp(s / gamma) for s in similarities]
            relaxed.append(sum(q * s for q, s in zip(weights, similarities, strict=True)) / sum(weights))
        own = math.exp(scale * (relaxed[label] - margin))
        others = sum(math.exp(scale * relaxed[c]) for c in range(class_count) if c != label)
        total -= math.log(own / (own + others))
    loss = total / len(embeddings)
    if per_class > 1:
        spread = 0.0
        for group in unit:
            for s in range(per_class):
                for t in range(s + 1, per_class):
                    spread += math.dist(group[s], group[t])  # of unit vectors: sqrt(2 - 2 w.w), without its rounding
        loss += tau * spread / (class_count * per_class * (per_class - 1))
    return loss


def close(actual: Tensor, expected: float | Tensor, tolerance: float) -> bool:
    return math.isclose(float(actual), float(expected), rel_tol=tolerance, abs_tol=tolerance)


@settings(deadline=None, max_examples=80)
@given(
    seed=SEEDS,
    rows=st.integers(1, 9),
    columns=st.integers(1, 5),
    distinct=st.integers(1, 9),
    classes=st.integers(1, 4),
    alpha=st.sampled_from([1.0, 2.0, 7.0]),
    beta=st.sampled_from([2.0, 40.0, 50.0]),
    base=st.sampled_from([0.0, 0.5, 1.0]),
    epsilon=EPSILONS,
)
def test_multi_similarity(
    seed: int,
    rows: int,
    columns: int,
    distinct: int,
    classes: int,
    alpha: float,
    beta: float,
    base: float,
    epsilon: float,
) -> None:
    embeddings, labels = draw_rows(seed, rows, columns, distinct), draw_labels(seed, rows, classes)
    chosen = {"alpha": alpha, "beta": beta, "base": base, "epsilon": epsilon}
    expected = multi_similarity_by_loops(embeddings, labels, **chosen)
    loss = compute_multi_similarity_loss(embeddings.requires_grad_(), labels, **chosen)
    assert close(loss.detach(), expected, 1e-9)
    torch.autograd.backward(loss)
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    # Float32, as training computes it: mining may differ only where a similarity is within rounding of a border.
    assert compute_multi_similarity_loss(embeddings.detach().float(), labels, **chosen).isfinite()


def test_the_loops_notice_a_wrong_mean_and_wrong_mining() -> None:
    embeddings, labels = draw_rows(2, 9, 4, 90), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3])
    expected = multi_similarity_by_loops(embeddings, labels, 2.0, 50.0, 0.5, 0.1)
    assert close(compute_multi_similarity_loss(embeddings, labels), expected, 1e-9)
    assert not close(compute_multi_similarity_loss(embeddings, labels) * 9 / 8, expected, 1e-4)  # mean of the eight
    assert not close(compute_multi_similarity_loss(embeddings, labels, epsilon=9.0), expected, 1e-4)  # no mining


def quadruplet_by_loops(embeddings: Tensor, labels: Tensor, margin: float, other_margin: float) -> float:
    """Each positive pair against the hardest negative of its anchor, and the hardest negative pair of other classes."""
    rows, classes = embeddings.tolist(), labels.tolist()
    everything = range(len(rows))
    total, count = 0.0, 0
    for i in everything:
        mine = classes[i]
        negatives = [dot(rows[i], rows[k]) for k in everything if classes[k] != mine]
        others = [
            dot(rows[k], rows[m])
            for k in everything
            for m in everything
            if classes[k] != classes[m] and mine not in (classes[k], classes[m])
        ]
        for s in (dot(rows[i], rows[j]) for j in everything if j != i and classes[j] == mine):
            total += max(0.0, max(negatives, default=-math.inf) - s + margin)
            total += max(0.0, max(others, default=-math.inf) - s + other_margin)
            count += 1
    return total / max(1, count)


@settings(deadline=None, max_examples=80)
@given(
    seed=SEEDS,
    rows=st.integers(1, 9),
    columns=st.integers(1, 5),
    distinct=st.integers(1, 9),
    classes=st.integers(1, 5),
    block_rows=st.integers(1, 9),
)
def test_quadruplet(seed: int, rows: int, columns: int, distinct: int, classes: int, block_rows: int) -> None:
    embeddings, labels = draw_rows(seed, rows, columns, distinct), draw_labels(seed, rows, classes)
    loss = compute_pair_loss(
        Comparison(embeddings.requires_grad_(), labels),
        Quadruplet(margin=0.3, other_margin=0.15),
        block_rows=block_rows,
    )
    assert close(loss.detach(), quadruplet_by_loops(embeddings.detach(), labels, 0.3, 0.15), 1e-9)
    torch.autograd.backward(loss)
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_the_loops_notice_a_pair_of_others_with_the_anchors_class() -> None:
    embeddings, labels = draw_rows(2, 9, 4, 90), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3])
    expected = quadruplet_by_loops(embeddings, labels, 0.3, 0.15)
    assert close(
        compute_pair_loss(Comparison(embeddings, labels), Quadruplet(margin=0.3, other_margin=0.15)), expected, 1e-9
    )
    similarities = embeddings @ embeddings.T
    hardest = similarities[labels[:, None] != labels].max().expand(9)  # of the whole batch, whatever its classes
    wrong = compute_pair_loss(
        Comparison(embeddings, labels, thresholds=hardest), Quadruplet(margin=0.3, other_margin=0.15)
    )
    assert not close(wrong, expected, 1e-4)


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    rows=st.integers(1, 6),
    columns=st.integers(1, 5),
    distinct=st.integers(1, 6),
    classes=st.integers(1, 4),
    per_class=st.integers(1, 4),
    scale=st.sampled_from([1.0, 20.0]),
    gamma=st.sampled_from([0.05, 0.1, 1.0]),
    margin=st.sampled_from([0.0, 0.01, 0.3]),
    tau=st.sampled_from([0.0, 0.2, 2.0]),
)
def test_soft_triple(
    seed: int,
    rows: int,
    columns: int,
    distinct: int,
    classes: int,
    per_class: int,
    scale: float,
    gamma: float,
    margin: float,
    tau: float,
) -> None:
    embeddings, labels = draw_rows(seed, rows, columns, distinct), draw_labels(seed, rows, classes)
    centres = 3.0 * draw_rows(seed + 2, classes * per_class, columns, distinct).reshape(classes, per_class, columns)
    chosen = {"scale": scale, "gamma": gamma, "margin": margin, "tau": tau}
    expected = soft_triple_by_loops(embeddings, labels, centres, **chosen)
    loss = compute_soft_triple_loss(embeddings, labels, centres.requires_grad_(), **chosen)
    assert close(loss.detach(), expected, 1e-9)
    torch.autograd.backward(loss)
    assert centres.grad is not None
    assert centres.grad.isfinite().all()


def test_the_loops_notice_a_margin_on_the_wrong_side_and_pairs_counted_twice() -> None:
    embeddings, labels = draw_rows(3, 6, 5, 6), draw_labels(3, 6, 3)
    centres = torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    chosen = {"scale": 20.0, "gamma": 0.1, "margin": 0.05, "tau": 0.2}
    expected = soft_triple_by_loops(embeddings, labels, centres, **chosen)
    assert close(compute_soft_triple_loss(embeddings, labels, centres, **chosen), expected, 1e-9)
    for wrong in ({"margin": -0.05}, {"tau": 0.4}):
        assert not close(compute_soft_triple_loss(embeddings, labels, centres, **chosen | wrong), expected, 1e-4)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, rows=st.integers(1, 6), classes=st.integers(1, 6), smoothing=st.sampled_from([0.0, 0.1, 1.0]))
def test_classification(seed: int, rows: int, classes: int, smoothing: float) -> None:
    logits = 9.0 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = draw_labels(seed, rows, classes)
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(z) for z in row)
        for c, z in enumerate(row):
            target = (1 - smoothing) * (c == label) + smoothing / classes
            expected -= target * math.log(math.exp(z) / total) / rows
    assert close(compute_classification_loss(logits, labels, label_smoothing=smoothing), expected, 1e-9)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, rows=st.integers(1, 10), classes=st.integers(1, 4))
def test_order_does_not_matter(seed: int, rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings, labels = draw_rows(seed, rows, 4, rows), draw_labels(seed, rows, classes)
    order = torch.randperm(rows, generator=generator)
    names = torch.randperm(classes, generator=generator)  # class c is now called names[c]
    loss = compute_multi_similarity_loss(embeddings, labels)
    assert close(compute_multi_similarity_loss(embeddings[order], names[labels[order]]), loss, 1e-12)

    centres = draw_rows(seed + 2, classes * 3, 4, 9).reshape(classes, 3, 4)
    renamed = torch.empty_like(centres)
    renamed[names] = centres[:, torch.randperm(3, generator=generator)]
    loss = compute_soft_triple_loss(embeddings, labels, centres)
    assert close(compute_soft_triple_loss(embeddings[order], names[labels[order]], renamed), loss, 1e-12)

    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    renamed = torch.empty_like(logits)
    renamed[:, names] = logits
    loss = compute_classification_loss(logits, labels)
    assert close(compute_classification_loss(renamed[order], names[labels[order]]), loss, 1e-12)
