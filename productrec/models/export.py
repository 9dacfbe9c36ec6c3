"""Export: a recognizer becomes a program of torch.export, and that becomes ONNX; the one user of torch's exporters."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from productrec.errors import ArtifactError, describe_error
from productrec.models.agreement import Recognise
from productrec.models.backbone import spell_out_attention
from productrec.models.export_notes import ExportNotes

OPSET = 18  # of ONNX: what torch's exporter writes by itself; ONNX Runtime reads the files from 1.20 on
INPUT, OUTPUTS = "images", ("embedding", "probabilities")
BATCH = "batch"  # name of the axis that may have any length
NOTES_FILE = "productrec.json"  # within a program's file
_EXAMPLES = 2  # images to trace with: a single one would be taken for the only batch there is
_MOST_BYTES = 2_000_000_000  # of weights within an ONNX file, which protobuf limits to 2 GiB


class ExportedRecognizer(nn.Module):
    """A recognizer whose second answer is probabilities instead of logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8 RGB to embeddings (B, D) of unit norm and probabilities (B, C), both float32."""
        embeddings, logits = self.network(images)
        return embeddings, logits.softmax(dim=1)


def export_program(network: nn.Module, side_px: int, *, name: str) -> torch.export.ExportedProgram:
    """Trace a recognizer, for batches of any length.

    Args:
        network: in evaluation mode, on the CPU; see `Recognizer`.
        side_px: S of its images.
        name: of its backbone, for messages.

    Raises:
        ArtifactError: torch cannot trace it.
    """
    images = torch.zeros((_EXAMPLES, side_px, side_px, 3), dtype=torch.uint8)
    axes = {INPUT: {0: torch.export.Dim(BATCH, min=1)}}
    with _silence():
        try:
            return torch.export.export(ExportedRecognizer(network).eval(), (images,), dynamic_shapes=axes)
        except Exception as error:  # what a network does that cannot be traced raises one of many kinds
            raise ArtifactError(
                f"export: the backbone {name} cannot be traced for batches of any length ({_find_reason(error)}). "
                "Train with another backbone."
            ) from error


def save_program(program: torch.export.ExportedProgram, path: Path, notes: ExportNotes) -> None:
    """Write a program with its notes, which are one JSON object in the extra file `NOTES_FILE`.

    Where each step came from, lines of source with the paths of this machine, is left out.
    """
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        node.meta.pop("stack_trace", None)
    with path.open("wb") as file, _silence():
        torch.export.save(program, file, extra_files={NOTES_FILE: json.dumps(notes.to_texts())})


def load_program(path: Path) -> tuple[Recognise, ExportNotes]:
    """What recognises as a program's file says, on the CPU, and the file's notes.

    Raises:
        ArtifactError: it is no program that `save_program` wrote.
    """
    extra = {NOTES_FILE: ""}
    try:
        with path.open("rb") as file, _silence():
            module = torch.export.load(file, extra_files=extra).module()
        notes = ExportNotes.from_texts(json.loads(extra[NOTES_FILE]), str(path))
    except ArtifactError:
        raise
    except Exception as error:  # a damaged file raises one of many kinds
        raise ArtifactError(
            f"{path}: must be a program that `productrec export` wrote ({describe_error(error)})."
        ) from None

    def recognise(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            embeddings, probabilities = module(torch.from_numpy(images))
            return embeddings.numpy(), probabilities.numpy()

    return recognise, notes


def export_onnx(network: nn.Module, side_px: int, *, name: str) -> bytes:
    """Say a recognizer in ONNX, for batches of any length.

    Attention is said as matrix products and a softmax, whatever torch computes it with.

    Args:
        network: in evaluation mode, on the CPU; see `Recognizer`.
        side_px: S of its images.
        name: of its backbone, for messages.

    Returns:
        A serialised model with the input `INPUT` and the outputs `OUTPUTS`, as `ExportedRecognizer` takes and gives
        them.

    Raises:
        ArtifactError: torch cannot trace it, ONNX has no word for what it computes, or it is too large for one file.
    """
    size = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    mend = "Train with another backbone, or export with --to torch."
    if size > _MOST_BYTES:
        raise ArtifactError(
            f"export: an ONNX file must have at most {_MOST_BYTES / 1e9:g} GB of weights; with the backbone {name} it "
            f"would have {size / 1e9:.1f}. {mend}"
        )
    with spell_out_attention(network):
        program = export_program(network, side_px, name=name)
        with _silence():
            try:
                said = torch.onnx.export(
                    program,
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=[INPUT],
                    output_names=list(OUTPUTS),
                    verbose=False,
                )
            except Exception as error:  # as above
                if isinstance(_find_cause(error), ImportError):
                    raise ArtifactError(
                        f"export: onnxscript does not go with this torch ({_find_reason(error)}). Run "
                        "uv pip install --upgrade onnxscript."
                    ) from error
                raise ArtifactError(
                    f"export: the backbone {name} computes what ONNX cannot say ({_find_reason(error)}). {mend}"
                ) from error
    assert said is not None
    model: bytes = said.model_proto.SerializeToString()
    return model


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No warnings, log lines and prints: what torch's exporters say is about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _find_cause(error: BaseException) -> BaseException:
    """The error that others were raised from: those above it tell of the exporter's steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _find_reason(error: BaseException) -> str:
    said, _, _ = describe_error(_find_cause(error)).partition(" For more information")
    return said.rstrip(".!")
