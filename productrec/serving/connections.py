"""The connections of a server: how many there may be, and how long one may say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from productrec.console import warn

_FULL = json.dumps({"error": "too many connections. Ask again in a moment."}).encode()
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n" + (
    b"Content-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)
_MADE_S = 1.0  # after which a new connection is the server's, with a transport
_REFUSAL_S = 0.5  # that a refused connection is read on, for its sender to see why
_OTHER_FILES = 300  # that a server has open beside its connections, at most: its own, and a burst of new connections


def fit_connections(most: int) -> int:
    """As many connections as the system lets this process have beside its files; it is asked for more, where it may."""
    if sys.platform == "win32":
        return most
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return most
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    fitting = min(most, max(soft - _OTHER_FILES, soft // 4))
    if fitting < most:
        warn(f"{fitting:,} connections at the same time, not {most:,}: this process may have {soft:,} files open.")
    return fitting


class Connections:
    """Makes the protocol of each connection, and closes those that are idle: between requests, or in a request's head.

    One that is idle for too long is closed. Where there are as many connections as there may be, a new one takes the
    place of the one that has been idle longest; where none is, that of the one whose body has been coming for longest;
    where all of them wait for answers, it is refused.
    """

    def __init__(
        self, server: web.Server, *, most: int, idle_s: float, drop_slowest: Callable[[], asyncio.BaseProtocol | None]
    ) -> None:
        """Watch the connections of a server.

        Args:
            server: that speaks HTTP on them.
            most: connections at the same time; a burst may have some more for a moment.
            idle_s: seconds that one may be idle.
            drop_slowest: refuses the body that has been coming for longest; its connection, None where there is none.
        """
        self._server, self._most, self._idle_s, self._drop_slowest = server, most, idle_s, drop_slowest
        self._idle_since: dict[asyncio.BaseProtocol, float] = {}  # the longest idle first
        self._busy: set[asyncio.BaseProtocol] = set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if len(self._idle_since) + len(self._busy) >= self._most:
            self._forget_closed()
        if len(self._idle_since) + len(self._busy) >= self._most:
            if self._idle_since:
                self._close(next(iter(self._idle_since)))
            elif dropped := self._drop_slowest():
                self._busy.discard(dropped)  # it is being refused
            else:
                return _Refusal()
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
        transport = protocol.transport
        assert transport is None or isinstance(transport, asyncio.WriteTransport)
        protocol.force_close()
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()  # it would wait for answers to be read, for ever
        elif transport is None:  # of a burst of new ones: it gets its transport later, and would keep it
            for seconds in (_MADE_S / 20, _MADE_S):
                asyncio.get_running_loop().call_later(seconds, protocol.force_close)

    def _forget_closed(self) -> None:
        open_ones = set(self._server.connections)
        newest = asyncio.get_running_loop().time() - _MADE_S
        for protocol, since in list(self._idle_since.items()):
            if protocol not in open_ones and since < newest:
                del self._idle_since[protocol]


class _Refusal(asyncio.Protocol):
    """Says that the server is full, and closes; a little later, since a request that is cut off hides the answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_REFUSAL)
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(_REFUSAL_S, transport.close)
