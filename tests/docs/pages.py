"""Pages as the checks see them: blocks, texts in backticks, links and headings, each with its line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
_TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
_MARKDOWN = MarkdownIt("commonmark").enable("table")


class Part(NamedTuple):
    """A piece of a page; ``kind``: a block's language, or empty."""

    line: int
    text: str
    kind: str = ""


class Page(NamedTuple):
    """A page: its file, what it holds, and the anchors that links may name."""

    path: Path
    blocks: list[Part]
    literals: list[Part]
    links: list[Part]
    anchors: set[str]

    def tell(self, part: Part, fault: str) -> str:
        """A fault with its place."""
        here = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path.name
        return f"{here}:{part.line}: {fault}"


def list_pages() -> list[Path]:
    """README, CONTRIBUTING and every page of the documentation."""
    within = [path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(within)]


def read_pages() -> list[Page]:
    """All of them, parsed."""
    return [parse_page(path.read_text(encoding="utf-8"), path) for path in list_pages()]


def parse_page(text: str, path: Path) -> Page:
    """A page of Markdown text that stands, or would, in the file ``path``."""
    page = Page(path, [], [], [], set(_TARGET.findall(text)))
    heading = False
    for token in _MARKDOWN.parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "fence":
            page.blocks.append(Part(line, token.content, token.info.strip()))
        elif token.type == "inline":
            if heading:
                page.anchors.add(slug(token.content))
            for kind, value in _walk_inline(token.children or []):
                (page.links if kind == "link" else page.literals).append(Part(line, value))
        heading = token.type == "heading_open"
    return page


def slug(heading: str) -> str:
    """The anchor of a heading, as Markdown's readers make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _walk_inline(children: list) -> Iterator[tuple[str, str]]:
    for child in children:
        if child.type == "code_inline":
            yield "literal", child.content
        elif child.type == "link_open":
            yield "link", str(child.attrs["href"])
        elif child.type == "image":
            yield "link", str(child.attrs["src"])
