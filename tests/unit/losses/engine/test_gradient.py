"""Gradients made by hand, on what a recipe assembles: no second derivative, and half precision under a loss scale."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.losses.build import build_metric_loss
from productrec.losses.catalogue import list_losses
from productrec.models.recognizer import Recognizer
from productrec.training.ranks.group import _Gather
from tests.unit.training.small_training import CLASSES, SIDE_PX, build

LOSSES = (*list_losses(), "memory", "momentum", "sharded head")


def build_loss(name: str) -> nn.Module:
    torch.manual_seed(1)
    metric = "circle" if name in ("memory", "momentum") else name
    memory = {"memory_rows": 16, "memory_start_step": 0, "memory_momentum": 0.9 * (name == "momentum")}
    loss = list_losses()[metric]()
    return build_metric_loss(loss, embedding_dim=8, class_count=CLASSES, **(memory if metric != name else {}))


@pytest.fixture(scope="module")
def recognizers() -> dict[str, Recognizer]:
    made = {"plain": build("none"), "sharded head": build("none", shard_head=True)}
    return {name: trainer.recognizer.eval() for name, trainer in made.items()}


def compute_loss(name: str, recognizers: dict[str, Recognizer]) -> tuple[Tensor, Tensor]:
    """A loss of eight images through a recipe's network, and a weight of that."""
    recognizer = recognizers.get(name, recognizers["plain"])
    images = torch.randint(256, (8, SIDE_PX, SIDE_PX, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(8) % CLASSES
    recognized = recognizer(images)
    weight = recognizer.head.weight if name == "sharded head" else recognizer.neck.linear.weight
    if name == "sharded head":
        return recognizer.head.compute_loss(recognized.logits, labels, label_smoothing=0.1), weight
    keys = (recognized.embeddings.detach().flip(0),) if name == "momentum" else ()
    return build_loss(name)(recognized.embeddings, labels, *keys), weight


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_derivative_is_refused(name: str, recognizers: dict[str, Recognizer]) -> None:
    loss, weight = compute_loss(name, recognizers)
    (plain,) = torch.autograd.grad(loss, weight, retain_graph=True)
    assert plain.abs().sum() > 0
    (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
    assert torch.equal(slope.detach(), plain)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.backward(loss + slope.square().sum())  # a gradient penalty
    loss, weight = compute_loss(name, recognizers)
    (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(slope.flatten()[0], weight)  # a row of the Hessian


def test_a_learned_scale_of_a_loss_has_no_second_derivative_either() -> None:
    rows = functional.normalize(torch.randn(8, 8), dim=1).requires_grad_()
    scale = torch.tensor(2.0, requires_grad=True)
    (slope,) = torch.autograd.grad(scale * build_loss("circle")(rows, torch.arange(8) % 4), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(slope.sum(), scale)


@pytest.mark.parametrize("is_partial", [False, True])
def test_rows_gathered_from_ranks_have_no_second_derivative(is_partial: bool) -> None:
    rows = torch.randn(4, 3, requires_grad=True)
    alone = SimpleNamespace(rank=0, size=1, gather_tensors=lambda one: [one], reduce=lambda one, how: one)
    gathered = _Gather.apply(rows, alone, is_partial)
    (slope,) = torch.autograd.grad(gathered.pow(3).sum(), rows, create_graph=True)
    torch.testing.assert_close(slope.detach(), 3 * rows.detach().square())
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(slope.sum(), rows)


@pytest.mark.parametrize("name", list_losses())
def test_half_precision_embeddings_learn_under_a_loss_scale(name: str) -> None:
    """The gradient is what the one in float32 is, multiplied there and rounded once."""
    generator = torch.Generator().manual_seed(0)
    rows = functional.normalize(torch.randn(64, 8, generator=generator), dim=1).half()
    labels, scale = torch.arange(64) % CLASSES, 65536.0
    loss = build_loss(name)
    twin = copy.deepcopy(loss)
    given, exact = rows.clone().requires_grad_(), rows.float().requires_grad_()
    for module, leaf in ((loss, given), (twin, exact)):
        torch.manual_seed(2)  # a mining may draw
        torch.autograd.backward(module(leaf, labels) * scale)
    assert given.grad is not None
    assert exact.grad is not None
    assert given.grad.dtype == torch.float16
    assert torch.equal(given.grad, exact.grad.half())
    largest = torch.finfo(torch.float16).max
    assert (given.grad.isfinite() == (exact.grad.abs() < largest)).all()
    assert given.grad.isfinite().any()
    for mine, theirs in zip(loss.parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad)
