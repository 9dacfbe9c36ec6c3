"""General Pair Weighting in tables: computed from the losses, never typed."""

from productrec.losses.catalogue import list_losses, list_pair_losses, list_similarities
from productrec.losses.engine.weighing import PairWeighting, RelatedPairWeighting
from productrec.losses.engine.weight_curves import VIEWS
from productrec_docs.losses import name_anchor
from productrec_docs.tables import write_table

# An anchor: three positives, of which one is hard, and four negatives, of which one is nearer than two positives.
POSITIVES, NEGATIVES = (0.85, 0.7, 0.45), (0.75, 0.55, 0.3, 0.05)
_LEAST = 0.005


def write_similarities() -> list[str]:
    """Which of the three similarities each loss's weights follow."""
    losses = list_losses()
    rows = []
    for name, views in list_similarities().items():
        marks = ["–" if views is None else "yes" if view in views else "" for view in VIEWS]  # noqa: RUF001
        rows.append((f"[`{name}`](reference/losses.md#{name_anchor(name)})", losses[name].kind, *marks))
    return write_table(("loss", "kind", *(f"{view} similarity" for view in VIEWS)), rows)


def write_example() -> list[str]:
    """What each pair loss makes of one anchor: each pair's share of the largest weight."""
    header = ("loss", *(f"+ {near}" for near in POSITIVES), *(f"− {far}" for far in NEGATIVES))  # noqa: RUF001
    rows = []
    for name, weights in weigh_example().items():
        largest = max(weights)
        shares = [weight / largest if largest else 0.0 for weight in weights]
        cells = [f"**{share:.2f}**" if share == 1 else f"{share:.2f}" if share >= _LEAST else "" for share in shares]
        rows.append((f"`{name}`", *cells))
    return write_table(header, rows)


def weigh_example() -> dict[str, list[float]]:
    """Every pair loss with the sizes of its weights for the example's pairs, positives first."""
    import torch

    weighed = {}
    for name, (loss, mining) in list_pair_losses().items():
        near, far = (torch.tensor([values], dtype=torch.float64) for values in (POSITIVES, NEGATIVES))
        if mining is not None:
            mining.drop(near, far)
        weighed[name] = _weigh(loss, near, far)
    return weighed


def _weigh(loss: PairWeighting, near, far) -> list[float]:  # type: ignore[no-untyped-def]
    if isinstance(loss, RelatedPairWeighting):  # the other row of a positive pair is taken to have the same negatives
        own = loss.summarise(near, far)
        weighed = loss.weigh_related(near, far, own, own[:, None].expand_as(near))
    else:
        weighed = loss.weigh(near, far)
    return [*weighed.positives[0].abs().tolist(), *weighed.negatives[0].abs().tolist()]
