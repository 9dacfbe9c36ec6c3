"""Export: a run becomes one file that recognises photos elsewhere, checked against the run as it is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from productrec import __version__
from productrec.artifacts import write_file
from productrec.assembly.export_images import NOISE, ExportImages, Pictures, gather_images
from productrec.assembly.network import load_network
from productrec.console import print_table, say, show_progress, warn
from productrec.errors import ArtifactError, DataError, RecipeError
from productrec.models.agreement import Agreement, Loss, Recognise, compare_answers, measure_loss
from productrec.models.export import (
    BATCH,
    OPSET,
    export_onnx,
    export_program,
    load_program,
    save_program,
)
from productrec.models.export_notes import ExportNotes
from productrec.recipe import Recipe
from productrec.training.run.checkpoint import Checkpoint, load_checkpoint

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4  # of any number of an embedding or of the probabilities
EXTRA = "export"  # the extra of productrec that brings the libraries
_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
_CALIBRATED, _SCORED = 200, 2000  # images at most
_BATCH = 16


@dataclass(frozen=True)
class Exported:
    """A written file.

    ``form``: what it is of; ``agreement``: of the float32 file with the run, on ``what``; ``reason``: why the run's own
    images are not at hand; ``loss``: what int8 answers beside float32, and ``calibrated`` how, None where it was not
    asked for; ``sizes``: bytes by precision.
    """

    path: Path
    form: str
    agreement: Agreement
    what: str
    reason: str
    loss: Loss | None
    calibrated: str
    sizes: dict[str, int]


def run_export(
    run: Path,
    recipe: Recipe,
    *,
    to: str = "onnx",
    out: Path | None = None,
    photos: Path | None = None,
    int8: bool = False,
    over: bool = False,
) -> Exported:
    """Write a run's network as one file and compare its answers with the run's.

    Args:
        run: the run folder, of one model.
        recipe: of the run: the checkpoint to take, where its image table is.
        to: ``onnx``, or ``torch`` for a program of torch.export.
        out: the file; None for ``RUN/export/NAME.onnx``, ``NAME-int8.onnx`` or ``NAME.pt2``.
        photos: folder of images to check it on, instead of the run's own.
        int8: weights and activations of 8 bits; ONNX alone.
        over: write over a file that is there.

    Raises:
        ArtifactError: no checkpoint, a file is there, the network cannot be exported, or the file answers otherwise
            than the run; it is not kept then.
        DataError: no photo can be read, or there is no image to calibrate on.
        RecipeError: ``to`` is unknown or does not go with int8, or a library is not installed.
    """
    if to not in SUFFIXES:
        raise RecipeError(f"--to: must be {' or '.join(SUFFIXES)}; got {to!r}.")
    if int8 and to != "onnx":
        raise RecipeError(f"--int8: goes with --to onnx alone; got --to {to}.")
    name = run.absolute().name
    path = out or run / "export" / f"{name}{'-int8' if int8 else ''}{SUFFIXES[to]}"
    if path.exists() and not over:
        raise ArtifactError(
            f"{path}: is there already. Name another file with --out, or pass --replace to write over it."
        )
    if to == "onnx":
        _check_libraries()
    checkpoint = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    if not checkpoint.class_ids:
        raise ArtifactError(
            f"{checkpoint.folder}: learned from titles alone and knows no classes. Search it: "
            f'productrec query {run} --text "WORDS", or productrec query {run} PHOTO --to titles'
        )
    if not checkpoint.class_keys:
        raise ArtifactError(f"{checkpoint.folder}: was written before class names were kept in it. Train anew.")
    images = gather_images(recipe, checkpoint, photos)
    if int8 and images.calibration is None:
        raise DataError(
            f"--int8: needs images to calibrate on; there are none ({images.reason.rstrip('.')}). Name a folder of "
            "photos with --images."
        )
    notes = _describe(name, checkpoint)
    network = load_network(checkpoint)

    def recognise_as_run(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            embeddings, logits = network(torch.from_numpy(squares))
            return embeddings.numpy(), logits.softmax(dim=1).numpy()

    say(f"exporting {run}: {notes.backbone} to {to}, {'int8' if int8 else 'float32'}; a minute for a large network")
    with write_file(path) as temporary:
        recognise = (_write_onnx if to == "onnx" else _write_program)(network, temporary, notes)
        agreement = compare_answers(recognise_as_run, recognise, images.checked, _BATCH)
        if not agreement.is_within(TOLERANCE):
            raise ArtifactError(
                f"{path}: must answer as the run does, to within {TOLERANCE:g}; {_describe_agreement(agreement)}, on "
                f"{images.what}. The file is not kept. Try --to {'torch' if to == 'onnx' else 'onnx'}."
            )
        sizes = {"float32": temporary.stat().st_size}
        loss = None
        if int8 and images.calibration is not None:
            loss = _quantise(recognise, temporary, notes, images, images.calibration)
            sizes["int8"] = temporary.stat().st_size
    said = f"ONNX of opset {OPSET}" if to == "onnx" else "a program of torch.export"
    form = f"{said}, images (B, {notes.side_px}, {notes.side_px}, 3), {len(notes.class_ids):,} classes"
    calibrated = images.calibration.what if loss is not None and images.calibration is not None else ""
    return Exported(path, form, agreement, images.what, images.reason, loss, calibrated, sizes)


def report(exported: Exported) -> None:
    """Say how well the file agrees with the run, what int8 loses, and where it lies."""
    if exported.what == NOISE:
        warn(
            f"checked on noise alone, which shows that numbers agree and nothing of real answers. {exported.reason} "
            "Name a folder of photos with --images."
        )
    say(
        f"checked against the run on {exported.agreement.images} {exported.what}, in batches of {_BATCH} and alone: "
        f"{_describe_agreement(exported.agreement)}"
    )
    if exported.loss is not None:
        _print_loss(exported.loss, exported.sizes)
    precision, size = list(exported.sizes.items())[-1]
    how = f" (calibrated on {exported.calibrated})" if exported.calibrated else ""
    say(f"exported {exported.path}: {size / 1e6:.1f} MB, {precision}{how}, {exported.form}")


def _check_libraries() -> None:
    missing = [library for library in _LIBRARIES if find_spec(library) is None]
    if missing:
        raise RecipeError(
            f"--to onnx: needs the libraries {', '.join(_LIBRARIES)}; not installed: {', '.join(missing)}. Run "
            f"uv pip install 'productrec[{EXTRA}]'."
        )


def _describe(name: str, checkpoint: Checkpoint) -> ExportNotes:
    return ExportNotes(
        class_ids=checkpoint.class_ids,
        class_keys=checkpoint.class_keys,
        class_names=checkpoint.class_names,
        side_px=int(checkpoint.recipe["train"]["side_px"]),
        weights_digest=checkpoint.weights_digest,
        run=name,
        backbone=str(checkpoint.recipe["model"]["backbone"]),
        precision="float32",
        productrec=__version__,
    )


def _write_onnx(network: nn.Module, path: Path, notes: ExportNotes) -> Recognise:
    # These import onnx and ONNX Runtime, which not everyone has.
    from productrec.exported import ExportedModel
    from productrec.models.onnx_file import write_onnx

    write_onnx(export_onnx(network, notes.side_px, name=notes.backbone), path, notes, batch=BATCH)
    return ExportedModel(path).recognise


def _write_program(network: nn.Module, path: Path, notes: ExportNotes) -> Recognise:
    save_program(export_program(network, notes.side_px, name=notes.backbone), path, notes)
    return load_program(path)[0]


def _quantise(recognise: Recognise, path: Path, notes: ExportNotes, images: ExportImages, by: Pictures) -> Loss:
    """Put a file in int8 in the place of one in float32, whose answers ``recognise`` goes on to give."""
    from productrec.exported import ExportedModel
    from productrec.models.onnx_file import quantise

    quantise(path, path, replace(notes, precision="int8"), (squares for squares, _ in by.read(_CALIBRATED, _BATCH)))
    return measure_loss(recognise, ExportedModel(path).recognise, _iterate_scored(images))


def _iterate_scored(images: ExportImages) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Batches of labelled validation images with the positions of their classes, else of those checked on."""
    scored = images.scored
    if scored is None or scored.positions is None:
        for start in range(0, len(images.checked), _BATCH):
            yield images.checked[start : start + _BATCH], None
        return
    with show_progress("comparing int8 with float32", min(_SCORED, len(scored.images))) as bar:
        for squares, rows in scored.read(_SCORED, _BATCH):
            yield squares, scored.positions[rows]
            bar.advance(len(squares))


def _describe_agreement(agreement: Agreement) -> str:
    return (
        f"embeddings differ by {agreement.embedding:.1e} at most, probabilities by {agreement.probability:.1e}, and "
        f"{agreement.same_answers} of {agreement.images} top-1 answers agree"
    )


def _print_loss(loss: Loss, sizes: dict[str, int]) -> None:
    """What int8 loses, as a table."""
    right = dict(zip(sizes, loss.right or (), strict=False))
    same = {"int8": f"{loss.same_answers:,} of {loss.images:,}"}
    rows = [
        (
            precision,
            f"{size / 1e6:.1f}",
            f"{100 * right[precision] / loss.images:.1f} %" if right else "unknown",
            same.get(precision, ""),
            f"{loss.similarity:.3f}" if precision in same else "",
        )
        for precision, size in sizes.items()
    ]
    which = "labelled validation images" if right else "images without a label that the run knows"
    columns = ("precision", "MB", "top-1", "same top-1 answer", "similarity of embeddings")
    print_table(f"int8 beside float32: {loss.images:,} {which}", columns, rows)
