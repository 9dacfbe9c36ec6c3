"""Soup: an average of checkpoints, what it refuses, and the ring of the newest."""

import pytest
import torch
from torch import nn

from productrec.errors import ArtifactError
from productrec.training.run.checkpoint import save_checkpoint
from productrec.training.run.soup import average_weights, drop_older, get_recent_folder, list_recent


def build(seed, width=3, dtype=torch.float32):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width)).to(dtype)
    network[1].running_mean.normal_()
    network[1].num_batches_tracked.fill_(10 * (seed + 1))
    return network


def save(folder, network, class_ids=(3, 5)):
    save_checkpoint(
        folder,
        network,
        class_ids=list(class_ids),
        class_keys=[str(class_id) for class_id in class_ids],
        class_names=[str(class_id) for class_id in class_ids],
        recipe={},
        table_fingerprint="t",
        figures={},
        state=None,
    )
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_floats_are_averaged_in_double_and_counters_are_the_newest(tmp_path, dtype):
    networks = [build(seed, dtype=dtype) for seed in range(3)]
    found = average_weights([save(tmp_path / str(number), one) for number, one in enumerate(networks)])
    assert found.keys() == networks[0].state_dict().keys()
    for name, value in found.items():
        parts = [network.state_dict()[name] for network in networks]
        assert value.dtype == parts[0].dtype
        if value.is_floating_point():
            mean = torch.stack([part.double() for part in parts]).sum(dim=0) / 3
            assert torch.equal(value, mean.to(dtype)), name
    assert found["1.num_batches_tracked"] == 30
    build(0, dtype=dtype).load_state_dict(found)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_average_of_equals_is_what_they_are(tmp_path, count):
    network = build(0)
    found = average_weights([save(tmp_path / str(number), network) for number in range(count)])
    for name, value in network.state_dict().items():
        assert torch.equal(found[name], value)


def test_small_differences_survive_the_sum(tmp_path):
    networks = [build(0) for _ in range(2)]
    with torch.no_grad():
        networks[0][0].weight.fill_(1e8)
        networks[1][0].weight.fill_(8.0)
    found = average_weights([save(tmp_path / str(number), one) for number, one in enumerate(networks)])
    assert torch.equal(found["0.weight"], torch.full((3, 2), 50_000_004.0))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: build(1, width=4), r"0\.bias"),
        (lambda: build(1, dtype=torch.bfloat16), r"0\.bias"),
        (lambda: nn.Sequential(*build(1), nn.Linear(3, 3)), r"2 \(2\.bias, 2\.weight\)"),
        (lambda: build(1)[:1], r"1\.bias"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_other_names_shapes_and_types_are_refused(tmp_path, other, named, turned):
    folders = [save(tmp_path / "a", build(0)), save(tmp_path / "b", other())]
    with pytest.raises(ArtifactError, match=f"names, shapes and types .*{named}"):
        average_weights(folders[::-1] if turned else folders)


def test_other_classes_no_checkpoints_and_damage_are_refused(tmp_path):
    first = save(tmp_path / "a", build(0))
    second = save(tmp_path / "b", build(1), class_ids=(5, 3))
    with pytest.raises(ArtifactError, match="classes"):
        average_weights([first, second])
    with pytest.raises(ArtifactError, match="at least one"):
        average_weights([])
    with pytest.raises(ArtifactError, match="no checkpoint here"):
        average_weights([tmp_path / "c", first])
    (second / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="damaged"):
        average_weights([second, first])


def test_the_ring_keeps_the_newest_by_number_and_touches_nothing_else(tmp_path):
    assert list_recent(tmp_path / "none", 3) == []
    drop_older(tmp_path / "none", 3)
    for number in (9, 2, 1_234_567, 10):
        save(get_recent_folder(tmp_path, number), build(0))
    best = save(tmp_path / "best", build(0))
    (tmp_path / "recent-000011").mkdir()  # what is left of one that was being removed
    newest = [get_recent_folder(tmp_path, number) for number in (9, 10, 1_234_567)]
    assert list_recent(tmp_path, 3) == newest
    assert list_recent(tmp_path, 9) == [get_recent_folder(tmp_path, 2), *newest]
    assert list_recent(tmp_path, 0) == []
    drop_older(tmp_path, 3)
    assert sorted(tmp_path.iterdir()) == sorted([best, *newest])
    assert average_weights(list_recent(tmp_path, 3)).keys() == build(0).state_dict().keys()
    drop_older(tmp_path, 0)
    assert list(tmp_path.iterdir()) == [best]
