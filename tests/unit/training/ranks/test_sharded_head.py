"""The head in shards: the softmax over all of them is the plain one, for any number of ranks, and resumes exactly."""

import pytest
import torch
from torch.nn import functional as F

from productrec.assembly.trainer import build_trainer
from productrec.errors import RecipeError, TrainingError
from productrec.losses.classification.cross_entropy import compute_classification_loss
from productrec.models.recognizer import ClassificationHead
from productrec.recipe import build_recipe
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.sharded_head import ShardedHead, _draw_rows, _ShardedCrossEntropy
from tests.unit.training.ranks.test_ranks import run_ranks
from tests.unit.training.small_training import CLASSES, PlainImages, build

STEPS = """
import os, sys, torch
sys.path.insert(0, os.getcwd())
from productrec.training.ranks.group import join_ranks, leave_ranks
from productrec.training.tricks.mixing import Mixture
from tests.unit.training.small_training import CLASSES, PlainImages, build

class Alike:
    # Mixes every third step by labels alone: who else an image is mixed with depends on the ranks.

    def mix(self, images, labels, step):
        return (images, Mixture((labels + 1) % 4, 0.3)) if step % 3 == 1 else (images, None)

torch.set_num_threads(1)
ranks = join_ranks(torch.device("cpu"), timeout_minutes=1)

def play(sharded, metric, out):
    images, labels = PlainImages(None).images[:12], PlainImages(None).labels[:12]
    size = len(images) // ranks.size
    own = slice(ranks.rank * size, (ranks.rank + 1) * size)

    def make():
        # Clipped so hard that the norm of all gradients matters.
        options = {"dropout": 0.0, "ema_decay": 0.9, "gradient_clip": 0.5}
        trainer = build(metric, ranks=ranks, shard_head=sharded, **options)
        if not sharded:  # with the weights that shards begin with
            shards = build(metric, shard_head=True, **options)
            trainer.recognizer.load_state_dict(shards.raw.state_dict())
            trainer.average.network.load_state_dict(shards.raw.state_dict())
        trainer.mixing = Alike()
        for module in trainer.recognizer.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        return trainer

    def train(trainer, steps):
        return [float(trainer.run_step(images[own], labels[own])["loss"]) for _ in range(steps)]

    def copy(network):
        return {name: value.clone() for name, value in network.state_dict().items()}

    trainer = make()
    losses = train(trainer, 3)
    hook = None
    if ranks.rank == ranks.size - 1:
        hook = trainer.recognizer.head.register_forward_hook(lambda module, given, said: said * float("nan"))
    train(trainer, 1)
    if hook is not None:
        hook.remove()
    state = trainer.state_dict()
    random = torch.get_rng_state()
    assert state["progress"]["skipped"] == 1, state["progress"]
    kept, raw = copy(trainer.evaluated), copy(trainer.raw)
    assert torch.equal(random, torch.get_rng_state())  # or a resume would draw others
    assert ("shards" in state) == (sharded and ranks.size > 1)
    if ranks.is_first:
        torch.save(state, f"{out}.state")
    ranks.gather_objects(None)
    train(trainer, 2)
    other = make()
    other.load_state_dict(torch.load(f"{out}.state", weights_only=True))
    train(other, 2)
    pairs = [(copy(trainer.evaluated), copy(other.evaluated)), (copy(trainer.raw), copy(other.raw))]
    differing = [name for one, two in pairs for name in one if not torch.equal(one[name], two[name])]
    assert not differing, differing
    torch.save({"losses": losses, "kept": kept, "raw": raw}, f"{out}.{ranks.rank}")

for case in sys.argv[2:]:  # together, since most of the time is imports
    kind, metric = case.split("/")
    play(kind == "sharded", metric, f"{sys.argv[1]}-{kind}-{metric}")
leave_ranks()
"""


METRICS = ["multi_similarity", "none"]


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Folder of what one, two and three ranks have seen with a head in shards, and one with a plain head."""
    folder = tmp_path_factory.mktemp("shards")
    for size in (1, 2, 3):  # four classes on three ranks: the last one has none
        cases = [f"{kind}/{metric}" for kind in ("plain", "sharded")[size > 1 :] for metric in METRICS]
        codes, said = run_ranks(size, STEPS, folder / f"size{size}", *cases)
        assert codes == [0] * size, said
    return folder


@pytest.mark.xdist_group("shards")
@pytest.mark.parametrize("metric", METRICS)
def test_shards_on_any_number_of_ranks_are_the_plain_head(metric, played):
    plain = torch.load(played / f"size1-plain-{metric}.0", weights_only=True)
    for size in (1, 2, 3):
        for rank in range(size):
            seen = torch.load(played / f"size{size}-sharded-{metric}.{rank}", weights_only=True)
            assert seen["losses"] == pytest.approx(plain["losses"], rel=1e-5)
            for kind in ("kept", "raw"):
                assert seen[kind].keys() == plain[kind].keys()
                for name, value in plain[kind].items():
                    assert torch.allclose(seen[kind][name], value, rtol=1e-4, atol=2e-5), (size, rank, kind, name)


def make_pair(negative_share=1.0, classes=11, features=5):
    torch.manual_seed(0)
    plain = ClassificationHead(features, classes, 0.0)
    head = ShardedHead(features, classes, dropout=0.0, negative_share=negative_share, ranks=Ranks())
    with torch.no_grad():
        head.weight.copy_(plain.linear.weight)
        head.bias.copy_(plain.linear.bias)
    return plain, head


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_value_and_gradients_are_those_of_cross_entropy(label_smoothing):
    plain, head = make_pair()
    labels = torch.tensor([0, 10, 3, 3])
    one, other = torch.randn(2, 4, 5).unbind()
    one, other = one.requires_grad_(), one.detach().clone().requires_grad_()
    wanted = compute_classification_loss(plain(one), labels, label_smoothing=label_smoothing)
    seen = head.compute_loss(head(other), labels, label_smoothing=label_smoothing)
    assert float(seen.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    wanted.backward()
    seen.backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-6)
    assert torch.allclose(plain.linear.weight.grad, head.weight.grad, atol=1e-6)
    assert torch.allclose(plain.linear.bias.grad, head.bias.grad, atol=1e-6)


def test_the_gradient_is_that_of_the_value():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([2, -1, 0])
    # A label that no shard holds is not met; its term is left out of the value and of the gradient alike.
    torch.autograd.gradcheck(lambda z: _ShardedCrossEntropy.apply(z[:1], places[:1], Ranks(), 0.1, 4), logits)
    torch.autograd.gradcheck(lambda z: _ShardedCrossEntropy.apply(z[2:], places[2:], Ranks(), 0.0, 4), logits)


@pytest.mark.parametrize("negative_share", [1.0, 0.5])
@pytest.mark.parametrize("label", [-1, CLASSES, 100])
def test_labels_out_of_range_are_refused_as_by_the_plain_head(negative_share, label):
    labels = torch.tensor([0, 1, label, 2])
    for trainer in (build("none", shard_head=True, negative_share=negative_share), build("none")):
        with pytest.raises(TrainingError, match="labels must be class positions from 0 to 3"):
            trainer.run_step(PlainImages(None).images[:4], labels)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_it_stays_finite(extreme):
    logits = torch.tensor([[extreme, 0.0, -extreme]], requires_grad=True)
    loss = _ShardedCrossEntropy.apply(logits, torch.tensor([1]), Ranks(), 0.1, 3)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("negative_share", [0.1, 0.5])
def test_a_sample_holds_the_batch_and_is_a_softmax_of_its_own(negative_share):
    _, head = make_pair(negative_share, classes=40)
    labels = torch.tensor([7, 39, 7, 0])
    features = torch.randn(4, 5)
    for _ in range(5):
        state = torch.get_rng_state()
        chosen, places = head._choose(labels)
        assert len(chosen) == max(4, round(negative_share * 40)) and (chosen.diff() > 0).all()
        assert torch.equal(chosen[places], labels)
        torch.set_rng_state(state)
        seen = head.compute_loss(features, labels, label_smoothing=0.1)
        logits = F.linear(features, head.weight[chosen], head.bias[chosen])
        wanted = F.cross_entropy(logits, places, label_smoothing=0.1)
        assert float(seen.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    drawn = {tuple(head._choose(labels)[0].tolist()) for _ in range(10)}
    assert len(drawn) > 5


def test_a_sample_that_left_out_the_batch_would_be_seen():
    _, head = make_pair(0.1, classes=40)
    labels = torch.tensor([7, 39, 7, 0])
    missing = [set(labels.tolist()) - set(torch.rand(40).topk(4).indices.tolist()) for _ in range(10)]
    assert any(missing)  # which a plain draw does
    assert all(set(labels.tolist()) <= set(head._choose(labels)[0].tolist()) for _ in range(10))


def test_first_weights_are_the_same_however_they_are_cut():
    def draw(start, count):
        torch.manual_seed(5)
        return _draw_rows(start, count, 3)

    whole = draw(0, 2500)
    assert torch.equal(torch.cat([draw(0, 1250), draw(1250, 1250)]), whole)
    assert torch.equal(draw(1023, 2), whole[1023:1025])
    assert whole.abs().max() <= 3**-0.5 and whole.std() == pytest.approx(3**-0.5 / 3**0.5, rel=0.05)


def test_a_sharded_training_learns_and_keeps_a_plain_network():
    trainer = build(shard_head=True, negative_share=0.5, dropout=0.0, ema_decay=0.0, learning_rate=3e-3)
    images, labels = PlainImages(None).images, PlainImages(None).labels
    losses = [float(trainer.run_step(images, labels)["classification"]) for _ in range(15)]
    assert losses[-1] < losses[0]
    evaluated = trainer.evaluated
    assert isinstance(evaluated.head, ClassificationHead) and isinstance(trainer.recognizer.head, ShardedHead)
    assert evaluated.eval()(images).logits.shape == (16, 4)
    assert evaluated.backbone is trainer.recognizer.backbone
    assert build().evaluated.head is not None


def test_settings_that_do_not_go_together():
    with pytest.raises(RecipeError, match=r"negative_share needs a head in shards; add train\.shard_head=true"):
        build_recipe({"name": "run", "train": {"negative_share": 0.5}})


def test_optimisers_that_look_at_whole_layers_are_refused_on_several_ranks():
    values = {"name": "run", "model": {"backbone": "mobilenetv3_small_050", "pretrained": False}}
    recipe = build_recipe(values | {"train": {"shard_head": True, "optimizer": "lamb", "side_px": 32}})
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    with pytest.raises(RecipeError, match="must be one of adamw, sgd"):
        build_trainer(recipe, [4] * 5, 1, **place, ranks=Ranks(1, 2))
    assert build_trainer(recipe, [4] * 5, 1, **place).recognizer.head.weight.shape[0] == 5
    with pytest.raises(RecipeError, match="must have bfloat16 or float32"):
        build_trainer(recipe, [4] * 5, 1, device=torch.device("cpu"), dtype=torch.float16)
