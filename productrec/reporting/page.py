"""One self-contained HTML page out of sections: every text escaped, no address outside, made by Jinja2 here alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from productrec import __version__
from productrec.reporting.thumbnails import Thumbnails

_PAGE = "page.html.jinja"
_STYLE, _SCRIPT = "page.css", "page.js"
KEYS = (
    ("j", "to the next item"),
    ("k", "to the item before"),
    ("n", "to the next item"),
    ("p", "to the item before"),
    ("/", "to the filter"),
    ("Esc", "out of the filter, or close this list"),
    ("?", "show this list"),
)


@dataclass(frozen=True)
class Section:
    """A part of a page: its template fills what lies below the heading.

    Args:
        anchor: id of the section in the page, of letters, digits and hyphens.
        title: heading and entry in the list of contents.
        template: file in ``templates/``; it sees ``data``, ``anchor`` and the macros that it imports.
        data: what the template shows; every text in it is escaped. JSON for a script goes through ``tojson``.
    """

    anchor: str
    title: str
    template: str
    data: Mapping[str, Any] = field(default_factory=dict)


def render_page(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    toolbar: Section | None = None,
    thumbnails: Thumbnails | None = None,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    keys: Sequence[tuple[str, str]] = (),
) -> str:
    """Make a page that opens from disk, on a phone or in a notebook, without a server.

    Any element of a section with ``data-class`` or ``data-id`` is found by the filter; an element of the class
    ``item`` is a stop of the keyboard. Only the scripts that are given here run: the page's security policy holds
    their digests, so that a script that came with the data would not run even if it were not escaped.

    Args:
        title: of the page; plain text, like every other text here.
        sections: from top to bottom.
        lead: a sentence or two below the title.
        toolbar: what stands beside the filter; its title is read out by screen readers.
        thumbnails: pictures that sections name by their number, see `Thumbnails`.
        styles: further style sheets in ``templates/``, after the page's own.
        scripts: further scripts in ``templates/``, after the page's own, which offers them ``window.page``.
        keys: further keys and what they do, for the list of keys; one of `KEYS` gets another meaning.

    Returns:
        The page, as text.

    Raises:
        jinja2.TemplateError: a template is not there, or names what its data do not hold.
    """
    environment = _open_templates()
    texts = [_read(environment, name) for name in (_SCRIPT, *scripts)]
    return environment.get_template(_PAGE).render(
        title=title,
        lead=lead,
        sections=sections,
        toolbar=toolbar,
        styles=[_read(environment, name) for name in (_STYLE, *styles)],
        scripts=texts,
        digests=[_compute_policy_digest(text) for text in texts],
        thumbnails=[] if thumbnails is None else thumbnails.dump(),
        keys=list({**dict(keys), **dict(KEYS), **dict(keys)}.items()),
        version=__version__,
    )


def _open_templates() -> Environment:
    return Environment(
        loader=PackageLoader("productrec.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read(environment: Environment, name: str) -> str:
    """The text of a file in ``templates/``, as it is."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _compute_policy_digest(script: str) -> str:
    """What a Content-Security-Policy calls an inline script."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
