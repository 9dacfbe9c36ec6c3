"""Every command line that a page shows names commands, options and settings that there are."""

import pytest

from tests.docs.command_lines import check_commands, check_named_commands, list_commands, split_commands
from tests.docs.pages import ROOT, Page, parse_page, read_pages

PAGE = ROOT / "docs" / "drawn.md"


def check_table(page: Page) -> list[str]:
    """Commands that the page's table leaves out."""
    named = {literal.text.split()[0] for literal in page.literals}
    return [name for name in list_commands() if name not in named]


def test_commands_in_blocks_would_run() -> None:
    pages = read_pages()
    shown = [words for page in pages for block in page.blocks for _, words in split_commands(block)]
    assert len(shown) > 60
    assert [fault for page in pages for fault in check_commands(page)] == []


def test_commands_in_backticks_are_there() -> None:
    assert [fault for page in read_pages() for fault in check_named_commands(page)] == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("productrec trian pipelines/mine.yaml", "no command trian"),
        ("productrec train pipelines/mine.yaml --fast", "no option --fast"),
        ("productrec train", "RECIPE"),
        ("productrec train a.yaml train.epoch=3", "no setting train.epoch"),
        ("productrec train a.yaml train.epochs=none", "train.epochs"),
        ("productrec train a.yaml --nproc many", "many"),
        ("productrec index grew runs/mine new", "grew"),
        ("python3 -m venv .venv && .venv/bin/uv run productrec dmeo", "no command dmeo"),
        ("torchrun --nproc-per-node=8 -m productrec train a.yaml --resmue", "no option --resmue"),
        ("docker run --rm productrec predcit runs/a", "no command predcit"),
        ("productrec train 'a.yaml --fast", "no option --fast"),
        ("productrec predict \\\n    runs/mine --tat", "no option --tat"),
    ],
)
def test_a_command_that_does_not_run_is_told(line: str, fault: str) -> None:
    (told,) = check_commands(parse_page(f"```\n{line}\n```\n", PAGE))
    assert fault in told
    assert "docs/drawn.md:2" in told


def test_a_command_in_backticks_that_is_none_is_told() -> None:
    page = parse_page("`productrec trian RECIPE`, `productrec train RECIPE --fast`, `productrec train RECIPE`", PAGE)
    assert [told.rpartition(": ")[2] for told in check_named_commands(page)] == ["no command trian", "no option --fast"]


def test_what_is_no_call_is_left_alone() -> None:
    text = (
        "```\npip install productrec --no-index\ndocker build -t productrec .\nproductrec settings  # all of them\n```"
    )
    assert check_commands(parse_page(text, PAGE)) == []


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert check_table(parse_page(text, PAGE)) == []
    assert check_table(parse_page(text.replace("| `demo` |", "| |").replace("`sweep ", "`"), PAGE)) == ["sweep", "demo"]
