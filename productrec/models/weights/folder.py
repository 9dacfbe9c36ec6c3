"""A folder of weights files, a backbone each, that can be carried to a machine without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from productrec.artifacts import write_file
from productrec.errors import ArtifactError, TrainingError, describe_error

_SUFFIX = ".safetensors"
_BACKBONE, _LICENCE, _SOURCE = "backbone", "licence", "source"  # keys of the file's metadata


@dataclass(frozen=True)
class CarriedWeights:
    """A file of a weights folder: the backbone it is of, its licence, where it was taken from, and where it lies."""

    backbone: str
    licence: str
    source: str
    file: Path


def list_folder(folder: Path) -> list[CarriedWeights]:
    """The files of a weights folder that `save_weights` wrote, by name.

    Raises:
        TrainingError: there is no such folder, or one of its files cannot be read.
    """
    _check_folder(folder)
    carried = (_read_head(file) for file in sorted(folder.glob(f"*{_SUFFIX}")))
    return [weights for weights in carried if weights is not None]


def find_in_folder(folder: Path, backbone: str, full_name: str) -> Path | None:
    """The file of a backbone in a weights folder: ``NAME.safetensors``, ``NAME.pth``; None where there is none.

    Args:
        folder: where to look.
        backbone: as the recipe names it.
        full_name: with timm's tag, such as ``resnet50.a1_in1k``, as a file may be named too.

    Raises:
        TrainingError: there is no such folder, or the file says that it is another network's.
    """
    _check_folder(folder)
    for name in dict.fromkeys((backbone, full_name)):
        for suffix in (_SUFFIX, ".pth"):
            file = folder / f"{name}{suffix}"
            if not file.is_file():
                continue
            carried = _read_head(file) if suffix == _SUFFIX else None
            if carried is not None and carried.backbone not in (backbone, full_name):
                raise TrainingError(
                    f"{file}: must hold the weights of {backbone}; it says that it holds those of {carried.backbone}. "
                    f"Name it {carried.backbone}{_SUFFIX}, and fetch {backbone} anew."
                )
            return file
    return None


def save_weights(folder: Path, backbone: str, state: dict[str, Tensor], *, licence: str, source: str) -> Path:
    """Write a backbone's weights into a weights folder, made if need be; what is there already stays.

    Raises:
        ArtifactError: the file is there already.
        StorageError: the disk refuses.
    """
    file = folder / f"{backbone}{_SUFFIX}"
    if file.exists():
        raise ArtifactError(
            f"{file}: is there already and stays as it is. Delete it, or name another folder with --to."
        )
    with write_file(file) as temporary:
        tensors = {name: value.contiguous() for name, value in state.items()}
        save_file(tensors, temporary, {_BACKBONE: backbone, _LICENCE: licence, _SOURCE: source})
    return file


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise TrainingError(
            f"model.weights_folder: must be a folder of weights files; {str(folder)!r} is none. "
            "`productrec weights fetch NAME --to FOLDER` makes one."
        )


def _read_head(file: Path) -> CarriedWeights | None:
    """What a file says of itself; None where it does not."""
    try:
        with safe_open(file, framework="pt") as opened:
            notes = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file}: cannot be loaded as weights ({describe_error(error)}).") from None
    if _BACKBONE not in notes:
        return None
    return CarriedWeights(notes[_BACKBONE], notes.get(_LICENCE, ""), notes.get(_SOURCE, ""), file)
