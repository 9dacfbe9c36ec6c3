"""The parts of the reference that the code writes hold what the code has."""

import re
import sys
from collections.abc import Iterator

import pytest

from productrec.competitions.contract import list_contracts
from productrec.losses.catalogue import list_losses
from productrec.losses.engine.mining import MINING_RULES
from productrec.recipe import list_settings
from tests.docs.pages import ROOT, read_pages


@pytest.fixture(scope="module", autouse=True)
def extension() -> Iterator[None]:
    """The extension of the documentation can be imported."""
    sys.path.insert(0, str(ROOT / "docs" / "ext"))
    yield
    sys.path.remove(str(ROOT / "docs" / "ext"))


def write(name: str) -> str:
    from productrec_docs.written_parts import WRITTEN

    return "\n".join(WRITTEN[name]())


def test_every_setting_has_a_row_with_its_values_and_default() -> None:
    own = ("loss.metric.", "loss.mining.")
    text, losses = write("recipe-settings"), write("losses") + write("mining-rules")
    for info in list_settings():
        assert f"`{info.key}` |" in (losses if info.key.startswith(own) else text), info.key
    row = next(line for line in text.splitlines() if "`train.epochs`" in line)
    assert row.startswith('| <span id="setting-train-epochs"></span>`train.epochs` | whole number, at least 1 | `30` |')
    assert "Decides the run. Taken by `train`." in row


def test_every_command_has_its_options() -> None:
    text = write("commands")
    assert "productrec train RECIPE [KEY=VALUE]... [OPTIONS]" in text
    assert "## `index grow`" in text
    row = next(line for line in text.splitlines() if "`--max-minutes`" in line)
    assert row.startswith("| `--max-minutes` | number, at least 0 |")


def test_every_loss_rule_and_contract_has_a_section() -> None:
    losses, rules, contracts = write("losses"), write("mining-rules"), write("contracts")
    for name, loss in list_losses().items():
        assert f"### `{name}`" in losses and loss.formula in losses
    assert all(f"### `{name}`" in rules for name in MINING_RULES)
    assert all(f"### `{name}`" in contracts for name in list_contracts())


def test_similarities_are_those_that_the_weights_show() -> None:
    rows = {
        line.split("`")[1]: line.split(" | ")[2:] for line in write("pair-similarities").splitlines() if "`" in line
    }
    assert set(rows) == set(list_losses())
    assert [cell.strip(" |") for cell in rows["contrastive"]] == ["yes", "", ""]
    assert [cell.strip(" |") for cell in rows["multi_similarity"]] == ["yes", "yes", "yes"]
    assert [cell.strip(" |") for cell in rows["triplet"]] == ["", "", "yes"]


def test_the_example_weighs_as_the_losses_do() -> None:
    row = next(line for line in write("pair-example").splitlines() if "`triplet`" in line)
    # Margin 0.1: of the negatives, 0.75 and 0.55 are too near for 0.45, and 0.75 for 0.7.
    assert [cell.strip(" *") for cell in row.split("|")[2:-1]] == ["", "0.50", "1.00", "1.00", "0.50", "", ""]


def test_marks_of_markdown_in_a_meaning_are_shown() -> None:
    from productrec_docs.tables import escape, write_table

    assert escape("a <b> of [c], `d_<e>` and *f*") == r"a \<b\> of \[c\], `d_<e>` and \*f\*"
    assert write_table(("a",), [("x|y",)])[3] == r"| x\|y |"


def test_every_written_part_stands_in_a_page() -> None:
    from productrec_docs.written_parts import WRITTEN

    placed = {re.sub(r"[{}]", "", block.kind) for page in read_pages() for block in page.blocks}
    assert {*WRITTEN, "weight-curves"} <= placed
