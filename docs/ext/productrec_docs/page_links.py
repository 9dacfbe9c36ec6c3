"""Links of what a page names in backticks: pages of these docs, settings of a recipe, commands."""

import re
from functools import cache
from typing import Any

from docutils import nodes

from productrec.recipe.whole import Recipe
from productrec.settings.fields import walk_settings
from productrec_docs.commands import name_anchor, walk_commands
from productrec_docs.settings import name_target

_PAGE = re.compile(r"docs/([\w/-]+)\.md$")
_INCLUDED = {"benchmarks/RESULTS.md": "results", "CHANGELOG.md": "changes", "CONTRIBUTING.md": "contributing"}
_SETTINGS, _COMMANDS = "reference/settings", "reference/commands"


def link_named_pages(app: Any, doctree: nodes.document) -> None:
    """Make a link of each page, setting and command of productrec that stands in backticks."""
    here = app.env.docname
    for literal in list(doctree.findall(nodes.literal)):
        found = _find(literal.astext())
        if found is None or _is_linked(literal):
            continue
        page, anchor = found
        if page == here or page not in app.env.found_docs:
            continue
        address = app.builder.get_relative_uri(here, page) + (f"#{anchor}" if anchor else "")
        reference = nodes.reference("", "", refuri=address, internal=True)
        literal.replace_self(reference)
        reference += literal


def _find(text: str) -> tuple[str, str] | None:
    """The page and the place in it that a text in backticks names."""
    if match := _PAGE.match(text):
        return match[1], ""
    if text in _INCLUDED:
        return _INCLUDED[text], ""
    key = re.split(r"[=:]", text, maxsplit=1)[0]
    if key in _list_keys() and ("." in key or key != text):
        return _SETTINGS, name_target(key)
    if text.startswith("productrec "):
        words = text.split()[1:]
        for count in (2, 1):
            if (name := " ".join(words[:count])) in _list_commands():
                return _COMMANDS, name_anchor(name)
    return None


@cache
def _list_keys() -> frozenset[str]:
    return frozenset(info.key for info in walk_settings(Recipe))


@cache
def _list_commands() -> frozenset[str]:
    return frozenset(name for name, _ in walk_commands())


def _is_linked(node: nodes.Node) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, nodes.reference | nodes.title):
            return True
        parent = parent.parent
    return False
