"""A batch of images and titles, checked, and what is compared with what."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from productrec.errors import TrainingError
from productrec.losses.engine.comparison import Comparison, find_not_unit


@dataclass(frozen=True)
class CrossModalBatch:
    """Embeddings of images and of titles, and which of them belong together.

    An image and a title of equal groups are positives of one another, all others are negatives. So an image may have
    several titles, a title several images, and equal titles are positives of each other's images where whoever makes
    the batch gives them one group. Either side may be empty.

    Args:
        images: (B, D), of unit norm.
        titles: (T, D), of unit norm.
        image_groups: (B,) integers; only equality matters.
        title_groups: (T,) integers, of the same numbering.

    Raises:
        TrainingError: shapes, types or devices do not fit, or, on the CPU, a row is not finite or not of unit norm.
    """

    images: Tensor
    titles: Tensor
    image_groups: Tensor
    title_groups: Tensor

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        devices = {tensor.device for tensor in vars(self).values()}
        if len(devices) > 1:
            raise TrainingError(
                "images and titles: embeddings and groups must be on one device; got "
                f"{', '.join(sorted(map(str, devices)))}. Move them with .to()."
            )
        for name, rows, groups in (
            ("images", self.images, self.image_groups),
            ("titles", self.titles, self.title_groups),
        ):
            _check_types(name, rows, groups)
            if rows.device.type == "cpu":  # reading them would wait for the device
                _check_values(name, rows.detach())
        if self.images.shape[1] != self.titles.shape[1]:
            raise TrainingError(
                f"images and titles: must have as many dimensions; got {self.images.shape[1]} and "
                f"{self.titles.shape[1]}. Give both towers one embedding_dim."
            )

    @property
    def has_both(self) -> bool:
        """Whether there is an image and a title."""
        return len(self.images) > 0 and len(self.titles) > 0

    def compare(self) -> Comparison:
        """The images as anchors, the titles as references."""
        return Comparison(self.images, self.image_groups, self.titles, self.title_groups)

    def make_zero(self) -> Tensor:
        """A loss of 0 with a graph to both sides, where there is nothing to compare."""
        return self.images.float().sum() * 0.0 + self.titles.float().sum() * 0.0


def _check_types(name: str, rows: Tensor, groups: Tensor) -> None:
    if rows.ndim != 2 or not rows.is_floating_point():
        raise TrainingError(
            f"{name}: embeddings must be a floating-point matrix of one row each; got {rows.dtype} of shape "
            f"{tuple(rows.shape)}. Pass what the tower gave."
        )
    is_integer = not (groups.is_floating_point() or groups.is_complex() or groups.dtype == torch.bool)
    if groups.shape != rows.shape[:1] or not is_integer:
        raise TrainingError(
            f"{name}: groups must be one integer per row, shape ({rows.shape[0]},); got {groups.dtype} of shape "
            f"{tuple(groups.shape)}. Number the products, and give equal titles one number."
        )


def _check_values(name: str, rows: Tensor) -> None:
    bad = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise TrainingError(
            f"{name}: embeddings must be finite; got NaN or infinity in {len(bad)} of {len(rows)} rows, the first "
            f"{bad[0]}. Look at what was embedded there, or lower the learning rate."
        )
    wrong = find_not_unit(rows)
    if wrong:
        raise TrainingError(
            f"{name}: embeddings must have unit norm; {len(wrong)} of {len(rows)} rows have not, the first is "
            f"{wrong[0]}. Bring them there with torch.nn.functional.normalize."
        )
