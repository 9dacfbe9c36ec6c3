"""Jigsaw: what is shuffled and how far, the two terms by hand, and who gets to see destroyed images."""

import numpy as np
import pytest
import torch

from productrec.errors import RecipeError, TrainingError
from productrec.losses.engine.module import MetricModule
from productrec.recipe import build_recipe
from productrec.training.tricks.jigsaw import Jigsaw, shuffle_regions
from tests.unit.training.small_training import PlainImages, build, copy_state, play


class LargeImages(PlainImages):
    """Of twice the side: a feature map of 2 x 2."""

    def __init__(self, sampler):
        super().__init__(sampler)
        self.images = self.images.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


@pytest.mark.parametrize(("parts", "reach"), [(2, 1), (4, 1), (4, 2), (8, 2), (8, 20)])
def test_regions_are_shuffled_nearby_and_none_is_lost(parts, reach):
    side = 16
    images = torch.randint(0, 255, (5, side, side, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    whole = images.clone()
    destroyed, origins = shuffle_regions(images, np.random.default_rng(0), parts=parts, reach=reach)
    assert torch.equal(images, whole) and destroyed.dtype == torch.uint8
    assert origins.sort(dim=1).values.equal(torch.arange(parts**2).expand(5, -1))
    assert len(torch.unique(origins, dim=0)) > 1
    size = side // parts
    for image in range(5):
        for place, origin in enumerate(origins[image].tolist()):
            (row, column), (from_row, from_column) = divmod(place, parts), divmod(origin, parts)
            assert abs(row - from_row) < 2 * reach and abs(column - from_column) < 2 * reach
            seen = destroyed[image, row * size : (row + 1) * size, column * size : (column + 1) * size]
            y, x = from_row * size, from_column * size
            assert torch.equal(seen, whole[image, y : y + size, x : x + size])


def test_the_terms_by_hand():
    torch.manual_seed(0)
    jigsaw = Jigsaw(3, parts=2, reach=1, adversarial_weight=0.5, alignment_weight=2.0, seed=0)
    maps, origins = torch.randn(4, 3, 4, 4), torch.tensor([[1, 0, 3, 2], [2, 3, 0, 1]])
    adversarial = 0.0
    for image in range(4):
        logits = jigsaw.tell(maps[image].mean(dim=(1, 2))).detach()
        adversarial -= float(logits.log_softmax(0)[int(image >= 2)]) / 4
    errors = []
    for image in range(4):
        found = jigsaw.locate(maps[image]).detach()
        for place in range(4):
            row, column = divmod(place, 2)
            region = found[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(dim=(1, 2))
            origin = place if image < 2 else int(origins[image - 2, place])
            errors += [abs(float(region[axis]) - (divmod(origin, 2)[axis] + 0.5) / 2) for axis in range(2)]
    total, terms = jigsaw(maps, origins)
    assert float(terms["jigsaw_adversarial"]) == pytest.approx(adversarial, rel=1e-5)
    assert float(terms["jigsaw_alignment"]) == pytest.approx(np.mean(errors), rel=1e-5)
    assert float(total.detach()) == pytest.approx(0.5 * adversarial + 2 * np.mean(errors), rel=1e-5)


@pytest.mark.parametrize("left_out", ["adversarial", "alignment"])
def test_a_term_of_weight_0_is_left_out(left_out):
    weights = {"adversarial_weight": 1.0, "alignment_weight": 1.0, f"{left_out}_weight": 0.0}
    jigsaw = Jigsaw(3, parts=2, reach=1, seed=0, **weights)
    _, terms = jigsaw(torch.randn(2, 3, 2, 2), torch.tensor([[1, 0, 3, 2]]))
    assert len(terms) == 1 and f"jigsaw_{left_out}" not in terms


def build_with_jigsaw(**options):
    trainer = build(options.pop("metric", "multi_similarity"), jigsaw={"parts": 4, "reach": 2}, **options)
    assert trainer.objective.jigsaw is not None
    return trainer


class Watcher(MetricModule):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, embeddings, labels, keys=None):
        self.seen.append((len(embeddings), len(labels)))
        return self.inner(embeddings, labels)


def test_a_pair_loss_sees_whole_images_alone_and_both_are_classified():
    trainer = build_with_jigsaw()
    trainer.objective.metric = Watcher(trainer.objective.metric)
    logits = []
    trainer.recognizer.head.register_forward_hook(lambda module, given, said: logits.append(len(said)))
    images, labels = LargeImages(None).images[:8], LargeImages(None).labels[:8]
    losses = trainer.run_step(images, labels)
    assert trainer.objective.metric.seen == [(8, 8)] and logits == [16]
    assert losses.keys() == {"loss", "metric", "classification", "jigsaw_adversarial", "jigsaw_alignment"}


def test_mixed_batches_are_not_destroyed():
    trainer = build_with_jigsaw(cut_mix=1.0)
    images, labels = LargeImages(None).images[:8], LargeImages(None).labels[:8]
    assert trainer.run_step(images, labels).keys() == {"loss", "classification"}


@pytest.mark.parametrize("metric", ["multi_similarity", "none", "momentum"])
def test_it_learns_to_put_regions_back_and_resumes_exactly(metric):
    saved = {}
    first = build_with_jigsaw(metric=metric, learning_rate=3e-3)
    log = play(first, epochs=6, images=LargeImages)
    assert log[-1]["train_jigsaw_alignment"] < log[0]["train_jigsaw_alignment"]
    with pytest.raises(Exception, match="stopped"):
        play(
            build_with_jigsaw(metric=metric, learning_rate=3e-3),
            epochs=6,
            stop_after=9,
            saved=saved,
            images=LargeImages,
        )
    resumed = build_with_jigsaw(metric=metric, learning_rate=3e-3)
    resumed.load_state_dict(saved["last"])
    play(resumed, epochs=6, images=LargeImages)
    wanted = copy_state(first)
    assert all(torch.equal(value, wanted[name]) for name, value in copy_state(resumed).items())
    one, other = (dict(trainer.objective.named_parameters()) for trainer in (first, resumed))
    assert "jigsaw.locate.weight" in one and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"side_px": 64, "jigsaw": {"parts": 7}}, r"must divide train\.side_px; got 7 and 64\. Use one of \[2, 4"),
        ({"side_px": 64, "jigsaw": {"parts": 8}, "first_side_px": 32, "chunk_size": 2}, "parts must be 0 where"),
        ({"side_px": 96, "jigsaw": {"parts": 3}, "first_side_px": 48}, "must divide 16 where squares grow"),
        ({"jigsaw": {"parts": 7, "reach": 0}}, "reach"),
    ],
)
def test_settings_that_do_not_go_together(train, message):
    with pytest.raises(RecipeError, match=message):
        build_recipe({"name": "run", "train": train})


def test_a_map_without_a_grid_is_refused_unless_nothing_is_to_be_found_in_it():
    trainer = build_with_jigsaw()
    images, labels = PlainImages(None).images[:8], PlainImages(None).labels[:8]  # 32 px: one place
    with pytest.raises(TrainingError, match=r"must be a grid for the alignment term; got 1 x 1\. Give a larger"):
        trainer.run_step(images, labels)
    trainer.objective.jigsaw.locate = None
    assert "jigsaw_alignment" not in trainer.run_step(images, labels)
