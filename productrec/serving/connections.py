"""The connections of a server: how many there may be, and how long one may say nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

_FULL = json.dumps({"error": "too many connections. Ask again in a moment."}).encode()
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n" + (
    b"Content-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)


class Connections:
    """Makes the protocol of each connection, and closes those that are idle: between requests, or in a request's head.

    One that is idle for too long is closed; where there are as many connections as there may be, a new one takes the
    place of the one that has been idle longest, and is refused where none is.
    """

    def __init__(self, server: web.Server, *, most: int, idle_s: float) -> None:
        """Watch the connections of a server.

        Args:
            server: that speaks HTTP on them.
            most: connections at the same time; a burst may have some more for a moment.
            idle_s: seconds that one may be idle.
        """
        self._server, self._most, self._idle_s = server, most, idle_s
        self._idle_since: dict[asyncio.BaseProtocol, float] = {}  # the longest idle first
        self._busy: set[asyncio.BaseProtocol] = set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if len(self._idle_since) + len(self._busy) >= self._most:
            self._forget_closed()
        if len(self._idle_since) + len(self._busy) >= self._most:
            if not self._idle_since:
                return _Refusal()
            self._close(next(iter(self._idle_since)))
        protocol = self._server()
        self._idle_since[protocol] = asyncio.get_running_loop().time()
        return protocol

    @contextmanager
    def serve(self, protocol: asyncio.BaseProtocol) -> Iterator[None]:
        """While a request of a connection is answered, that is not idle."""
        self._idle_since.pop(protocol, None)
        self._busy.add(protocol)
        try:
            yield
        finally:
            self._busy.discard(protocol)
            self._idle_since[protocol] = asyncio.get_running_loop().time()

    @property
    def busy_count(self) -> int:
        """Connections with a request that is not answered yet."""
        return len(self._busy)

    async def watch(self) -> None:
        """Close what is idle for too long, for ever."""
        while True:
            await asyncio.sleep(min(1.0, self._idle_s / 4))
            self._forget_closed()
            now = asyncio.get_running_loop().time()
            for protocol, since in list(self._idle_since.items()):
                if now - since <= self._idle_s:
                    break
                self._close(protocol)

    def close_idle(self) -> None:
        """Close all that are idle."""
        for protocol in list(self._idle_since):
            self._close(protocol)

    def _close(self, protocol: asyncio.BaseProtocol) -> None:
        del self._idle_since[protocol]
        assert isinstance(protocol, web.RequestHandler)
        protocol.force_close()

    def _forget_closed(self) -> None:
        open_ones = set(self._server.connections)
        newest = asyncio.get_running_loop().time() - 1  # a connection is the server's a little after it is made
        for protocol, since in list(self._idle_since.items()):
            if protocol not in open_ones and since < newest:
                del self._idle_since[protocol]


class _Refusal(asyncio.Protocol):
    """Says that the server is full, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_REFUSAL)
        transport.close()
