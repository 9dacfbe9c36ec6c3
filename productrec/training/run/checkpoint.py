"""Checkpoints: weights to recognise with, the complete state to resume from, and what they were trained as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from productrec.artifacts import check_files, load_manifest, write_artifact, write_json
from productrec.data.class_keys import match_classes
from productrec.data.table import ImageTable
from productrec.errors import ArtifactError

KIND = "checkpoint"
TEXT_NAME = "text.json"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model as it lies on disk.

    ``class_ids``: ids of its classes in the order of the logits, as the table had them that it was trained on, whose
    fingerprint is ``table``; ``class_keys`` and ``class_names``: what they are known by (see `data.class_keys`) and
    called, empty in a checkpoint that was written before these were kept; ``recipe``: every resolved setting;
    ``figures``: validation at the time; ``weights_digest``: of the weights, equal for everything embedded by them.
    """

    folder: Path
    class_ids: list[int]
    class_keys: list[str]
    class_names: list[str]
    table: str
    recipe: dict[str, Any]
    figures: dict[str, float]
    weights_digest: str

    def match_classes(self, table: ImageTable) -> list[int]:
        """The id that each of its classes has in a table, in the order of the logits.

        Raises:
            ArtifactError: a class is not in the table, or an older checkpoint's table has changed.
        """
        if self.class_keys or not self.class_ids:
            return match_classes(self.class_keys, table, where=str(self.folder))
        if self.table != table.fingerprint:
            raise ArtifactError(
                f"{self.folder}: was written before class names were kept, and its image table has changed since, so "
                "its classes cannot be told apart from others. Ingest the files that it was trained on, or train anew."
            )
        return self.class_ids

    def load_weights(self, network: nn.Module) -> None:
        """Put the weights into a network of the same architecture.

        Raises:
            ArtifactError: they do not fit.
        """
        try:
            network.load_state_dict(load_file(self.folder / "weights.safetensors"))
        except (RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ArtifactError(
                f"{self.folder}: the weights do not fit the model of their recipe ({reason})."
            ) from None

    def load_text(self) -> dict[str, str | None]:
        """Its text tower's ``tokeniser``, as JSON, and the ``config`` of a pretrained encoder, None of another.

        Raises:
            ArtifactError: it has no text tower, or the file is damaged.
        """
        path = self.folder / TEXT_NAME
        if not path.exists():
            raise ArtifactError(
                f"{self.folder}: has no text tower, so it knows no titles. Train with one: model.text.tower=gru."
            )
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return {"tokeniser": str(held["tokeniser"]), "config": held["config"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: cannot be read as a text tower ({error!r}). Train anew.") from None

    def load_centres(self) -> tuple[Tensor, Tensor | None]:
        """The learned centres (C, K, D) of its metric loss, float32, in the order of ``class_ids``.

        With them come their sizes (C, K), how many centres each was merged from, where training merged any.

        Raises:
            ArtifactError: its loss has none.
        """
        path = self.folder / "centres.safetensors"
        if not path.exists():
            metric = self.recipe.get("loss", {}).get("metric")
            metric = metric.get("name") if isinstance(metric, dict) else metric
            raise ArtifactError(
                f"{self.folder}: holds no centres; its metric loss ({metric}) learns none, or it was written before "
                "they were kept. Train with soft_triple or another proxy loss."
            )
        try:
            held = load_file(path)
            return held["centres"].float(), held.get("sizes")
        except (KeyError, SafetensorError) as error:
            raise ArtifactError(f"{path}: cannot be read as centres ({error!r}). Train anew.") from None

    def load_state(self) -> dict[str, Any]:
        """The complete training state; loaded as tensors and plain values, never as code.

        Raises:
            ArtifactError: this checkpoint has none, or it cannot be read.
        """
        path = self.folder / "state.pt"
        if not path.exists():
            raise ArtifactError(f"{self.folder}: holds weights alone; resume from the checkpoint 'last'.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged or crafted file raises one of many kinds, with torch's advice to run it
            raise ArtifactError(
                f"{path}: must hold tensors and plain values alone; it cannot be read as these "
                f"({type(error).__name__}), and is not run as code. It is damaged or was changed: train anew, or put "
                "the run's own file back."
            ) from error
        if not isinstance(state, dict):
            raise ArtifactError(f"{path}: must hold a training state by name; got {type(state).__name__}. Train anew.")
        return state


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    *,
    class_ids: list[int],
    class_keys: list[str],
    class_names: list[str],
    recipe: dict[str, Any],
    table_fingerprint: str,
    figures: dict[str, float],
    state: dict[str, Any] | None,
    centres: Mapping[str, Tensor] | None = None,
    text: dict[str, str | None] | None = None,
    keep_earlier: Path | None = None,
) -> None:
    """Write a checkpoint; ``state`` is for one to resume from, ``text`` is as `Checkpoint.load_text` gives it.

    ``centres``: of a loss that learns them, ``centres`` (C, K, D) and, where some were merged, ``sizes`` (C, K).

    ``keep_earlier``: where the one before goes, to fall back to.

    Raises:
        StorageError: the disk refused; an earlier checkpoint of that name is as it was.
    """
    inputs = {"table": table_fingerprint}
    with write_artifact(
        folder, kind=KIND, inputs=inputs, settings=recipe, notes={"figures": figures}, keep_earlier=keep_earlier
    ) as temporary:
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        _save_tensors(weights, temporary / "weights.safetensors")
        if centres:
            kept = {name: value.detach().cpu().contiguous() for name, value in centres.items()}
            _save_tensors(kept, temporary / "centres.safetensors")
        write_json(temporary / "classes.json", {"ids": class_ids, "keys": class_keys, "names": class_names})
        if text is not None:
            write_json(temporary / TEXT_NAME, text)
        if state is not None:
            _save_state(state, temporary / "state.pt")


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors; the file's mode follows the umask, which safetensors leaves aside."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path)
    path.chmod(mode)


class _Kept:
    """A file that keeps why it could not be written: torch raises an error of its own over it, without the reason."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refusal: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.refusal = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _save_state(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        kept = _Kept(file)
        try:
            torch.save(state, kept)  # type: ignore[arg-type]
        except RuntimeError:
            if kept.refusal is not None:
                raise kept.refusal from None
            raise


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what a checkpoint is; weights and state follow on demand.

    Raises:
        ArtifactError: none there, or a file is damaged.
    """
    manifest = load_manifest(folder, kind=KIND)
    check_files(folder, manifest)
    try:
        classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        if isinstance(classes, list):  # of an older version, which kept ids alone
            classes = {"ids": classes}
        return Checkpoint(
            folder=folder,
            class_ids=[int(class_id) for class_id in classes["ids"]],
            class_keys=[str(key) for key in classes.get("keys", [])],
            class_names=[str(name) for name in classes.get("names", [])],
            table=manifest.inputs.get("table", ""),
            recipe=manifest.settings,
            figures=manifest.notes.get("figures", {}),
            weights_digest=manifest.files["weights.safetensors"]["sha256"],
        )
    except (KeyError, OSError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder}: is no whole checkpoint ({error!r}). Train anew.") from None
