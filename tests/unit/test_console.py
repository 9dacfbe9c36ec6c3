"""What a person sees: notes on standard error, results on standard output, text exactly as it is."""

import re
import subprocess
import sys
import time

import pytest

from productrec.console import (
    Listener,
    Moved,
    Opened,
    Said,
    build_table,
    print_table,
    relay_to,
    say,
    show_bars,
    show_progress,
    warn,
)

TRICKY = "class [bold]x[/] :cat: [/red] 1"


def test_notes_go_to_standard_error_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say(TRICKY)
    warn(TRICKY)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{TRICKY}\nwarning: {TRICKY}\n"


def test_a_long_note_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("word " * 200)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_table_goes_to_standard_output_with_its_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TRICKY, ("name", "figure"), [(TRICKY, "0.5"), ("b", "10.25")])
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count(TRICKY) == 2
    lines = [line.rstrip() for line in out.splitlines() if line.strip()]
    assert lines[-2].endswith("  0.5")
    assert lines[-1].endswith("10.25")


def test_figures_stand_to_the_right_and_text_to_the_left() -> None:
    assert [column.justify for column in build_table("t", ("a", "b", "c"), []).columns] == ["left", "right", "right"]
    wrapped = build_table("t", ("a", "b"), [], wrap_last=True).columns
    assert [column.justify for column in wrapped] == ["left", "left"]
    assert [column.no_wrap for column in wrapped] == [True, False]


@pytest.mark.parametrize("width", [None, 50, 60, 80, 120])
def test_nothing_of_a_table_is_lost_at_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    key, default = "predict.head_weight_grid_of_a_long_name", "(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)"
    meaning = "what it means, said in so many words that they will not stand in one line of a narrow terminal " * 2
    print_table("settings", ("key", "default", "meaning"), [(key, default, meaning), ("b", "1", "two")], wrap_last=True)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= (width or 1000)
    if width is None:  # a line a row, which grep finds whole
        assert [line for line in lines if key in line and default in line and meaning.strip() in line]
    assert key in out
    assert all(word in out for cell in (default, meaning) for word in cell.split())
    name = "a run of a name that is longer than a narrow terminal is wide and goes on"
    print_table("scores", ("", "top-1 accuracy %", "top-3 error %"), [(name, "83.3", "16.7")])
    out = capsys.readouterr().out
    assert all(word in out for word in (*name.split(), "83.3", "16.7", "top-1 accuracy %", "top-3 error %"))


def test_progress_on_a_stream_that_is_no_terminal_prints_its_last_state(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("[/] :cat:", 12_000, "images") as bar:
        bar.advance(5_000, loss="[b]1.5")
        bar.advance(7_000, loss="[/]")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("[/] :cat: ")
    assert "12,000/12,000" in err
    assert "images/s" in err
    assert "loss [/]" in err
    assert "1.5" not in err


def test_progress_passes_an_error_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), show_progress("reading", 10) as bar:
        bar.advance(1)
        raise ValueError("inside")
    assert "10" in capsys.readouterr().err


def test_the_console_is_imported_without_rich() -> None:
    code = "import sys, productrec.console; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_job_that_is_over_at_once_has_a_rate_too(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("reading", 24) as bar:
        bar.advance(24)
    err = capsys.readouterr().err
    assert " 0 images/s" not in err and "images/s" in err


def test_a_slow_job_has_a_rate_below_ten(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("training", 1, "steps") as bar:
        time.sleep(0.3)
        bar.advance(1)
    assert re.search(r" (\d\.\d+|[1-9]) steps/s", capsys.readouterr().err)


def test_what_other_processes_say_has_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    said: dict[str, list[Said]] = {"ann": [], "bob": []}
    try:
        for name in said:
            relay_to(said[name].append)
            with show_progress("training", 3, "steps") as bar:
                bar.advance(2, loss="1.5")
                warn(TRICKY)
                bar.advance(1)
    finally:
        relay_to(None)
    assert capsys.readouterr() == ("", "")
    with show_bars() as bars:
        listeners = {name: Listener(name, bars) for name in said}
        for number in range(len(said["ann"])):  # by turns
            for name, listener in listeners.items():
                listener.show(said[name][number])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"{name}: warning: {TRICKY}" for name in said]
    for name, (bar_line, note) in zip(said, (lines[2:4], lines[4:6]), strict=True):
        assert bar_line.startswith(f"{name}: training ") and "3/3" in bar_line
        assert note == f"{name}: loss 1.5"


def test_the_bar_of_a_process_that_died_is_closed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with show_bars() as bars:
        listener = Listener("ann", bars)
        for said in (Opened("training", 3, "steps"), Moved(1, {})):
            listener.show(said)
        listener.close()
        listener.close()
        listener.show(Moved(1, {}))
    assert capsys.readouterr().err.count("ann: training") == 1
