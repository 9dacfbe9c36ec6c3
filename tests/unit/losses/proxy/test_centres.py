import pytest
import torch

from productrec.errors import ArtifactError
from productrec.losses.centres.merging import (
    Prototypes,
    compute_prototype_similarities,
    find_nearest_classes,
    merge_centres,
    pack_prototypes,
)
from productrec.losses.proxy.soft_triple import SoftTriple


def at(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_centres_joined_by_short_steps_become_one() -> None:
    # Steps of 5 degrees are 0.087 long: 0, 5 and 10 are one though 0 and 10 are farther; 90 stays.
    centres = torch.stack([at(0, 90, 10, 5), at(0, 60, 120, 180)]) * torch.tensor([1.0, 3.0, 0.5, 2.0])[:, None]
    merged = merge_centres(centres, 0.1)
    assert merged.counts.tolist() == [2, 4]
    torch.testing.assert_close(merged.centres[0, :2], at(5, 90), atol=1e-6, rtol=0)
    assert (merged.centres[0, 2:] == 0).all()
    torch.testing.assert_close(merged.centres[1], at(0, 60, 120, 180))
    assert merge_centres(centres, 2.0).counts.tolist() == [1, 1]
    assert merge_centres(centres, 0.0).counts.tolist() == [4, 4]
    assert merge_centres(centres[:, :1], 0.5).counts.tolist() == [1, 1]


def test_long_chains_are_followed_to_their_end() -> None:
    centres = at(*[4.0 * step for step in range(10)])[torch.randperm(10, generator=torch.Generator().manual_seed(0))]
    assert merge_centres(centres[None], 0.1).counts.tolist() == [1]


def test_similarities_are_those_of_the_loss() -> None:
    loss = SoftTriple(centres_per_class=4, tau=0.0, margin=0.0).build(2, 3)
    embeddings, labels = at(10, 200, 95, 300), torch.tensor([0, 1, 2, 1])
    whole = merge_centres(loss.centres, 0.0)
    relaxed = compute_prototype_similarities(embeddings, whole, loss.gamma)
    expected = torch.nn.functional.cross_entropy(20 * relaxed, labels)
    torch.testing.assert_close(loss(embeddings, labels).detach(), expected)
    padded = Prototypes(
        torch.cat([whole.centres, torch.zeros(3, 2, 2)], dim=1), torch.cat([whole.sizes, torch.zeros(3, 2)], dim=1)
    )
    torch.testing.assert_close(compute_prototype_similarities(embeddings, padded, loss.gamma), relaxed)
    nearest = compute_prototype_similarities(embeddings, padded)
    torch.testing.assert_close(nearest, (embeddings @ whole.centres.flatten(0, 1).T).view(4, 3, 4).amax(dim=2))


def test_merged_centres_count_as_all_that_they_were() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(5, 4, 8, generator=generator), dim=2)
    centres[:, 1], centres[:2, 3] = centres[:, 0], centres[:2, 0]  # two or three of a class coincide
    embeddings = torch.nn.functional.normalize(torch.randn(30, 8, generator=generator), dim=1)
    before = compute_prototype_similarities(
        embeddings, Prototypes(centres, torch.ones(5, 4)), SoftTriple().build(8, 5).gamma
    )
    merged = pack_prototypes(merge_centres(centres, 1e-3))
    assert merged.counts.tolist() == [2, 2, 3, 3, 3]
    assert merged.sizes[0].tolist() == [3, 1, 0]
    after = compute_prototype_similarities(embeddings, merged, SoftTriple().build(8, 5).gamma)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    assert torch.equal(find_nearest_classes(embeddings, merged, 0.1), after.argmax(dim=1))
    # Merged again they weigh what they weigh: the mean direction is that of all.
    again = merge_centres(merged.centres, 2.0, merged.sizes)
    torch.testing.assert_close(again.centres[:, 0], torch.nn.functional.normalize(centres.sum(dim=1), dim=1))
    assert again.sizes[:, 0].tolist() == [4.0] * 5
    # Broken on purpose: each centre counted once.
    once = Prototypes(merged.centres, (merged.sizes > 0).float())
    assert (compute_prototype_similarities(embeddings, once, 0.1) - before).abs().max() > 0.01


def test_opposite_centres_stay_apart() -> None:
    centres = torch.stack([at(0, 180), at(0, 10)])
    merged = merge_centres(centres, 2.0)
    assert merged.counts.tolist() == [2, 1]
    torch.testing.assert_close(merged.centres[0], at(0, 180))
    assert (merged.centres.norm(dim=2)[merged.sizes > 0] - 1).abs().max() < 1e-6


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"must have shape \(C, K, D\)"):
        merge_centres(torch.zeros(3, 2), 0.1)
    with pytest.raises(ArtifactError, match="distance be from 0 to 2"):
        merge_centres(torch.ones(3, 2, 2), 3.0)
