"""Optimiser: its groups, stages, decay, names, and a state that comes back."""

import io

import pytest
import torch
from torch import nn

from productrec.errors import RecipeError
from productrec.models.backbone import build_backbone
from productrec.training.step.optimiser import build_optimizer
from productrec.training.step.schedule import set_rate

SIDE_PX = 32


def build_body(name="test_resnet", side_px=SIDE_PX):
    torch.manual_seed(0)
    return build_backbone(name, pretrained=False, side_px=side_px)[0]


def build(backbone, name="adamw", heads=None, centres=(), layer_decay=1.0):
    return build_optimizer(
        name,
        backbone=backbone,
        heads=heads.named_parameters() if heads is not None else (),
        centres=centres,
        learning_rate=1e-2,
        head_rate_factor=3.0,
        centre_rate_factor=10.0,
        weight_decay=0.1,
        layer_decay=layer_decay,
    )


def find_group(optimizer, parameter):
    (group,) = [one for one in optimizer.param_groups if any(other is parameter for other in one["params"])]
    return group


def get_rates(optimizer, body):
    return {name: find_group(optimizer, one)["peak_lr"] for name, one in body.network.named_parameters()}


def copy(optimizer):
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_five_groups_have_their_own_rates_and_decay():
    body, heads, centres = build_body(), nn.Linear(4, 3), nn.Parameter(torch.zeros(3, 2, 4))
    groups = build(body, heads=heads, centres=[centres]).param_groups
    rates = [(group["lr"], group["peak_lr"], group["weight_decay"]) for group in groups]
    expected = [(1e-2, 0.1), (1e-2, 0.0), (3e-2, 0.1), (3e-2, 0.0), (1e-1, 0.0)]
    assert rates == [pytest.approx((rate, rate, decay)) for rate, decay in expected]
    assert sum(len(group["params"]) for group in groups) == len(list(body.parameters())) + 3
    for group in groups[:4]:
        assert all((parameter.ndim > 1) == (group["weight_decay"] > 0) for parameter in group["params"])


def test_what_timm_spares_is_not_decayed():
    body = build_body("test_vit")
    optimizer = build(body)
    assert body.network.no_weight_decay() >= {"pos_embed", "cls_token"}
    for name, parameter in body.network.named_parameters():
        decayed = parameter.ndim > 1 and name not in body.network.no_weight_decay()
        assert (find_group(optimizer, parameter)["weight_decay"] > 0) == decayed, name


def test_patterns_of_names_are_spared_too():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network.no_weight_decay = lambda: {"0.*"}
    optimizer = build(network)
    assert find_group(optimizer, network[0].weight)["weight_decay"] == 0.0
    assert find_group(optimizer, network[1].weight)["weight_decay"] > 0


def test_each_earlier_stage_of_a_convolutional_network_learns_slower():
    body = build_body("test_resnet")
    rates = get_rates(build(body, layer_decay=0.5), body)
    for name, rate in rates.items():
        part = name.split(".")[0]
        behind = 4 - int(part.removeprefix("layer")) if part.startswith("layer") else 4
        assert rate == pytest.approx(1e-2 * 0.5**behind), name
    assert len(set(rates.values())) == 5


def test_each_earlier_block_of_a_transformer_learns_slower():
    body = build_body("test_vit")
    count = len(body.network.blocks)
    rates = get_rates(build(body, layer_decay=0.5), body)
    for name, rate in rates.items():
        part, number = name.split(".")[0], name.split(".")[1:2]
        behind = count - 1 - int(number[0]) if part == "blocks" else 0 if part == "norm" else count
        assert rate == pytest.approx(1e-2 * 0.5**behind), name


def test_what_no_stage_claims_learns_with_the_last():
    body = build_body("test_convnext")
    rates = get_rates(build(body, layer_decay=0.5), body)
    left_over = [name for name in rates if not name.startswith(("stem", "stages"))]
    assert left_over
    assert {rates[name] for name in left_over} == {1e-2}
    assert {rate for name, rate in rates.items() if name.startswith("stages.3.")} == {1e-2}
    assert {rate for name, rate in rates.items() if name.startswith("stages.2.")} == {5e-3}


def test_heads_and_centres_keep_their_rates_under_layer_decay_and_groups_their_order():
    body, heads, centres = build_body(), nn.Linear(4, 3), nn.Parameter(torch.zeros(3, 2, 4))
    first, second = (build(body, heads=heads, centres=[centres], layer_decay=0.5) for _ in range(2))
    assert [group["peak_lr"] for group in first.param_groups[-3:]] == pytest.approx([3e-2, 3e-2, 1e-1])
    assert [group["peak_lr"] for group in first.param_groups[:-3:2]] == pytest.approx(
        [1e-2 * 0.5**behind for behind in (4, 3, 2, 1, 0)]
    )
    for one, other in zip(first.param_groups, second.param_groups, strict=True):
        assert [id(parameter) for parameter in one["params"]] == [id(parameter) for parameter in other["params"]]


def test_layer_decay_of_what_tells_no_stages_is_refused():
    for backbone in (nn.Linear(2, 2), build_body("poolformer_s12").network.stages):
        with pytest.raises(RecipeError, match=r"train\.layer_decay below 1: must have a backbone"):
            build(backbone, layer_decay=0.9)


@pytest.mark.parametrize(("typed", "meant"), [("adamww", "adamw"), ("lmab", "lamb"), ("SGD", "adamw, sgd")])
def test_an_unknown_name_is_refused_with_near_ones(typed, meant):
    with pytest.raises(RecipeError, match=rf"train\.optimizer: .*{meant}"):
        build(nn.Linear(2, 2), typed)


def test_an_optimiser_of_second_order_gradients_is_refused():
    with pytest.raises(RecipeError, match="first-order"):
        build(nn.Linear(2, 2), "adahessian")


@pytest.mark.skipif(torch.cuda.is_available(), reason="apex may be here")
def test_an_optimiser_that_is_not_to_be_had_here_is_refused_in_a_line():
    with pytest.raises(RecipeError, match="fusedlamb cannot be built here .*CUDA"):
        build(nn.Linear(2, 2), "fusedlamb")


def test_adamw_is_fused_on_cuda_alone():
    assert build(nn.Linear(2, 2)).param_groups[0]["fused"] is None
    if torch.cuda.is_available():
        assert build(nn.Linear(2, 2).cuda()).param_groups[0]["fused"] is True


def learn(body, heads, optimizer, steps, start=0):
    images = torch.randn(8, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(1))
    losses = []
    for step in range(start, start + steps):
        set_rate(optimizer, 1 / (1 + step))
        loss = (heads(body(images).mean(dim=(2, 3))) - 1).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion", "nadamw", "adan", "muon"])
def test_groups_keep_their_rates_and_a_loaded_state_goes_on_as_if_nothing_had_been(name, layer_decay):
    def make():
        body = build_body()
        torch.manual_seed(1)
        heads = nn.Linear(body.feature_dim, 2)
        return body, heads, build(body, name, heads, layer_decay=layer_decay)

    body, heads, optimizer = make()
    assert find_group(optimizer, heads.weight)["lr"] == pytest.approx(3e-2)
    assert find_group(optimizer, heads.weight)["weight_decay"] == pytest.approx(0.1)
    assert find_group(optimizer, heads.bias)["weight_decay"] == 0.0
    assert find_group(optimizer, body.network.conv1[0].weight)["lr"] == pytest.approx(1e-2 * layer_decay**4)
    losses = learn(body, heads, optimizer, 3)
    assert losses[-1] < losses[0]
    weights = [one.state_dict() for one in (body, heads)]
    weights = [{key: value.clone() for key, value in one.items()} for one in weights]
    state = copy(optimizer)
    learn(body, heads, optimizer, 3, start=3)

    again_body, again_heads, again = make()
    again_body.load_state_dict(weights[0])
    again_heads.load_state_dict(weights[1])
    again.load_state_dict(state)
    assert [group["peak_lr"] for group in again.param_groups] == [group["peak_lr"] for group in optimizer.param_groups]
    learn(again_body, again_heads, again, 3, start=3)
    for key, value in body.state_dict().items():
        assert torch.equal(value, again_body.state_dict()[key]), key
    assert torch.equal(heads.weight, again_heads.weight)


def test_a_state_of_other_stages_does_not_load():
    body = build_body()
    with pytest.raises(ValueError, match="group"):
        build(body, layer_decay=0.5).load_state_dict(copy(build(body)))
