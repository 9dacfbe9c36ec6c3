"""Pictures: the one place that draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from productrec.artifacts import explain_storage_errors
from productrec.errors import RecipeError
from productrec.losses.catalogue import list_pair_losses
from productrec.losses.engine.weight_curves import VIEWS, compute_weight_curve
from productrec.metrics.figures import VALIDATION_FIGURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = (".png", ".svg", ".pdf")
_HEALTH = ("embedding_similarity", "active_pairs", "learning_rate_factor")


def draw_weight_curves(path: Path) -> None:
    """Draw how every pair loss of the catalogue weighs a pair, over the three similarities, into a PNG, SVG or PDF.

    Each curve is divided by its largest weight.

    Raises:
        RecipeError: another kind of file.
        StorageError: it cannot be written.
    """
    figure = _start_figure(path, rows=1, columns=1)
    losses = list_pair_losses()
    figure.set_size_inches(9.0, 1.3 * len(losses) + 1.0)
    figure.clear()
    axes = figure.subplots(len(losses), len(VIEWS), sharex=True, squeeze=False)
    for row, (name, (loss, mining)) in zip(axes, losses.items(), strict=True):
        for view, axis in zip(VIEWS, row, strict=True):
            for of_positive, colour in ((True, "tab:blue"), (False, "tab:red")):
                curve = compute_weight_curve(loss, view, of_positive=of_positive, mining=mining)
                largest = float(curve.weights.max())
                axis.plot(curve.similarities, curve.weights / (largest or 1.0), color=colour, linewidth=1.2)
            axis.set_ylim(-0.05, 1.1)
            axis.set_yticks([])
        row[0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=8)
    for view, axis in zip(VIEWS, axes[0], strict=True):
        axis.set_title(f"{view} similarity", fontsize=9)
    figure.legend(["a positive's weight", "a negative's weight"], loc="lower center", ncols=2, fontsize=8)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    _save(figure, path)


def draw_training_curves(path: Path, epochs: Sequence[Mapping[str, float]]) -> None:
    """Draw the figures of a training by epoch: losses by term, validation, and how the embeddings stand.

    Args:
        path: PNG, SVG or PDF.
        epochs: the lines of ``metrics.jsonl``, each with its ``epoch``, from 0.

    Raises:
        RecipeError: another kind of file.
        StorageError: it cannot be written.
    """
    names = list(dict.fromkeys(name for line in epochs for name in line))
    panels = {
        "losses": [name for name in names if name.startswith("train_")],
        "validation": [name for name in names if name.removeprefix("raw_") in VALIDATION_FIGURES],
        "embeddings and rate": [name for name in names if name in _HEALTH],
    }
    figure = _start_figure(path, rows=1, columns=len(panels))
    for axis, (title, shown) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in shown:
            points = [(line["epoch"] + 1, line[name]) for line in epochs if name in line]
            raw = name.startswith("raw_")
            axis.plot(
                *zip(*points, strict=True), label=name, linewidth=0.8 if raw else 1.4, linestyle=":" if raw else "-"
            )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        if shown:
            axis.legend(fontsize=6)
    figure.tight_layout()
    _save(figure, path)


def draw_leaderboard(path: Path, points: Sequence[tuple[str, str, float, float]]) -> None:
    """Draw the public score of each submission over its validation score, a panel for each competition and metric.

    Args:
        path: PNG, SVG or PDF.
        points: panel, label, validation score and public score of each; at least one.

    Raises:
        RecipeError: another kind of file.
        StorageError: it cannot be written.
    """
    panels = list(dict.fromkeys(panel for panel, *_ in points))
    figure = _start_figure(path, rows=1, columns=len(panels))
    for axis, title in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for panel, label, validation, public in points:
            if panel == title:
                axis.scatter(validation, public, s=14, color="tab:blue")
                place = (validation, public)
                axis.annotate(_quote(label), place, xytext=(4, 4), textcoords="offset points", fontsize=6)
        axis.margins(0.2)
        axis.set_title(_quote(title), fontsize=9)
        axis.set_xlabel("validation", fontsize=8)
        axis.set_ylabel("public leaderboard", fontsize=8)
    figure.tight_layout()
    _save(figure, path)


def _quote(text: str) -> str:
    """A text that is no formula to matplotlib."""
    return text.replace("$", r"\$")


def _start_figure(path: Path, *, rows: int, columns: int) -> Figure:
    if path.suffix.lower() not in _FORMATS:
        raise RecipeError(f"{path}: a picture must end in {', '.join(_FORMATS)}; got {path.suffix or 'nothing'}.")
    from matplotlib.figure import Figure

    return Figure(figsize=(4.0 * columns, 3.0 * rows), dpi=120)


def _save(figure: Figure, path: Path) -> None:
    with explain_storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
