"""The bytes of an answer: content encoding undone in bounded pieces, format told by the first bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

HEAD_BYTES = 18  # enough for every signature below
_PIECE_BYTES = 64 << 10
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # sizes of the headers that may follow "BM"
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)


def find_format(head: bytes) -> str | None:
    """Format of a picture by its first `HEAD_BYTES` bytes, one of ``decode.FORMATS``; None for anything else."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


class ContentDecoder:
    """Undoes one content encoding, piece by piece, so that a bomb is met in pieces of 64 KiB and never whole.

    Args:
        encoding: the Content-Encoding header; empty for none.

    Raises:
        ValueError: the encoding is none of gzip, deflate and identity.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        self._inflate: zlib._Decompress | None = None
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ValueError("content encoding is neither gzip nor deflate")

    def decode(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes of the next piece of the answer, in pieces of bounded size.

        Raises:
            ValueError: the data are not of this encoding, or go on after their end.
        """
        if self._encoding in ("", "identity"):
            yield data
            return
        if not data:
            return
        if self._inflate is None:
            self._inflate = zlib.decompressobj(self._choose_window(data[0]))
        while data:
            if self._inflate.eof:
                if data.strip(b"\0"):  # padding is harmless, a second member has no place here
                    raise ValueError("content encoding is damaged")
                return
            try:
                piece = self._inflate.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise ValueError("content encoding is damaged") from None
            yield piece
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail

    @property
    def is_complete(self) -> bool:
        """Whether the encoded stream has reached its own end."""
        return self._encoding in ("", "identity") or self._inflate is None or self._inflate.eof

    def _choose_window(self, first: int) -> int:
        if self._encoding != "deflate":
            return zlib.MAX_WBITS | 16
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS  # some servers send it without its header
