"""Rows that are kept: a kill loses one at most, other budgets are other rows, and what a table says of them."""

import pytest
from sections.kept_rows import FIGURES, KeptRows, Row, Task, describe_rows


def make_row(method="circle", seed=0, fold=0, value=0.5, **budget):
    task = Task("screen", "grocery", method, seed, fold, {"steps": 5, "rates": [0.1]} | budget)
    return Row(task, dict.fromkeys(FIGURES, value), 1.5, "rate 0.1")


def test_rows_are_found_again_by_task_and_budget(tmp_path):
    rows = KeptRows(tmp_path / "new" / "rows.jsonl")
    assert rows.load() == {}
    first = make_row()
    rows.add(first)
    assert KeptRows(tmp_path / "new" / "rows.jsonl").load() == {first.task.key: first}
    others = [make_row(seed=1), make_row(fold=1), make_row("triplet"), make_row(steps=6), make_row(side_px=64)]
    assert not {row.task.key for row in others} & {first.task.key}
    newer = make_row(value=0.75)
    rows.add(newer)
    assert rows.load() == {first.task.key: newer}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_half_a_line_costs_one_row_alone(tmp_path, share):
    path = tmp_path / "rows.jsonl"
    rows, first, second = KeptRows(path), make_row(seed=0), make_row(seed=1)
    rows.add(first)
    whole = path.read_bytes()
    rows.add(second)
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + line[: int(len(line) * share)])
    assert rows.load() == {first.task.key: first}
    rows.add(second)  # on a line of its own
    assert rows.load() == {first.task.key: first, second.task.key: second}


def test_a_table_has_means_over_folds_spread_over_seeds_and_pairs(tmp_path):
    easy, hard = 0.9, 0.3
    rows = [make_row("multi_similarity", seed, fold, (easy, hard)[seed]) for seed in (0, 1) for fold in (0, 1)]
    rows += [make_row("circle", seed, fold, (easy, hard)[seed] + 0.02 * fold) for seed in (0, 1) for fold in (0, 1)]
    failed = Row(make_row("margin").task, {}, 0.1, "fails: not finite")
    lines = describe_rows([*rows, failed], beside="multi_similarity").splitlines()
    assert lines[0] == "screen, grocery: steps 5, rates [0.1]"
    table = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[4:]}
    assert list(table) == ["circle", "multi_similarity", "margin"]  # the best first
    # Halves that are harder than others spread the figures, not the differences.
    assert table["circle"] == ["61.0 ± 42.4"] * 6 + ["+1.0 ± 0.0", "4", "rate 0.1"]
    assert table["multi_similarity"] == ["60.0 ± 42.4"] * 6 + ["", "4", "rate 0.1"]
    assert table["margin"] == [""] * 7 + ["0", "fails: not finite"]


def test_budgets_have_tables_of_their_own():
    said = describe_rows([make_row(), make_row(steps=6), make_row(seed=1)], beside="circle")
    assert said.count("| method |") == 2
    assert "| circle | 50.0 ± 0.0 |" in said and "| circle | 50.0 |" in said
