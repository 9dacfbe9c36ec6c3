"""What a request asks for: its parameters, and the files in its body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from typing import NamedTuple

from productrec.assembly.asking import MOST_NEAREST
from productrec.data.boxes import is_box
from productrec.serving.limits import RefusedError

_LONGEST_BOUNDARY = 70  # RFC 2046, section 5.1.1
_LONGEST_HEAD = 8192  # of a part; its parser is slow
_LONGEST_NAME = 200
_SHOWN = 40  # characters of what was given, in an error
_TRUTHS = {"1": True, "true": True, "yes": True, "": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Wish:
    """The parameters of a request, as the options of ``productrec query``."""

    nearest: int = 3
    box: str | None = None
    unknown: bool = False


class File(NamedTuple):
    """A file of a request: what it is called, and its bytes."""

    name: str
    data: bytes


def read_wish(query: Mapping[str, str]) -> Wish:
    """The parameters that stand in a request's address.

    Raises:
        RefusedError: one is unknown or wrong, 400.
    """
    for key in query:
        if key not in ("nearest", "box", "unknown"):
            raise RefusedError(400, f"{key[:_SHOWN]!r}: no such parameter. There are nearest, box and unknown.")
    nearest, box, unknown = query.get("nearest", "3"), query.get("box"), query.get("unknown", "no")
    if not (nearest.isascii() and nearest.isdigit() and len(nearest) < 4 and int(nearest) <= MOST_NEAREST):
        raise RefusedError(400, f"nearest: must be a number from 0 to {MOST_NEAREST}; got {nearest[:_SHOWN]!r}.")
    if box is not None and (len(box) > _LONGEST_NAME or not is_box(box)):
        given = repr(box[:_SHOWN])
        raise RefusedError(400, f"box: must be x,y,width,height in pixels, such as 40,12,200,300; got {given}.")
    if unknown.lower() not in _TRUTHS:
        raise RefusedError(400, f"unknown: must be yes or no; got {unknown[:_SHOWN]!r}.")
    return Wish(int(nearest), box, _TRUTHS[unknown.lower()])


def read_files(content_type: str, body: bytes, most_files: int) -> list[File]:
    """The files of a body: it is one itself, or a form with several.

    Args:
        content_type: as the request's header has it.
        body: all of it.
        most_files: more are refused.

    Raises:
        RefusedError: a form that is none, or has no file or too many, 400.
    """
    header = _parse_header(f"Content-Type: {content_type}")
    if header.get_content_type() != "multipart/form-data":
        return [File("photo 1", body)]
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise RefusedError(400, f"form: must name a boundary of 1 to {_LONGEST_BOUNDARY} characters.")
    parts = _split(body, b"--" + boundary.encode("ascii"), most_files)
    return [_read_part(part, number) for number, part in enumerate(parts, start=1)]


def _split(body: bytes, mark: bytes, most_files: int) -> list[bytes]:
    """The parts of a form, each with its head; a line of its own that begins with ``mark`` stands before each."""
    # What stands before the first mark is no part. Splitting stops soon after the most parts that are allowed.
    _, *parts = (b"\r\n" + body).split(b"\r\n" + mark, most_files + 2)
    if not parts:
        raise RefusedError(400, "form: its body must hold the boundary that its header names.")
    ends = [number for number, part in enumerate(parts) if part.startswith(b"--")]
    if ends:
        parts = parts[: ends[0]]
    if len(parts) > most_files:
        raise RefusedError(400, f"form: must hold at most {most_files} photos. Send several forms.")
    if not ends:
        raise RefusedError(400, "form: must end with its boundary and two dashes; it is cut off.")
    if not parts:
        raise RefusedError(400, "form: must hold at least one photo.")
    return parts


def _read_part(part: bytes, number: int) -> File:
    end = part.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    # Browsers and curl write names in plain UTF-8.
    disposition = Message() if end < 0 else _parse_header(part[:end].strip(b" \t\r\n").decode("utf-8", "replace"))
    try:
        name = disposition.get_filename()
        field = disposition.get_param("name", "", header="content-disposition")
    except Exception:  # the parser is lenient but not proven against every header
        name, field = None, ""
    if name is None:
        raise RefusedError(
            400, f"form: part {number} ({str(field)[:_SHOWN]!r}) must be a file. Parameters stand in the address."
        )
    return File(name[:_LONGEST_NAME] or f"photo {number}", part[end + 4 :])


def _parse_header(text: str) -> Message:
    try:
        return message_from_string(text + "\r\n\r\n")
    except Exception:
        return Message()
