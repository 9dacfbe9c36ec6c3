"""An SVG file as an element of an HTML page: what only a file needs is left out, what a page needs is put in."""

from __future__ import annotations

import hashlib
import re
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"(?:(italic|oblique)\s+)?(?:(\w+)\s+)?([\d.]+px)\s")
_FONT_PARTS = ("font-style", "font-weight", "font-size")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_ROOT = {"fill": "currentColor", "stroke-linejoin": "round", "stroke-linecap": "butt", "font-family": "sans-serif"}


def build_inline_svg(text: str, *, title: str, name: str, ink: str) -> str:
    """An ``<svg>`` element of an SVG file that matplotlib wrote.

    Styles become attributes, so that no style sheet leaks into the page and its policy may forbid them; ids get a name
    of their own, so that several pictures fit into one page; the background stays the page's.

    Args:
        text: of the file.
        title: what it shows, in words.
        name: what its ids begin with; empty for a digest of the picture.
        ink: the colour, ``#rrggbb``, that becomes the page's own text colour.
    """
    root = ElementTree.fromstring(text)
    name = name or f"p{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib.clear()
    root.attrib |= {"viewBox": f"0 0 {width} {height}", "width": width, "height": height, "role": "img"}
    root.attrib |= {"aria-label": title} | _ROOT
    _drop(root)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _spread_style(element, ink)
        _rename(element, name)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(parent: ElementTree.Element) -> None:
    """Leave out what describes the file and its style sheet."""
    for child in list(parent):
        if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
            parent.remove(child)
        else:
            _drop(child)


def _spread_style(element: ElementTree.Element, ink: str) -> None:
    """An element's style as attributes, its ink as the text's colour and its font as the page's."""
    for part in filter(str.strip, element.attrib.pop("style", "").split(";")):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        if key == "font":  # all in one, as matplotlib wrote it before 3.11
            found = _FONT.match(value)
            given = dict(zip(_FONT_PARTS, found.groups() if found else (), strict=False))
            element.attrib |= {name: piece for name, piece in given.items() if piece}
        elif key != "font-family":
            element.set(key, value)
    for key in ("fill", "stroke"):
        if element.get(key) == ink:
            element.set(key, "currentColor")


def _rename(element: ElementTree.Element, name: str) -> None:
    """Put the picture's name before an element's id, and before those that it refers to."""
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.attrib['id']}")
    if (target := element.attrib.pop(_HREF, "")).startswith("#"):
        element.set("href", f"#{name}-{target[1:]}")
    for key, value in element.attrib.items():
        if "url(" in value:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
