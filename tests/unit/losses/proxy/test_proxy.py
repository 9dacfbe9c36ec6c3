import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.centres.margin_softmax import MarginSoftmax
from productrec.losses.centres.proxy_module import ProxyModule
from productrec.losses.proxy.ada_cos import AdaCos
from productrec.losses.proxy.arc_face import ArcFace
from productrec.losses.proxy.cos_face import CosFace
from productrec.losses.proxy.normalised_softmax import NormalisedSoftmax
from productrec.losses.proxy.proxy_anchor import ProxyAnchor
from productrec.losses.proxy.proxy_nca import ProxyNCA
from productrec.losses.proxy.proxy_nca_pp import ProxyNCAPlusPlus
from productrec.losses.proxy.triplet_centre import TripletCentre

CLASSES = 5


def draw(rows: int = 7, columns: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(rows, columns, generator=generator, dtype=torch.float64), dim=1)
    return embeddings, torch.randint(CLASSES - 1, (rows,), generator=generator)  # one class is never there


def build(name: str, embedding_dim: int = 4, class_count: int = CLASSES) -> ProxyModule:
    torch.manual_seed(1)
    losses = {
        "normalised_softmax": lambda: NormalisedSoftmax(temperature=0.2).build(embedding_dim, class_count),
        "cos_face": lambda: CosFace(scale=8.0, margin=0.3).build(embedding_dim, class_count),
        "arc_face": lambda: ArcFace(scale=8.0, margin_rad=0.5).build(embedding_dim, class_count),
        "sub_centre": lambda: ArcFace(centres_per_class=3, scale=8.0, margin_rad=0.5).build(embedding_dim, class_count),
        "proxy_nca": lambda: ProxyNCA(scale=3.0).build(embedding_dim, class_count),
        "proxy_anchor": lambda: ProxyAnchor(alpha=6.0, margin=0.1).build(embedding_dim, class_count),
        "triplet_centre": lambda: TripletCentre(margin=0.4).build(embedding_dim, class_count),
    }
    return losses[name]().double()


NAMES = ("normalised_softmax", "cos_face", "arc_face", "sub_centre", "proxy_nca", "proxy_anchor", "triplet_centre")


def softmax_by_loops(
    similarities: list[list[list[float]]], labels: list[int], scale: float, margin: float, angle: float
) -> float:
    total = 0.0
    for row, label in zip(similarities, labels, strict=True):
        nearest = [max(centres) for centres in row]
        true = nearest[label]
        turned = math.cos(math.acos(true) + angle) if true > -math.cos(angle) else true - angle * math.sin(angle)
        own = math.exp(scale * (turned - margin))
        others = sum(math.exp(scale * s) for c, s in enumerate(nearest) if c != label)
        total -= math.log(own / (own + others))
    return total / len(labels)


def by_loops(name: str, loss: ProxyModule, embeddings: Tensor, labels: Tensor) -> float:
    centres = functional.normalize(loss.centres.detach(), dim=2)
    similarities = torch.einsum("bd,ckd->bck", embeddings, centres).tolist()
    classes = labels.tolist()
    if name in ("normalised_softmax", "cos_face", "arc_face", "sub_centre"):
        scale = 5.0 if name == "normalised_softmax" else 8.0
        angle = 0.5 if name in ("arc_face", "sub_centre") else 0.0
        return softmax_by_loops(similarities, classes, scale, 0.3 if name == "cos_face" else 0.0, angle)
    flat = [[one[0] for one in row] for row in similarities]
    if name == "proxy_nca":
        return sum(
            -3 * row[label] + math.log(sum(math.exp(3 * s) for c, s in enumerate(row) if c != label))
            for row, label in zip(flat, classes, strict=True)
        ) / len(classes)
    if name == "triplet_centre":
        # In distances, as the paper has them: half the squared Euclidean ones.
        distances = (torch.cdist(embeddings, centres[:, 0]).square() / 2).tolist()
        return sum(
            max(0.0, row[label] + 0.4 - min(d for c, d in enumerate(row) if c != label))
            for row, label in zip(distances, classes, strict=True)
        ) / len(classes)
    pulled = [
        math.log(1 + sum(math.exp(-6 * (row[c] - 0.1)) for row, label in zip(flat, classes, strict=True) if label == c))
        for c in set(classes)
    ]
    pushed = [
        math.log(1 + sum(math.exp(6 * (row[c] + 0.1)) for row, label in zip(flat, classes, strict=True) if label != c))
        for c in range(CLASSES)
    ]
    return sum(pulled) / len(pulled) + sum(pushed) / len(pushed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_equals_loops_from_the_paper(name: str, seed: int) -> None:
    loss, (embeddings, labels) = build(name), draw(seed=seed)
    assert loss(embeddings, labels).item() == pytest.approx(by_loops(name, loss, embeddings, labels), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_value(name: str) -> None:
    loss, (embeddings, labels) = build(name), draw()
    leaf = embeddings.requires_grad_()

    def compute(rows: Tensor, centres: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {"centres": centres}, (rows, labels))

    assert torch.autograd.gradcheck(compute, (leaf, loss.centres))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embedding_on_a_centre_is_finite(name: str, dtype: torch.dtype) -> None:
    loss = build(name).to(dtype)
    with torch.no_grad():
        loss.centres[:, :] = loss.centres[:1, :1]  # all centres coincide
    rows = torch.cat([loss.centres.detach()[0, :1], -loss.centres.detach()[0, :1]])
    leaf = functional.normalize(rows.float(), dim=1).to(dtype).requires_grad_()
    value = loss(leaf, torch.tensor([0, 1]))
    value.backward()
    assert value.isfinite()
    assert value.dtype == torch.float32
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert loss.centres.grad is not None
    assert loss.centres.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_single_class_is_finite(name: str) -> None:
    torch.manual_seed(0)
    loss = build(name, class_count=1).float()
    embeddings, _ = draw()
    leaf = embeddings.float().requires_grad_()
    value = loss(leaf, torch.zeros(7, dtype=torch.int64))
    value.backward()
    assert value.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_the_angle_goes_on_monotone_past_pi() -> None:
    similarities = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    turned, slope = MarginSoftmax(64.0, 0.0, 0.5)._turn(similarities)
    assert (slope >= 0).all()
    assert (turned.diff(dim=0) > -0.01).all()  # the authors' continuation has a small step
    assert slope.isfinite().all()


def test_centres_learn() -> None:
    embeddings, labels = draw(40, seed=3)
    for name in NAMES:
        loss = build(name)
        optimizer = torch.optim.Adam(loss.parameters(), 0.05)
        first = loss(embeddings, labels).item()
        for _ in range(50):
            optimizer.zero_grad()
            loss(embeddings, labels).backward()
            optimizer.step()
        assert loss(embeddings, labels).item() < 0.9 * first, name


def test_what_does_not_fit_is_refused() -> None:
    embeddings, labels = draw()
    with pytest.raises(TrainingError, match="labels must be class positions from 0 to 4"):
        build("cos_face")(embeddings, labels + 3)
    for make in (
        lambda: ArcFace(margin_rad=2.0).build(4, 5),
        lambda: ArcFace(centres_per_class=0).build(4, 5),
        lambda: NormalisedSoftmax(temperature=0.0).build(4, 5),
        lambda: CosFace().build(0, 5),
        lambda: ProxyNCA(scale=0.0),
        lambda: ProxyAnchor(alpha=-1.0),
    ):
        with pytest.raises(RecipeError):
            make()


def test_margins_from_class_sizes_give_small_classes_the_larger_ones() -> None:
    torch.manual_seed(1)
    sizes = [1, 16, 81, 10_000, 256]
    loss = (
        ArcFace(centres_per_class=2, scale=8.0, margin_rad=0.5, margin_power=0.25)
        .build(4, CLASSES, class_sizes=sizes)
        .double()
    )
    assert loss.class_margins is not None
    assert loss.class_margins.tolist() == pytest.approx([0.05 + 0.45 * size**-0.25 for size in sizes])
    embeddings, labels = draw(9)
    centres = functional.normalize(loss.centres.detach(), dim=2)
    similarities = torch.einsum("bd,ckd->bck", embeddings, centres).tolist()
    expected = [
        softmax_by_loops([row], [label], 8.0, 0.0, loss.class_margins[label].item())
        for row, label in zip(similarities, labels.tolist(), strict=True)
    ]
    assert loss(embeddings, labels).item() == pytest.approx(sum(expected) / 9, rel=1e-6)
    leaf = embeddings.requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: loss(rows, labels), (leaf,))
    with pytest.raises(RecipeError, match="margin_power needs the training images of each of 5 classes; got none"):
        ArcFace(margin_power=0.25).build(4, CLASSES)


def test_proxy_nca_pp_is_a_softmax_over_squared_distances() -> None:
    torch.manual_seed(1)
    loss, (embeddings, labels) = ProxyNCAPlusPlus().build(4, CLASSES).double(), draw()
    squared = torch.cdist(embeddings, functional.normalize(loss.centres.detach()[:, 0], dim=1)).square()
    assert loss(embeddings, labels).item() == pytest.approx(functional.cross_entropy(-9 * squared, labels).item())


def test_triplet_centre_leaves_alone_what_is_near_enough_to_its_own_centre() -> None:
    loss = TripletCentre(margin=0.2).build(2, 3)
    loss.centres.data = torch.tensor([[[2.0, 0.0]], [[0.0, 0.5]], [[-1.0, 0.0]]])
    rows = functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.9]]), dim=1).requires_grad_()
    # The first is far nearer to its own centre than to any other; the second by 0.1 / 1.81^0.5 only.
    value = loss(rows, torch.tensor([0, 0]))
    assert value.item() == pytest.approx((0.2 - 0.1 / 1.81**0.5) / 2)
    value.backward()
    assert rows.grad is not None
    assert (rows.grad.norm(dim=1) > 0).tolist() == [False, True]
    assert loss.centres.grad is not None
    assert (loss.centres.grad[:, 0].norm(dim=1) > 0).tolist() == [True, True, False]
    assert [id(one) for one in loss.iterate_centres()] == [id(loss.centres)]


def test_ada_cos_finds_its_scale_in_training_alone() -> None:
    torch.manual_seed(1)
    loss, (embeddings, labels) = AdaCos().build(4, CLASSES).double(), draw()
    start = math.sqrt(2) * math.log(CLASSES - 1)
    assert loss.scale.item() == pytest.approx(start)
    cosines = embeddings @ functional.normalize(loss.centres.detach()[:, 0], dim=1).T
    own = functional.one_hot(labels, CLASSES).bool()
    others = (start * cosines).exp().masked_fill(own, 0.0).sum(dim=1).mean()
    middle = cosines[own].arccos().median().clamp(max=math.pi / 4)
    scale = (others.log() / middle.cos()).item()
    value = loss(embeddings, labels)
    assert loss.scale.item() == pytest.approx(scale, rel=1e-6)
    assert value.item() == pytest.approx(functional.cross_entropy(scale * cosines, labels).item(), rel=1e-6)
    loss.eval()
    loss(embeddings, labels)
    assert loss.scale.item() == pytest.approx(scale, rel=1e-6)
    assert "scale" in loss.state_dict()
    loss.train()
    for _ in range(100):
        loss(embeddings, labels)
    assert math.isfinite(loss.scale.item())
