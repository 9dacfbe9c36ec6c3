"""Exported models: what `productrec export` wrote recognises images by ONNX Runtime, without torch.

Arrays take NumPy, OpenCV and ONNX Runtime alone; files of photos take Pillow too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from productrec.data.views import resize_square
from productrec.errors import ArtifactError, describe_error
from productrec.models.export_notes import ExportNotes
from productrec.runtime import count_cores

_ERRORS_ONLY = 3  # of ONNX Runtime's severities of log lines


class Answers(NamedTuple):
    """What a model says of B images: ``embeddings`` (B, D) of unit norm, ``probabilities`` (B, C), both float32."""

    embeddings: np.ndarray
    probabilities: np.ndarray


class ExportedModel:
    """A file of `productrec export --to onnx`, ready to recognise.

    ``notes`` says what it is; ``class_names``, ``class_keys`` and ``class_ids`` are of the columns of the
    probabilities, ``side_px`` is the side S of the squares that it sees.

    >>> model = ExportedModel("mine.onnx")  # doctest: +SKIP
    >>> answers = model.recognise([model.read_photo("photo.jpg")])  # doctest: +SKIP
    >>> model.class_names[answers.probabilities[0].argmax()]  # doctest: +SKIP
    'cola, 0.5 l'
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """Load a file.

        Args:
            path: of the file.
            threads: that compute one batch together; None for as many as there are cores.

        Raises:
            ArtifactError: there is no such file, ONNX Runtime cannot load it, or `productrec export` did not write it.
        """
        path = Path(path)
        if not path.is_file():
            raise ArtifactError(f"{path}: must be a file that `productrec export` wrote; there is none of that name.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or count_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a damaged file raises one of many kinds
            raise ArtifactError(f"{path}: cannot be loaded by ONNX Runtime ({describe_error(error)}).") from None
        texts = dict(self._session.get_modelmeta().custom_metadata_map)
        self.notes = ExportNotes.from_texts(texts, str(path))
        self.class_ids = self.notes.class_ids
        self.class_keys = self.notes.class_keys
        self.class_names = self.notes.class_names
        self.side_px = self.notes.side_px
        (self._input,) = (value.name for value in self._session.get_inputs())
        self._outputs = [value.name for value in self._session.get_outputs()]

    def recognise(self, images: np.ndarray | Sequence[np.ndarray]) -> Answers:
        """Recognise images, all in one batch.

        Args:
            images: at least one, each (H, W, 3) uint8 RGB, upright and of any size; those that are no squares of
                ``side_px`` are resized to them, see `productrec.data.views.resize_square`.

        Raises:
            ValueError: they are not of that kind.
        """
        for image in images:
            if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                seen = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
                raise ValueError(f"recognise: every image must be an array (H, W, 3) of uint8; got {seen}.")
        if not len(images):
            raise ValueError("recognise: images must be at least one; got none.")
        squares = np.stack([self._resize(image) for image in images])
        return Answers(*self._session.run(self._outputs, {self._input: squares}))

    def read_photo(self, path: str | Path) -> np.ndarray:
        """A photo as (S, S, 3) uint8 RGB, decoded and resized as the images that the model has learned from.

        Raises:
            DataError: it cannot be read as a photo.
        """
        from productrec.data.decode import decode_image, read_image_bytes  # takes Pillow

        return resize_square(decode_image(read_image_bytes(path), path), self.side_px)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        side_px = self.side_px
        return image if image.shape[:2] == (side_px, side_px) else resize_square(image, side_px)
