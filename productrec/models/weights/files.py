"""Weights in a file: one of timm's, or a run's own."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from productrec.artifacts import MANIFEST_NAME, check_files, load_manifest
from productrec.errors import TrainingError, describe_error

_FILE = "weights.safetensors"  # of a checkpoint
_BACKBONE = "backbone.network."  # what its names in a recognizer begin with


def find_weights(path: Path) -> Path:
    """The weights file that a path names: itself, that of a checkpoint, or that of a run's best checkpoint.

    Raises:
        ArtifactError: the checkpoint is damaged.
        TrainingError: there is none.
    """
    file = path
    if path.is_dir():
        file = next((file for file in (path / _FILE, path / "checkpoints" / "best" / _FILE) if file.is_file()), path)
    if not file.is_file():
        raise TrainingError(
            "model.pretrained: must be true, false, a weights file, or the folder of a run or of a checkpoint; "
            f"{str(path)!r} is none of these."
        )
    if file.name == _FILE and (file.parent / MANIFEST_NAME).is_file():
        check_files(file.parent, load_manifest(file.parent))
    return file


def read_own_weights(path: Path) -> dict[str, Tensor]:
    """The backbone's weights in a checkpoint of ours, by timm's names; none where the file is no such checkpoint.

    Raises:
        TrainingError: it cannot be read.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: cannot be loaded as weights ({describe_error(error)}).") from None
    return {name.removeprefix(_BACKBONE): value for name, value in state.items() if name.startswith(_BACKBONE)}
