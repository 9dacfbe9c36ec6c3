"""Links between pages, and files that pages name, lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Page, parse_page, read_pages

# Files of the repository, in backticks. Recipes called "mine" are the reader's own, and so are those that a page shows.
_NAMED = re.compile(
    r"(?:docs|benchmarks|tests|productrec|pipelines|submissions)/[\w./-]+\.(?:md|py|yaml|json|png|svg|html)|[A-Z]+\.md"
)
_OWN = re.compile(r"pipelines/mine|submissions/|[A-Z]+/|productrec/competitions/mine|docs/.*NAME|/NAME\.py")

_NAME = re.compile(r"^name: (\S+)", re.MULTILINE)


def check_links(page: Page) -> list[str]:
    """What a page links to, or names, that is not there."""
    faults = []
    for link in page.links:
        if re.match(r"[a-z]+:", link.text):  # another place
            continue
        name, _, anchor = link.text.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        if name and not target.exists():
            faults.append(page.tell(link, f"link to {link.text}: no such file"))
        elif anchor and target.suffix == ".md":
            there = parse_page(target.read_text(encoding="utf-8"), target) if name else page
            is_written = any(block.kind.startswith("{") for block in there.blocks)  # Sphinx tells of these
            if anchor not in there.anchors and not is_written:
                faults.append(page.tell(link, f"link to {link.text}: no such heading"))
    shown = {f"pipelines/{name}.yaml" for block in page.blocks for name in _NAME.findall(block.text)}
    for literal in page.literals:
        if _NAMED.fullmatch(literal.text) and not _OWN.search(literal.text) and literal.text not in shown:
            places = [ROOT / literal.text, page.path.parent / literal.text]
            if not any(place.exists() for place in places):
                faults.append(page.tell(literal, f"{literal.text}: no such file"))
    return faults


def test_links_lead_somewhere() -> None:
    pages = read_pages()
    assert sum(len(page.links) for page in pages) > 15
    assert [fault for page in pages for fault in check_links(page)] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("See [there](nowhere.md).", "nowhere.md: no such file"),
        ("See [there](losses.md#no-such-part).", "no such heading"),
        ("See [below](#below).\n\n# Above", "no such heading"),
        ("![a picture](missing.png)", "missing.png: no such file"),
        ("`docs/nowhere.md` tells.", "docs/nowhere.md: no such file"),
        ("Take `pipelines/nothing.yaml`.", "pipelines/nothing.yaml: no such file"),
    ],
)
def test_a_dead_link_is_told(text: str, fault: str) -> None:
    (told,) = check_links(parse_page(text, ROOT / "docs" / "drawn.md"))
    assert fault in told
    assert told.startswith(str(Path("docs/drawn.md:1")))


def test_a_recipe_that_the_page_shows_is_the_readers_own() -> None:
    text = "Write `pipelines/shop.yaml`:\n\n```yaml\nname: shop\n```"
    assert check_links(parse_page(text, ROOT / "docs" / "drawn.md")) == []
