"""What a person sees in the terminal: lines, tables and progress bars; progress goes to standard error."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


class Bar(Protocol):
    """A running progress bar."""

    def advance(self, count: int, **fields: str) -> None:
        """Move on by ``count`` items; ``fields`` are shown below the bar."""
        ...


@cache
def get_console() -> Console:
    """The console that progress and notes go to: standard error, so that standard output stays for results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def silence() -> None:
    """Print nothing from now on but results and errors: another process speaks."""
    get_console().quiet = True


def say(message: str) -> None:
    """Print one line of what is going on."""
    get_console().print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print one line about something that was mended or left out."""
    get_console().print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


_LEAST_TEXT = 24  # width that a last column of text needs beside the others
_GAP = 2  # between two columns


def build_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap_last: bool = False) -> Table:
    """A plain table: the first column left-aligned, figures right-aligned; ``wrap_last`` for a last column of text.

    Where there is too little room the last column of text is folded, or else the first column.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        text = number == 0 or wrap_last
        wrapped = number == (len(columns) - 1 if wrap_last else 0)
        table.add_column(column, justify="left" if text else "right", no_wrap=not wrapped, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap_last: bool = False) -> None:
    """Print a table of results on standard output, and never less than all of it.

    A terminal gets what fits its width: where the last column of text has no room beside the others, it goes below
    them. Into a file or a pipe every row is one line, however long.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    # Without markup and emoji: "[dry]" or ":cat:" in a class name stays what it is.
    console = Console(highlight=False, markup=False, emoji=False)
    table = build_table(title, columns, rows, wrap_last=wrap_last)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(
            console.width, console.measure(table, options=console.options.update(max_width=10**6)).maximum
        )
    beside = sum(_GAP + max(_measure(cell) for cell in cells) for cells in list(zip(columns, *rows, strict=True))[:-1])
    with console.capture() as captured:
        if not wrap_last or console.width - beside >= _LEAST_TEXT:
            console.print(table)
        else:
            console.print(Text(f"{title}\n", style="bold"))
            for row in [columns, *rows]:
                console.print(Text("  ".join(cell for cell in row[:-1] if cell), overflow="fold"))
                console.print(Padding(Text(row[-1], overflow="fold"), (0, 0, 0, 4)))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _measure(cell: str) -> int:
    return max(map(len, cell.splitlines()), default=0)


@contextlib.contextmanager
def show_progress(label: str, total: int, unit: str = "images") -> Iterator[Bar]:
    """A progress bar with rate and time left; on a stream that is no terminal only its last state is printed."""
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: object) -> Text:
            rate = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            elapsed = getattr(task, "elapsed", None)
            if not rate and elapsed:  # over before a speed was measured
                rate = getattr(task, "completed", 0.0) / elapsed
            shown = f"{rate:,.0f}" if rate and rate >= 10 else f"{rate or 0:.2g}"
            return Text(f"{shown} {unit}/s" if rate else "")

    class NotedProgress(Progress):
        note = ""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            if self.note:  # on lines of its own: beside the bar it would leave no room for it
                yield Text(self.note)

    progress = NotedProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>,.0f}/{task.total:,.0f}"),
        RateColumn(),
        TimeRemainingColumn(),
        console=get_console(),
        refresh_per_second=4,
        transient=get_console().is_terminal,
    )
    with progress:
        task = progress.add_task(label, total=total)

        class RunningBar:
            def advance(self, count: int, **fields: str) -> None:
                note = "  ".join(f"{name} {value}" for name, value in fields.items())
                progress.note = note or progress.note
                progress.update(task, advance=count)

        yield RunningBar()
