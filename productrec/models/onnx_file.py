"""ONNX files: a model written with its notes, and one in float32 made into one in int8; the one user of onnx."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from productrec.errors import ArtifactError, describe_error
from productrec.models.export_notes import ExportNotes

# What is computed in int8. Anything else, attention's own products and both answers stay float32.
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool")
_OPTIONS = {"OpTypesToExcludeOutputQuantization": ["Gemm"]}  # the heads answer in float32
_CHANNELS = 3  # of a picture


def write_onnx(model: bytes, path: Path, notes: ExportNotes, *, batch: str) -> None:
    """Write a serialised model as one file.

    Where each node came from, lines of source with the paths of this machine, is left out.

    Args:
        model: of ONNX; the first axis of its first input is the batch.
        path: of the file.
        notes: kept as the file's metadata.
        batch: what to call the axis that may have any length.
    """
    parsed = onnx.load_model_from_string(model)
    for graph in _iterate_graphs(parsed.graph):
        items: tuple[Any, ...] = (
            graph,
            *graph.node,
            *graph.input,
            *graph.output,
            *graph.value_info,
            *graph.initializer,
        )
        for item in items:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    traced = parsed.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*parsed.graph.input, *parsed.graph.output, *parsed.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == traced:
                axis.dim_param = batch
    _save(parsed, path, notes)


def quantise(source: Path, path: Path, notes: ExportNotes, batches: Iterable[np.ndarray]) -> None:
    """Write an ONNX file of 8-bit weights and activations (static, in QDQ nodes) from one of float32.

    Weights have a scale for each channel: depthwise convolutions, whose channels differ much, lose most of their
    accuracy with one for all. Activations have the range that they take on the images given. The convolution that reads
    the picture stays float32: what it gives decides all else, and it costs little. So do products of two activations,
    as attention has them.

    Args:
        source: the float32 file.
        path: of the int8 file; it may be ``source``.
        notes: kept as the file's metadata.
        batches: some (B, S, S, 3) uint8 each, of images like those that the model will see.

    Raises:
        ArtifactError: ONNX Runtime cannot quantise this network.
    """
    model = onnx.load(source)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it advises to fold batch norms, which the exporter has done
    try:
        quantize_static(
            source,
            path,
            _Images(model.graph.input[0].name, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_list_exact(model),
            extra_options=_OPTIONS,
        )
    except Exception as error:  # it raises one of many kinds
        raise ArtifactError(
            f"export: the backbone {notes.backbone} cannot be quantised by ONNX Runtime ({describe_error(error)}). "
            "Leave out --int8."
        ) from error
    finally:
        logging.disable(before)
    _save(onnx.load(path), path, notes)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Batches as the quantiser asks for them."""

    def __init__(self, name: str, batches: Iterable[np.ndarray]) -> None:
        self._name, self._batches = name, iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _save(model: onnx.ModelProto, path: Path, notes: ExportNotes) -> None:
    model.ClearField("metadata_props")
    onnx.helper.set_model_props(model, notes.to_texts())
    onnx.save_model(model, path)


def _iterate_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _iterate_graphs(inner)


def _list_exact(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay float32: convolutions that see a picture's channels, products without a weight."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            is_whole = all(attribute.i == 1 for attribute in node.attribute if attribute.name == "group")
            if is_whole and shapes.get(node.input[1], ())[1:2] == (_CHANNELS,):
                names.append(node.name)
        elif node.op_type == "MatMul" and not any(name in shapes for name in node.input):
            names.append(node.name)
    return names
