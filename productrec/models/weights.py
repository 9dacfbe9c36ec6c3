"""Weights that a backbone starts from: the hub's, where it can be reached, a local file's, or a run's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # it is there in every version
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from productrec.artifacts import MANIFEST_NAME, check_files, load_manifest
from productrec.errors import TrainingError, describe_error

_FILE = "weights.safetensors"  # of a checkpoint
_BACKBONE = "backbone.network."  # what its names in a recognizer begin with
_HUB_SECONDS = 5.0


@contextlib.contextmanager
def reach_hub() -> Iterator[None]:
    """Let the block fetch from the hub where that answers within seconds; else what is on this machine must do.

    Without this a hub that is out of reach is tried again and again for a minute.

    Raises:
        TrainingError: it cannot be reached, and the weights are not here.
    """
    if constants.HF_HUB_OFFLINE or _is_reachable():
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except OSError:  # files that are not here, requests that are refused while offline
        raise TrainingError(
            f"model.pretrained: the weights are not on this machine, and {constants.ENDPOINT} cannot be reached. "
            "Connect to it or name a mirror in HF_ENDPOINT; or give model.pretrained=false for random weights, or the "
            "path of a local file."
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = False


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


def _is_reachable() -> bool:
    """Whether the hub answers, whatever it says; a proxy of the environment is asked as a download would."""
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception:  # httpx's or requests', by the hub's version
        return False
    return True
