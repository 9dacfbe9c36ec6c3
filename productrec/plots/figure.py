"""A figure: how it is begun, styled and saved, and how it becomes a part of a page; the one user of matplotlib."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from productrec.artifacts import write_file
from productrec.errors import RecipeError
from productrec.plots.inline_svg import build_inline_svg
from productrec.plots.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes as MatplotlibAxes
    from matplotlib.figure import Figure as MatplotlibFigure

    Axes: TypeAlias = MatplotlibAxes
    Figure: TypeAlias = MatplotlibFigure

FORMATS = (".png", ".svg", ".pdf")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MOST_LETTERS = 36
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "figure.dpi": 120,
    "font.family": ["sans-serif"],
    "font.size": 8,
    "grid.alpha": 0.35,
    "grid.color": GREY,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "patch.edgecolor": INK,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "productrec",  # the same drawing, the same file
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollars in it is no formula
    "xtick.color": INK,
    "xtick.labelsize": 7,
    "ytick.color": INK,
    "ytick.labelsize": 7,
}


@contextmanager
def drawing(
    title: str,
    *,
    rows: int = 1,
    columns: int = 1,
    width: float = 4.0,
    height: float = 3.0,
    share_x: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> Iterator[tuple[Figure, list[list[Axes]]]]:
    """A figure to draw on, in the house's style.

    Args:
        title: what it shows, in words, for a page that is read aloud; it is not drawn.
        rows, columns: of panels.
        width, height: in inches, of the whole.
        share_x: whether all panels have one horizontal axis.
        height_ratios: how high the rows are to each other; None for one height.

    Yields:
        The figure, and its axes by row and column.
    """
    from matplotlib.figure import Figure as NewFigure

    with _styled():
        figure = NewFigure(figsize=(width, height), layout="constrained")
        figure.set_label(clean(title, 200))
        axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, height_ratios=height_ratios)
        yield figure, axes.tolist()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # each layout starts from the one before: the next would move all a little


def count_in_whole_numbers(axes: Axes) -> None:
    """Mark the horizontal axis at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def clean(text: str, most: int = _MOST_LETTERS) -> str:
    """A text as a plot may hold it: at most so many letters, and none that cannot be printed or put into an SVG."""
    plain = _UNPRINTABLE.sub(" ", text)
    return plain if len(plain) <= most else f"{plain[: most - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def check_format(path: Path) -> None:
    """Refuse a file that is none of `FORMATS`.

    Raises:
        RecipeError: it is not.
    """
    if path.suffix.lower() not in FORMATS:
        raise RecipeError(f"{path}: a picture must end in {', '.join(FORMATS)}; got {path.suffix or 'nothing'}.")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the ending of its name, on white.

    Raises:
        RecipeError: another kind of file.
        StorageError: it cannot be written.
    """
    check_format(path)
    with write_file(path) as temporary, temporary.open("wb") as file:
        _render(figure, file, path.suffix.lower()[1:], transparent=False)


def to_svg(figure: Figure, *, name: str = "") -> str:
    """A figure as an ``<svg>`` element of an HTML page: transparent, in the page's text colour, of its text's font.

    It holds no address, no style sheet and no script; texts are escaped; the same figure gives the same text.

    Args:
        figure: drawn by this room.
        name: what ids within it begin with; by default a digest of the picture, which is another one for every picture.
            Name those of which a page shows one twice.
    """
    stream = io.BytesIO()
    _render(figure, stream, "svg", transparent=True)
    return build_inline_svg(stream.getvalue().decode(), title=str(figure.get_label()), name=name, ink=INK)


@contextmanager
def _styled() -> Iterator[None]:
    """In the house's style, and silent about letters that matplotlib's font lacks: in an SVG the reader's has them."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def _render(figure: Figure, stream: IO[bytes], kind: str, *, transparent: bool) -> None:
    undated: dict[str, None] = (
        {} if kind == "png" else dict.fromkeys({"svg": ("Date",), "pdf": ("CreationDate",)}[kind])
    )
    with _styled():
        figure.savefig(stream, format=kind, transparent=transparent, metadata=undated)
