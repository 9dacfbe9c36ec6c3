"""The watch: tells of embeddings that collapse, pairs that teach nothing and losses that rise, while it happens."""

from __future__ import annotations

from productrec.console import warn
from productrec.training.step.trainer import Progress, Trainer

_COLLAPSED = 0.95  # mean similarity of a batch's embeddings
_IDLE_SHARE, _IDLE_LOOKS = 1e-3, 10  # share of active pairs, and how many looks in a row it is told after
_RISEN = 10.0  # times the first step's loss


class Watch:
    """Looks how the newest embeddings stand, and tells what is wrong with them while it happens."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._idle_looks = 0

    def look(self) -> dict[str, float]:
        """Mean similarity, and the share of active pairs where there are pairs; noted for the epoch as well."""
        trainer = self._trainer
        health = trainer.measure_health()
        if health is None:
            return {}
        figures = {"embedding_similarity": health.mean_similarity}
        if health.pairs is not None:
            figures["active_pairs"] = health.pairs.active_share
            self._idle_looks = self._idle_looks + 1 if health.pairs.active_share < _IDLE_SHARE else 0
        for name, value in figures.items():
            trainer.tally.note(name, value)
        if trainer.ranks.is_first and health.mean_similarity > _COLLAPSED and health.classes > 1:
            warn(
                f"step {trainer.progress.step}: the embeddings of a batch are nearly one point (mean similarity "
                f"{health.mean_similarity:.3f}). Lower train.learning_rate or loss.metric_weight if it stays so."
            )
        if trainer.ranks.is_first and self._idle_looks == _IDLE_LOOKS:
            warn(
                f"step {trainer.progress.step}: hardly any pair is active any more ({figures['active_pairs']:.1e}), so "
                "the metric term teaches nothing. Make batches harder (train.hard_classes) or its margins wider."
            )
        return figures


def describe_rise(progress: Progress, figures: dict[str, float]) -> str:
    """What to tell of an epoch whose mean loss is far above that of the first step; nothing where it is not."""
    first, loss = progress.first_loss, figures.get("train_loss")
    if first is None or loss is None or not loss > _RISEN * max(1.0, first):
        return ""
    return (
        f"The loss went up, from {first:.3g} in the first step to {loss:.3g}: the training diverged. Train anew with a "
        "lower train.learning_rate or a longer train.warmup_epochs, under another name (name=...)"
    )
