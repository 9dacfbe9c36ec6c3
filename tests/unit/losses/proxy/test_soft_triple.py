import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from productrec.errors import RecipeError, TrainingError
from productrec.losses.centres.soft_triple import compute_soft_triple_loss
from productrec.losses.proxy.soft_triple import SoftTriple


def draw_inputs(
    rows: int = 7, classes: int = 4, per_class: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    embeddings = functional.normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64), dim=1)
    centres = 2.0 * torch.randn(classes, per_class, 5, generator=generator, dtype=torch.float64)
    return embeddings.to(dtype), torch.arange(rows) % classes, centres.to(dtype)


class LargestTensor(TorchFunctionMode):
    """Elements of the largest tensor that any torch function returned inside."""

    elements = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_one_centre_without_margin_is_the_normalised_softmax_loss() -> None:
    embeddings, labels, centres = draw_inputs(per_class=1, dtype=torch.float64)
    expected = functional.cross_entropy(20.0 * embeddings @ functional.normalize(centres[:, 0], dim=1).T, labels)
    assert compute_soft_triple_loss(embeddings, labels, centres, margin=0.0).item() == pytest.approx(expected.item())


def test_repeated_centres_are_one_centre() -> None:
    embeddings, labels, centres = draw_inputs(per_class=1)
    one = compute_soft_triple_loss(embeddings, labels, centres)
    three = compute_soft_triple_loss(embeddings, labels, centres.repeat(1, 3, 1))
    torch.testing.assert_close(three, one)


def test_regulariser_of_orthogonal_centres() -> None:
    embeddings, labels, _ = draw_inputs(classes=2)
    centres = torch.eye(5)[:4].reshape(2, 2, 5)
    bare = compute_soft_triple_loss(embeddings, labels, centres, tau=0.0)
    # One pair a class, at distance sqrt(2), over K (K - 1) = 2.
    assert (compute_soft_triple_loss(embeddings, labels, centres, tau=3.0) - bare).item() == pytest.approx(
        3.0 * math.sqrt(2.0) / 2.0, rel=1e-5
    )


def test_equals_pytorch_metric_learning() -> None:
    # Value of its version 2.9.0 on these inputs; it leaves the regulariser to another class, with another formula.
    def make_waves(step: float) -> Tensor:
        return functional.normalize(torch.sin(torch.arange(72.0, dtype=torch.float64).reshape(12, 6) ** 1.5 * step))

    loss = compute_soft_triple_loss(
        make_waves(0.7), torch.arange(12) % 4, 2.0 * make_waves(0.3).reshape(4, 3, 6), tau=0.0
    )
    assert loss.item() == pytest.approx(7.718258312687245, rel=1e-9)


def test_lengths_of_centres_do_not_matter() -> None:
    embeddings, labels, centres = draw_inputs()
    torch.testing.assert_close(
        compute_soft_triple_loss(embeddings, labels, centres * torch.rand(4, 3, 1).add(0.1)),
        compute_soft_triple_loss(embeddings, labels, centres),
    )


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_coincident_centres_have_a_finite_gradient() -> None:
    embeddings, labels, centres = draw_inputs()
    centres[:, 1] = 3.0 * centres[:, 0]
    centres.requires_grad_()
    with torch.autograd.detect_anomaly(check_nan=True):
        torch.autograd.backward(compute_soft_triple_loss(embeddings, labels, centres))
    assert centres.grad is not None
    assert centres.grad.isfinite().all()
    # Broken on purpose: the plain square root, and the plain square root behind one where.
    for guarded in (False, True):
        squared = torch.zeros(1, requires_grad=True)
        distance = torch.where(squared > 0, squared.sqrt(), 0.0) if guarded else squared.sqrt()
        torch.autograd.backward(distance.sum())
        assert squared.grad is not None
        assert not squared.grad.isfinite().any()


def test_coincident_centres_take_the_zero_subgradient() -> None:
    embeddings, labels, centres = draw_inputs(per_class=1)
    centres = centres.repeat(1, 2, 1).requires_grad_()
    (with_pull,) = torch.autograd.grad(compute_soft_triple_loss(embeddings, labels, centres, tau=100.0), centres)
    (without,) = torch.autograd.grad(compute_soft_triple_loss(embeddings, labels, centres, tau=0.0), centres)
    assert torch.equal(with_pull, without)


def test_near_centres_are_pulled_with_bounded_force() -> None:
    embeddings, labels, centres = draw_inputs(classes=1, per_class=2)
    labels = torch.zeros_like(labels)
    for gap in (1e-1, 1e-2, 3e-3, 1e-3, 1e-4, 1e-6):
        near = functional.normalize(centres, dim=2)
        near[:, 1] = near[:, 0] + gap * torch.tensor([0.0, 0.6, 0.0, -0.8, 0.0])
        near.requires_grad_()
        (gradient,) = torch.autograd.grad(compute_soft_triple_loss(embeddings, labels, near, tau=1.0), near)
        assert gradient.norm(dim=2).max().item() < 1.0, gap  # 1/2 a centre in exact arithmetic


def test_one_centre_a_class_has_no_regulariser() -> None:
    embeddings, labels, centres = draw_inputs(per_class=1)
    centres.requires_grad_()
    loss = compute_soft_triple_loss(embeddings, labels, centres, tau=5.0)
    torch.autograd.backward(loss)
    assert torch.equal(loss, compute_soft_triple_loss(embeddings, labels, centres, tau=0.0))
    assert centres.grad is not None
    assert centres.grad.isfinite().all()


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("classes", [1, 4])
def test_identical_embeddings_and_one_class(rows: int, classes: int) -> None:
    embeddings, labels, centres = draw_inputs(rows, classes)
    embeddings = embeddings[:1].repeat(rows, 1).requires_grad_()
    loss = compute_soft_triple_loss(embeddings, labels, centres.requires_grad_())
    torch.autograd.backward(loss)
    assert loss.isfinite()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    if classes == 1:
        assert compute_soft_triple_loss(embeddings, labels, centres, tau=0.0).item() == 0.0


def test_finite_at_similarity_one_and_minus_one() -> None:
    centres = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]]], requires_grad=True)
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = compute_soft_triple_loss(embeddings, torch.tensor([1, 0]), centres, scale=1000.0, gamma=1e-3)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    for tensor in (centres, embeddings):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    embeddings, labels, centres = draw_inputs(dtype=dtype)
    loss = compute_soft_triple_loss(embeddings, labels, centres)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, compute_soft_triple_loss(embeddings.float(), labels, centres.float()))


def test_autocast_changes_nothing() -> None:
    embeddings, labels, centres = draw_inputs()
    expected = compute_soft_triple_loss(embeddings, labels, centres)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compute_soft_triple_loss(embeddings, labels, centres), expected)
        assert (embeddings @ centres[:, 0].T).dtype == torch.bfloat16  # without the guard


def test_gradient_check() -> None:
    embeddings, labels, centres = draw_inputs(4, 3, 3, torch.float64)
    inputs = (embeddings.requires_grad_(), centres.requires_grad_())
    assert torch.autograd.gradcheck(lambda rows, held: compute_soft_triple_loss(rows, labels, held), inputs)


def test_regulariser_stays_within_a_class() -> None:
    classes, per_class = 50, 10
    embeddings, labels, centres = draw_inputs(3, classes, per_class)
    with LargestTensor() as largest:
        compute_soft_triple_loss(embeddings, labels, centres)
    assert 0 < largest.elements <= classes * per_class * per_class
    with LargestTensor() as largest:  # broken on purpose: the authors' product of all centres with all
        centres.flatten(0, 1) @ centres.flatten(0, 1).T
    assert largest.elements == (classes * per_class) ** 2


def test_module_equals_function() -> None:
    embeddings, labels, _ = draw_inputs()
    settings = {"scale": 10.0, "gamma": 0.2, "margin": 0.1, "tau": 0.5}
    module = SoftTriple(centres_per_class=3, **settings).build(5, 4)
    assert torch.equal(
        module(embeddings, labels), compute_soft_triple_loss(embeddings, labels, module.centres, **settings)
    )
    default = SoftTriple(centres_per_class=3).build(5, 4)
    plain = compute_soft_triple_loss(embeddings, labels, default.centres)
    assert torch.equal(default(embeddings, labels), plain)
    for name, value in settings.items():
        changed = compute_soft_triple_loss(embeddings, labels, default.centres, **{name: value})
        assert not torch.equal(changed, plain), f"{name} has no effect on these inputs"
    assert "centres=(4, 3, 5), scale=10.0, gamma=0.2, margin=0.1, tau=0.5" in repr(module)


def test_centres_are_a_parameter_and_start_within_their_bound() -> None:
    module = SoftTriple().build(16, 30)
    assert module.centres.shape == (30, 10, 16)
    assert set(module.state_dict()) == {"centres"}
    assert module.to(torch.float64).centres.dtype == torch.float64  # a plain attribute would stay behind
    assert 0.2 < module.centres.abs().max().item() <= 0.25
    before = module.centres.detach().clone()
    module.reset_parameters()
    assert not torch.equal(module.centres, before)


def test_centres_learn() -> None:
    embeddings, labels, _ = draw_inputs()
    module = SoftTriple(centres_per_class=2).build(5, 4)
    losses = []
    for _ in range(30):
        loss = module(embeddings, labels)
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, module.centres)
        with torch.no_grad():
            module.centres.sub_(0.05 * gradient)
    assert losses[-1] < losses[0]


def test_unsound_inputs_are_refused() -> None:
    embeddings, labels, centres = draw_inputs()
    for wrong in (centres[:, 0], centres[..., :4], centres[:, :0], centres[:0]):
        with pytest.raises(TrainingError, match="SoftTriple loss: centres must have shape"):
            compute_soft_triple_loss(embeddings, labels, wrong)
    for label in (4, -1, -100):
        with pytest.raises(TrainingError, match="from 0 to 3; got"):
            compute_soft_triple_loss(embeddings, torch.full_like(labels, label), centres)
    with pytest.raises(TrainingError, match="integer"):
        compute_soft_triple_loss(embeddings, labels.float(), centres)
    for settings in ({"scale": 0.0}, {"gamma": 0.0}, {"tau": -0.1}, {"gamma": math.nan}):
        with pytest.raises(RecipeError, match="scale and gamma must be above 0"):
            compute_soft_triple_loss(embeddings, labels, centres, **settings)
    for sizes in ((0, 4), (5, 0)):
        with pytest.raises(RecipeError, match="at least 1"):
            SoftTriple().build(*sizes)
    with pytest.raises(RecipeError, match="soft_triple: centres_per_class: input should be"):
        SoftTriple(centres_per_class=0)


# ---------------------------------------------------------------- merged centres


@pytest.mark.parametrize("block_classes", [None, 2])
def test_a_merged_centre_is_all_of_its_centres_in_value_and_gradient(block_classes: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = functional.normalize(torch.randn(9, 5, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.arange(9) % 3
    sizes = torch.tensor([[3, 1, 0, 0], [1, 0, 2, 1], [0, 4, 0, 0]])
    centres = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    copies = torch.stack([torch.cat([one.expand(n, 5) for one, n in zip(*pair)]) for pair in zip(centres, sizes)])  # noqa: B905
    few, many = centres.clone().requires_grad_(), copies.clone().requires_grad_()
    rows, twins = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    merged = compute_soft_triple_loss(rows, labels, few, sizes=sizes, block_classes=block_classes)
    whole = compute_soft_triple_loss(twins, labels, many)
    torch.testing.assert_close(merged, whole)
    torch.autograd.backward([merged, whole])
    assert few.grad is not None
    assert many.grad is not None
    torch.testing.assert_close(rows.grad, twins.grad)
    for place in range(3):
        parts = many.grad[place].split(sizes[place].tolist())
        torch.testing.assert_close(few.grad[place], torch.stack([part.sum(dim=0) for part in parts]))
    # Broken on purpose: a count that is forgotten.
    assert (compute_soft_triple_loss(embeddings, labels, few, sizes=sizes > 0) - whole).abs() > 1e-3
    assert torch.autograd.gradcheck(
        lambda e, w: compute_soft_triple_loss(e, labels, w, sizes=sizes), (rows, (few.detach() + 1).requires_grad_())
    )


def test_merging_is_part_of_the_state_and_of_the_diagnosis() -> None:
    torch.manual_seed(0)
    loss = SoftTriple(centres_per_class=3).build(6, 4)
    with torch.no_grad():
        loss.centres[:, 2] = 2 * loss.centres[:, 0]
    embeddings, labels = functional.normalize(torch.randn(8, 6), dim=1), torch.arange(8) % 4
    before, seen = loss(embeddings, labels), loss.diagnose(embeddings, labels)
    assert loss.sizes is None
    kept = loss.centres.detach().clone()
    loss.merge(1e-3)
    assert loss.sizes is not None
    assert loss.sizes.tolist() == [[2, 1, 0]] * 4
    torch.testing.assert_close(loss.centres.detach(), kept)  # in place, with its length
    torch.testing.assert_close(loss(embeddings, labels), before)
    other = SoftTriple(centres_per_class=3).build(6, 4)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(embeddings, labels), loss(embeddings, labels))
    again = loss.diagnose(embeddings, labels)
    assert again.hardest_negative is not None
    assert seen.hardest_negative is not None
    assert again.hardest_negative.similarity == pytest.approx(seen.hardest_negative.similarity)
    with torch.no_grad():
        loss.centres[:, 2] = embeddings[0]  # of no part any more
    assert loss.diagnose(embeddings, labels).negative_similarity == pytest.approx(again.negative_similarity)
    torch.testing.assert_close(loss(embeddings, labels), before)
    other.load_state_dict(SoftTriple(centres_per_class=3).build(6, 4).state_dict())
    assert other.sizes is None


def test_sizes_that_do_not_fit_are_refused() -> None:
    embeddings, labels, centres = draw_inputs()
    with pytest.raises(TrainingError, match=r"sizes must be one a centre, \(4, 3\); got \(4,\)"):
        compute_soft_triple_loss(embeddings, labels, centres, sizes=torch.ones(4))
