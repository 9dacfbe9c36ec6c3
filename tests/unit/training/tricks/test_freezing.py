"""Freezing: a frozen backbone does not move, and a thawed one does."""

import pytest
import torch

from productrec.errors import RecipeError
from productrec.models.recognizer import build_recognizer
from productrec.training.step.memory_estimate import estimate_kept_bytes
from productrec.training.step.optimiser import build_optimizer
from productrec.training.tricks.freezing import freeze_stages, set_backbone_frozen, set_norms_frozen


def build(optimizer, backbone="mobilenetv3_small_050"):
    torch.manual_seed(0)
    recognizer = build_recognizer(
        backbone=backbone,
        pretrained=False,
        side_px=32,
        pooling="gem",
        gem_power=3.0,
        embedding_dim=8,
        class_count=4,
    ).train()
    return recognizer, build_optimizer(
        optimizer,
        backbone=recognizer.backbone,
        heads=recognizer.iterate_head_parameters(),
        centres=(),
        learning_rate=1e-2,
        head_rate_factor=1.0,
        centre_rate_factor=1.0,
        weight_decay=0.5,
    )


def run_step(recognizer, optimizer):
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = recognizer(images)
    torch.nn.functional.cross_entropy(found.logits, torch.arange(4)).add(found.embeddings[:, 0].sum()).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def copy(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def find_moved(module, before):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb"])
def test_a_frozen_backbone_does_not_move_and_a_thawed_one_does(optimizer, steps_before):
    recognizer, updates = build(optimizer)
    for _ in range(steps_before):  # momentum and decay must not move it either
        run_step(recognizer, updates)
    set_backbone_frozen(recognizer, True)
    body, heads = copy(recognizer.backbone), copy(recognizer.head)
    for _ in range(2):
        run_step(recognizer, updates)
    assert find_moved(recognizer.backbone, body) == set()
    assert find_moved(recognizer.head, heads) == {"linear.weight", "linear.bias"}
    set_backbone_frozen(recognizer, False)
    run_step(recognizer, updates)
    moved = find_moved(recognizer.backbone, body)
    learned = {name for name, _ in recognizer.backbone.named_parameters() if "conv_head" not in name}  # it is not used
    assert moved >= {name for name in learned if name.endswith("weight")}
    assert moved >= {name for name in body if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}


def test_gradients_that_were_left_from_before_move_nothing():
    recognizer, updates = build("adamw")
    images = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    recognizer(images).logits.sum().backward()
    set_backbone_frozen(recognizer, True)
    body = copy(recognizer.backbone)
    updates.step()
    assert find_moved(recognizer.backbone, body) == set()


def test_norms_of_the_neck_go_on_learning():
    recognizer, updates = build("sgd")
    set_backbone_frozen(recognizer, True)
    neck = copy(recognizer.neck)
    run_step(recognizer, updates)
    assert "norm.running_mean" in find_moved(recognizer.neck, neck)


def test_training_mode_wakes_the_norms_until_it_is_called_again():
    recognizer, updates = build("sgd")
    set_backbone_frozen(recognizer, True)
    recognizer.eval()
    recognizer.train()
    body = copy(recognizer.backbone)
    with torch.no_grad():
        recognizer(torch.zeros(4, 32, 32, 3, dtype=torch.uint8))
    assert find_moved(recognizer.backbone, body)
    set_backbone_frozen(recognizer, True)
    body = copy(recognizer.backbone)
    run_step(recognizer, updates)
    assert find_moved(recognizer.backbone, body) == set()


def test_thawing_restores_what_learned_and_nothing_else():
    recognizer, _ = build("sgd")
    fixed = next(recognizer.backbone.parameters()).requires_grad_(False)
    modes = [module.training for module in recognizer.modules()]
    for frozen in (False, True, True, False, False):
        set_backbone_frozen(recognizer, frozen)
    assert not fixed.requires_grad
    assert [one.requires_grad for one in recognizer.parameters()].count(False) == 1
    assert [module.training for module in recognizer.modules()] == modes


def test_thawing_a_network_in_eval_mode_leaves_its_norms_so():
    recognizer, _ = build("sgd")
    set_backbone_frozen(recognizer, True)
    recognizer.eval()
    set_backbone_frozen(recognizer, False)
    assert not any(module.training for module in recognizer.modules())


def test_a_backbone_without_running_statistics_freezes_too():
    recognizer, updates = build("adamw", backbone="test_vit")
    set_backbone_frozen(recognizer, True)
    body = copy(recognizer.backbone)
    run_step(recognizer, updates)
    assert find_moved(recognizer.backbone, body) == set()
    set_backbone_frozen(recognizer, False)
    run_step(recognizer, updates)
    assert find_moved(recognizer.backbone, body)


def test_norms_alone_keep_their_statistics_while_all_else_learns():
    recognizer, updates = build("sgd")
    set_norms_frozen(recognizer, True)
    body, neck = copy(recognizer.backbone), copy(recognizer.neck)
    run_step(recognizer, updates)
    moved = find_moved(recognizer.backbone, body)
    assert not any(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in moved)
    assert any("bn" in name and name.endswith("weight") for name in moved)  # scales and shifts
    assert "norm.running_mean" in find_moved(recognizer.neck, neck)
    set_norms_frozen(recognizer, False)
    body = copy(recognizer.backbone)
    run_step(recognizer, updates)
    assert any(name.endswith("running_mean") for name in find_moved(recognizer.backbone, body))


def build_staged(backbone, count):
    recognizer, _ = build("sgd", backbone)
    freeze_stages(recognizer, count)
    updates = build_optimizer(
        "adamw",
        backbone=recognizer.backbone,
        heads=recognizer.iterate_head_parameters(),
        centres=(),
        learning_rate=1e-2,
        head_rate_factor=1.0,
        centre_rate_factor=1.0,
        weight_decay=0.5,
    )
    set_backbone_frozen(recognizer.train(), False)
    return recognizer, updates


@pytest.mark.parametrize(
    ("backbone", "count", "stays"),
    [
        ("tf_efficientnet_lite0", 3, ("conv_stem", "bn1.", "blocks.0", "blocks.1")),
        ("resnet10t", 2, ("conv1", "bn1.", "layer1")),
        ("test_vit", 1, ("patch_embed", "cls_token", "pos_embed")),
    ],
)
def test_first_stages_never_learn_and_all_later_ones_do(backbone, count, stays):
    recognizer, updates = build_staged(backbone, count)
    network = recognizer.backbone.network
    before = copy(network)
    for frozen in (False, True, False):  # epochs that freeze all of it wake nothing of them
        set_backbone_frozen(recognizer.train(), frozen)
        run_step(recognizer, updates)
    moved = find_moved(network, before)
    assert not any(name.startswith(stays) for name in moved)
    later = {name for name, _ in network.named_parameters() if not name.startswith(stays)}
    assert {name for name in later if name.endswith("weight")} <= moved


def test_first_stages_hold_nothing_for_the_way_back():
    recognizer, _ = build_staged("tf_efficientnet_lite0", 3)
    whole, _ = build("sgd", "tf_efficientnet_lite0")
    kept = [estimate_kept_bytes(network.backbone, 64) for network in (recognizer, whole)]
    assert kept[0] < 0.6 * kept[1]


def test_more_stages_than_there_are_is_refused():
    recognizer, _ = build("sgd", "resnet10t")
    with pytest.raises(RecipeError, match=r"below the 5 stages of the backbone; got 5.*freeze_epochs"):
        freeze_stages(recognizer, 5)


def test_a_backbone_that_tells_no_stages_is_refused():
    recognizer, _ = build("sgd", "resnet10t")
    recognizer.backbone.network = torch.nn.Conv2d(3, 8, 3)
    with pytest.raises(RecipeError, match=r"train\.freeze_stages: must have a backbone that tells its stages"):
        freeze_stages(recognizer, 1)
