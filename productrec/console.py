"""What a person sees in the terminal: lines, tables and progress bars; progress goes to standard error.

Where several processes work side by side one of them has the terminal, and the others hand it what they have to say.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


class Bar(Protocol):
    """A running progress bar."""

    def advance(self, count: int, **fields: str) -> None:
        """Move on by ``count`` items; ``fields`` are shown below the bar."""
        ...

    def close(self) -> None:
        """End the bar; a terminal forgets it, any other stream gets its last state."""
        ...


class Bars(Protocol):
    """Progress bars, one below the other."""

    def open(self, label: str, total: int, unit: str, *, name: str = "") -> Bar:
        """One more bar; ``name`` tells whose it is, before its label and before what is shown below it."""
        ...


class Line(NamedTuple):
    """A line that a process says."""

    text: str
    style: str | None = None


class Opened(NamedTuple):
    """A progress bar that a process opens; it opens one at a time."""

    label: str
    total: int
    unit: str


class Moved(NamedTuple):
    """The open bar goes on by so many items."""

    items: int
    fields: dict[str, str]


class Closed(NamedTuple):
    """The open bar ends."""


Said = Line | Opened | Moved | Closed
_relay: Callable[[Said], None] | None = None  # what this process says goes to another one


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
    _tell(Line(message))


def warn(message: str) -> None:
    """Print one line about something that was mended or left out."""
    _tell(Line(f"warning: {message}", "yellow"))


def _tell(line: Line) -> None:
    if _relay is not None:
        _relay(line)
    else:
        get_console().print(line.text, style=line.style, markup=False, soft_wrap=True)


def relay_to(send: Callable[[Said], None] | None) -> None:
    """Print no line and no bar from now on: give them to ``send``, which brings them to a `Listener`; None to print."""
    global _relay
    _relay = send


class Listener:
    """Prints what another process says, with its name before each line."""

    def __init__(self, name: str, bars: Bars) -> None:
        self._name, self._bars = name, bars
        self._bar: Bar | None = None

    def show(self, said: Said) -> None:
        """Print a line, or move the other process's bar."""
        match said:
            case Line(text, style):
                _tell(Line(f"{self._name}: {text}", style))
            case Opened(label, total, unit):
                self.close()
                self._bar = self._bars.open(label, total, unit, name=self._name)
            case Moved(items, fields):
                if self._bar is not None:
                    self._bar.advance(items, **fields)
            case Closed():
                self.close()

    def close(self) -> None:
        """End a bar that is still open, as when its process has died."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


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
    with contextlib.ExitStack() as stack:
        bar = (
            _RelayedBar(_relay, label, total, unit)
            if _relay
            else stack.enter_context(show_bars()).open(label, total, unit)
        )
        stack.callback(bar.close)
        yield bar


class _RelayedBar:
    def __init__(self, send: Callable[[Said], None], label: str, total: int, unit: str) -> None:
        self._send = send
        send(Opened(label, total, unit))

    def advance(self, count: int, **fields: str) -> None:
        self._send(Moved(count, fields))

    def close(self) -> None:
        self._send(Closed())


@contextlib.contextmanager
def show_bars() -> Iterator[Bars]:
    """Room for several progress bars, each as `show_progress` has it; lines are printed above them."""
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            if not rate and task.elapsed:  # over before a speed was measured
                rate = task.completed / task.elapsed
            shown = f"{rate:,.0f}" if rate and rate >= 10 else f"{rate or 0:.2g}"
            return Text(f"{shown} {task.fields['unit']}/s" if rate else "")

    class NotedProgress(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["note"]:  # on lines of its own: beside the bar it would leave no room for it
                    yield Text(task.fields["note"])

    console = get_console()
    progress = NotedProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>,.0f}/{task.total:,.0f}"),
        RateColumn(),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=4,
        transient=True,
    )

    class OpenBar:
        def __init__(self, label: str, total: int, unit: str, name: str) -> None:
            self._whose = f"{name}: " if name else ""
            self._id = progress.add_task(f"{self._whose}{label}", total=total, unit=unit, note="")

        def advance(self, count: int, **fields: str) -> None:
            note = "  ".join(f"{name} {value}" for name, value in fields.items())
            if note:
                progress.update(self._id, note=f"{self._whose}{note}")
            progress.update(self._id, advance=count)

        def close(self) -> None:
            if not console.is_terminal:
                task = next(task for task in progress.tasks if task.id == self._id)
                console.print(progress.make_tasks_table([task]))
                if task.fields["note"]:
                    console.print(Text(task.fields["note"]), soft_wrap=True)
            progress.remove_task(self._id)

    class OpenBars:
        def open(self, label: str, total: int, unit: str, *, name: str = "") -> Bar:
            return OpenBar(label, total, unit, name)

    with progress if console.is_terminal else contextlib.nullcontext():
        yield OpenBars()
