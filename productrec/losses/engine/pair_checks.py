"""What the pair-weighting engine refuses, and how it says so."""

from __future__ import annotations

from torch import Tensor

from productrec.errors import TrainingError
from productrec.losses.engine.batch import check_batch
from productrec.losses.engine.pair_loss import Mining, PairLoss, RelatedPairLoss

# How far a length may be from 1: half precision rounds.
_UNIT_TOLERANCE = 1e-2


def check_pairs(
    where: str,
    embeddings: Tensor,
    labels: Tensor,
    loss: PairLoss | RelatedPairLoss,
    mining: Mining | None,
    references: Tensor | None,
    reference_labels: Tensor | None,
    own_rows: Tensor | None,
) -> None:
    """Refuse what does not fit together; arguments and errors as for `compute_pair_loss`."""
    _check_inputs(where, embeddings, labels, references, reference_labels, own_rows)
    _check_fit(loss, mining, embeddings, references)


def _check_inputs(
    where: str,
    embeddings: Tensor,
    labels: Tensor,
    references: Tensor | None,
    reference_labels: Tensor | None,
    own_rows: Tensor | None,
) -> None:
    check_batch(where, embeddings, labels)
    given = [one.device for one in (embeddings, labels, references, reference_labels, own_rows) if one is not None]
    if any(one != given[0] for one in given):
        devices = ", ".join(sorted({str(one) for one in given}))
        raise TrainingError(
            f"{where}: embeddings, references and labels must be on one device; got {devices}. Move them with .to()."
        )
    if references is None:
        if reference_labels is not None or own_rows is not None:
            raise TrainingError(f"{where}: reference_labels and own_rows must come with references; got none.")
        return
    if reference_labels is None:
        raise TrainingError(f"{where}: references must come with reference_labels; got none. Pass one label a row.")
    check_batch(f"{where}, references", references, reference_labels)
    if references.shape[1] != embeddings.shape[1]:
        raise TrainingError(
            f"{where}: references must have {embeddings.shape[1]} dimensions, as the embeddings have; "
            f"got {references.shape[1]}. Use one network for both."
        )
    if own_rows is not None and own_rows.shape != embeddings.shape[:1]:
        raise TrainingError(
            f"{where}: own_rows must be one row number per embedding, shape ({len(embeddings)},); "
            f"got {tuple(own_rows.shape)}."
        )
    if own_rows is not None and own_rows.device.type == "cpu":  # elsewhere reading them would wait for the device
        low, high = int(own_rows.min()), int(own_rows.max())
        if low < -1 or high >= len(references):
            raise TrainingError(
                f"{where}: own_rows must be rows of the references, 0 to {len(references) - 1}, or -1 for an anchor "
                f"that is not among them; got {low} to {high}. Count rows from the first of the references."
            )


def _check_fit(
    loss: PairLoss | RelatedPairLoss, mining: Mining | None, embeddings: Tensor, references: Tensor | None
) -> None:
    """Refuse what this loss cannot take."""
    name = type(loss).__name__
    if hasattr(loss, "summarise"):
        if references is not None:
            raise TrainingError(f"{name}: compares a batch with itself only; got references. Leave the memory out.")
        if mining is not None:
            raise TrainingError(
                f"{name}: takes no mining, because a pair is weighed by both rows; got {type(mining).__name__}."
            )
    if getattr(loss, "needs_unit_norm", False) and embeddings.device.type == "cpu":
        for rows in (embeddings, references):
            if rows is not None:
                _check_unit_norm(name, rows.detach())


def _check_unit_norm(name: str, rows: Tensor) -> None:
    lengths = rows.float().norm(dim=1)
    bad = ((lengths - 1.0).abs() > _UNIT_TOLERANCE).nonzero().flatten().tolist()  # NaN is told elsewhere, by its rows
    if bad:
        raise TrainingError(
            f"{name}: embeddings must have unit norm; {len(bad)} of {len(rows)} rows have not, the first, row "
            f"{bad[0]}, is {float(lengths[bad[0]]):.4g} long. Bring them there with torch.nn.functional.normalize."
        )


def explain_not_finite(embeddings: Tensor, references: Tensor | None) -> None:
    for name, rows in (("embeddings", embeddings), ("references", references)):
        if rows is None:
            continue
        bad = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            shown = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
            raise TrainingError(
                f"pair loss: {name} must be finite; got NaN or infinity in {len(bad)} of {len(rows)} rows ({shown}). "
                "Look at the images of these rows, or lower the learning rate."
            )
