"""A comparison: the anchors of a batch and what they are compared with, as one checked value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from productrec.errors import TrainingError
from productrec.losses.engine.batch import check_batch
from productrec.losses.engine.weighing import Mining, PairWeighting, RelatedPairWeighting, ThresholdWeighting

# How far a length may be from 1: half precision rounds.
_UNIT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Comparison:
    r"""Anchors, and the references that they are compared with.

    With :math:`S_{ij} = e_i \cdot r_j`, anchor i has the positives of its own class and the negatives of every other
    class among the references; itself it never meets.

    Args:
        embeddings: (N, D) anchors.
        labels: (N,) integers; only equality matters.
        references: (M, D): a gathered batch, a memory, the other modality; None for the anchors themselves.
        reference_labels: (M,), with ``references``.
        own_rows: (N,) integers, with ``references``: the row of each anchor among them, -1 where it is not there.
        thresholds: (N,) a number an anchor, for losses that ask for one (`ThresholdWeighting`).

    Raises:
        TrainingError: shapes, types or devices do not fit, or, on the CPU, a row of ``own_rows`` is not among the
            references.
    """

    embeddings: Tensor
    labels: Tensor
    references: Tensor | None = None
    reference_labels: Tensor | None = None
    own_rows: Tensor | None = None
    thresholds: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        check_batch("pairs", self.embeddings, self.labels)
        devices = {tensor.device for tensor in vars(self).values() if tensor is not None}
        if len(devices) > 1:
            raise TrainingError(
                "pairs: embeddings, references and labels must be on one device; got "
                f"{', '.join(sorted(map(str, devices)))}. Move them with .to()."
            )
        if self.thresholds is not None and self.thresholds.shape != self.labels.shape:
            raise TrainingError(
                f"pairs: thresholds must be one number per embedding, shape ({len(self.labels)},); "
                f"got {tuple(self.thresholds.shape)}."
            )
        if self.references is None:
            if self.reference_labels is not None or self.own_rows is not None:
                raise TrainingError("pairs: reference_labels and own_rows must come with references; got none.")
            return
        if self.reference_labels is None:
            raise TrainingError("pairs: references must come with reference_labels; got none. Pass one label a row.")
        check_batch("pairs, references", self.references, self.reference_labels)
        if self.references.shape[1] != self.embeddings.shape[1]:
            raise TrainingError(
                f"pairs: references must have {self.embeddings.shape[1]} dimensions, as the embeddings have; "
                f"got {self.references.shape[1]}. Use one network for both."
            )
        if self.own_rows is not None:
            self._check_own_rows(self.own_rows, len(self.references))

    def _check_own_rows(self, own_rows: Tensor, count: int) -> None:
        if own_rows.shape != self.embeddings.shape[:1]:
            raise TrainingError(
                f"pairs: own_rows must be one row number per embedding, shape ({len(self.embeddings)},); "
                f"got {tuple(own_rows.shape)}."
            )
        if own_rows.device.type != "cpu":  # reading them would wait for the device
            return
        low, high = int(own_rows.min()), int(own_rows.max())
        if low < -1 or high >= count:
            raise TrainingError(
                f"pairs: own_rows must be rows of the references, 0 to {count - 1}, or -1 for an anchor that is not "
                f"among them; got {low} to {high}. Count rows from the first of the references."
            )

    @property
    def compared_labels(self) -> Tensor:
        """Labels (M,) of what anchors are compared with."""
        return self.labels if self.reference_labels is None else self.reference_labels

    def swap(self) -> Comparison:
        """The other direction: the references are the anchors, and the anchors what they are compared with.

        Raises:
            TrainingError: there are no references, thresholds belong to the anchors, or, on the CPU, two anchors have
                the same own row.
        """
        if self.references is None or self.reference_labels is None:
            raise TrainingError("pairs: both ways must have references; got none. A batch alone has one direction.")
        if self.thresholds is not None:
            raise TrainingError("pairs: both ways must have no thresholds, which are numbers of the anchors alone.")
        own_rows = None if self.own_rows is None else self._swap_own_rows(self.own_rows, len(self.references))
        return Comparison(self.references, self.reference_labels, self.embeddings, self.labels, own_rows)

    def _swap_own_rows(self, own_rows: Tensor, count: int) -> Tensor:
        own_rows = own_rows.long()
        # One place more, which anchors that are not among the references write to.
        swapped = own_rows.new_full((count + 1,), -1)
        swapped[own_rows] = torch.arange(len(own_rows), device=own_rows.device)
        if own_rows.device.type == "cpu":  # reading them would wait for the device
            known = own_rows[own_rows >= 0]
            if len(torch.unique(known)) < len(known):
                raise TrainingError("pairs: both ways must have an own row of each anchor's alone; two have the same.")
        return swapped[:-1]


def fit_comparison(comparison: Comparison, loss: PairWeighting, mining: Mining | None) -> Comparison:
    """The comparison as the loss asks for it; one that it cannot take, or a mining, is refused.

    Raises:
        TrainingError: it looks at both rows of a pair and there are references or a mining, it takes no thresholds and
            there are some, or it needs unit norm and (on the CPU) a row has another length.
    """
    name = type(loss).__name__
    if isinstance(loss, RelatedPairWeighting):
        if comparison.references is not None:
            raise TrainingError(f"{name}: compares a batch with itself only; got references. Leave the memory out.")
        if mining is not None:
            raise TrainingError(
                f"{name}: takes no mining, because a pair is weighed by both rows; got {type(mining).__name__}."
            )
    if comparison.thresholds is not None and not isinstance(loss, ThresholdWeighting):
        raise TrainingError(f"{name}: takes no thresholds; got some. Leave them out of the comparison.")
    if loss.needs_unit_norm and comparison.embeddings.device.type == "cpu":
        for rows in (comparison.embeddings, comparison.references):
            if rows is not None:
                _check_unit_norm(name, rows.detach())
    return loss.complete(comparison, mining)


def _check_unit_norm(name: str, rows: Tensor) -> None:
    bad = find_not_unit(rows)
    if bad:
        raise TrainingError(
            f"{name}: embeddings must have unit norm; {len(bad)} of {len(rows)} rows have not, the first, row "
            f"{bad[0]}, is {float(rows[bad[0]].float().norm()):.4g} long. Bring them there with "
            "torch.nn.functional.normalize."
        )


def find_not_unit(rows: Tensor) -> list[int]:
    """Which rows of (N, D) have another length than 1, by more than half precision rounds; NaN is none of them."""
    lengths = rows.float().norm(dim=1)
    return [int(row) for row in ((lengths - 1.0).abs() > _UNIT_TOLERANCE).nonzero().flatten()]


def refuse_not_finite(comparison: Comparison) -> None:
    """Raise for embeddings or references that are not finite, by their rows.

    Raises:
        TrainingError: a row holds NaN or infinity.
    """
    for name, rows in (("embeddings", comparison.embeddings), ("references", comparison.references)):
        if rows is None:
            continue
        bad = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            shown = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
            raise TrainingError(
                f"pairs: {name} must be finite; got NaN or infinity in {len(bad)} of {len(rows)} rows ({shown}). "
                "Look at the images of these rows, or lower the learning rate."
            )
