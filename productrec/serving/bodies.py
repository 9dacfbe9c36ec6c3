"""The bodies of requests while they come: how long one may take, and which goes where there is no room for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from productrec.serving.limits import Limits, RefusedError

_WAITING = "too many photos are waiting. Ask again in a moment."


@dataclass(eq=False)
class _Body:
    """One that comes: its connection, what there is of it, the bytes that count as held, and when it must be there."""

    protocol: asyncio.BaseProtocol
    data: bytearray = field(default_factory=bytearray)
    held: int = 0
    deadline: asyncio.Timeout | None = None
    is_dropped: bool = False


class Bodies:
    """Reads bodies into so many bytes in all; whoever is slow holds up nobody else.

    Where there is no room, the body that has been coming for longest is dropped, with 503 for its sender; only where
    that does not make enough, or it is the body that wants the room, that one is refused.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = limits.most_held_bytes
        self._coming: dict[_Body, None] = {}  # the longest coming first

    @asynccontextmanager
    async def read(
        self, chunks: AsyncIterable[bytes], *, length: int | None, protocol: asyncio.BaseProtocol
    ) -> AsyncIterator[bytes]:
        """The body of a request, which counts as held until the end.

        Args:
            chunks: of it, as they come.
            length: that its head promises; None where it does not.
            protocol: of its connection.

        Raises:
            RefusedError: it is too large (413), too slow (408), or there is no room for it (503).
        """
        most = self._limits.most_bytes
        if (length or 0) > most:
            raise RefusedError(413, f"body: must be at most {most:,} bytes.")
        body = _Body(protocol)
        self._coming[body] = None
        try:
            await self._fill(body, chunks)
            del self._coming[body]
            data = bytes(body.data)
            body.data.clear()
            yield data
        finally:
            self._coming.pop(body, None)
            self._free += body.held

    def drop_slowest(self) -> asyncio.BaseProtocol | None:
        """Refuse the body that has been coming for longest; its connection, None where there is no such body."""
        body = next(iter(self._coming), None)
        if body is None:
            return None
        self._drop(body)
        return body.protocol

    async def _fill(self, body: _Body, chunks: AsyncIterable[bytes]) -> None:
        limits = self._limits
        try:
            async with asyncio.timeout(limits.timeout_s) as body.deadline:
                async for chunk in chunks:
                    if len(body.data) + len(chunk) > limits.most_bytes:
                        raise RefusedError(413, f"body: must be at most {limits.most_bytes:,} bytes.")
                    if not body.is_dropped:
                        self._make_room(len(chunk), body)
                        body.data += chunk
        except TimeoutError:
            if not body.is_dropped:
                raise RefusedError(408, f"body: must come within {limits.timeout_s:g} seconds.") from None
        if body.is_dropped:
            raise RefusedError(503, _WAITING)

    def _make_room(self, amount: int, wanting: _Body) -> None:
        """Hold more bytes for a body, those of bodies that have been coming for longer where there are no others."""
        slower, room = list[_Body](), self._free
        for body in self._coming:
            if room >= amount or body is wanting:
                break
            slower.append(body)
            room += body.held
        if room < amount:
            raise RefusedError(503, _WAITING)
        for body in slower:
            self._drop(body)
        self._free -= amount
        wanting.held += amount

    def _drop(self, body: _Body) -> None:
        """Give back what a body holds, now, and have its reader refuse it."""
        del self._coming[body]
        self._free += body.held
        body.held, body.is_dropped = 0, True
        body.data.clear()
        if body.deadline is not None and not body.deadline.expired():  # else its reader is about to know
            body.deadline.reschedule(asyncio.get_running_loop().time())
