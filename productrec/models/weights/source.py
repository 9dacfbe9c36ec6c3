"""Where pretrained weights are taken from: a folder, the hub's cache, a package, the hub, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from productrec.models.weights.folder import find_in_folder
from productrec.models.weights.hub import is_cached
from productrec.models.weights.packages import WeightsPackage, get_package, locate_package


@dataclass(frozen=True)
class WeightsSource:
    """Where weights are taken from; ``path`` is the file in a folder, or the installed package's folder."""

    kind: Literal["folder", "cache", "package", "hub"]
    name: str
    path: Path | None = None
    package: WeightsPackage | None = None


def find_source(backbone: str, *, full_name: str, hub_id: str | None, folder: Path | None) -> WeightsSource:
    """The first of the places that has a backbone's weights; the hub where none on this machine does.

    Args:
        backbone: as the recipe names it.
        full_name: with timm's tag, such as ``resnet50.a1_in1k``.
        hub_id: of the weights on timm's hub, where they are there.
        folder: of files that were carried here, see `productrec.models.weights.folder`; None for none.

    Raises:
        TrainingError: ``folder`` is none, or its file is another network's.
    """
    file = find_in_folder(folder, backbone, full_name) if folder is not None else None
    if file is not None:
        return WeightsSource("folder", str(file), path=file)
    if hub_id is not None and is_cached(hub_id):
        return WeightsSource("cache", f"the hub's cache ({hub_id})")
    package = get_package(backbone)
    installed = locate_package(package) if package is not None else None
    if package is not None and installed is not None:
        return WeightsSource("package", f"package {package.distribution} {package.version}", installed, package)
    return WeightsSource("hub", f"the hub ({hub_id})" if hub_id else "the address that timm knows")
