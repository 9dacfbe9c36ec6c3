"""What a person sees in the terminal: lines, tables and progress bars; progress goes to standard error."""

from __future__ import annotations

import contextlib
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


def build_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap_last: bool = False) -> Table:
    """A plain table: the first column left-aligned, figures right-aligned; ``wrap_last`` for a last column of text."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        text = number == 0 or wrap_last
        wrapped = wrap_last and number == len(columns) - 1
        table.add_column(column, justify="left" if text else "right", no_wrap=not wrapped, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap_last: bool = False) -> None:
    """Print a table of results on standard output."""
    from rich.console import Console

    # Without markup and emoji: "[dry]" or ":cat:" in a class name stays what it is.
    Console(highlight=False, markup=False, emoji=False).print(build_table(title, columns, rows, wrap_last=wrap_last))


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
