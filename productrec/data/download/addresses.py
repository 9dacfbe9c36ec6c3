"""Which network addresses a download may reach, judged on the very address that a socket is about to connect to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

NOT_PUBLIC = "address is not public; --allow-private (data.allow_private=true) lets it be fetched"
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64: the last 32 bits are an IPv4 address
_LOCALLY_TRANSLATED = ipaddress.IPv6Network("64:ff9b:1::/48")


class AddressRefusedError(OSError):
    """The address is not public. An `OSError`, so that the connector goes on to the host's next address."""


def is_public(address: str) -> bool:
    """Whether a numeric address belongs to the public internet.

    Private, loopback, link-local, shared, multicast, reserved and unspecified ones do not, nor IPv6 addresses that
    carry such an IPv4 address (mapped, NAT64, 6to4, Teredo). What is not an address is not public.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.is_site_local or parsed in _LOCALLY_TRANSLATED:
            return False
        if parsed in _TRANSLATED:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        else:
            parsed = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1] or parsed
    return parsed.is_global and not (
        parsed.is_private
        or parsed.is_loopback
        or parsed.is_link_local
        or parsed.is_multicast
        or parsed.is_reserved
        or parsed.is_unspecified
    )


def open_public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Socket factory of a connector: names, numeric hosts and redirects all pass here just before they connect.

    Args:
        address: family, type, protocol, canonical name and socket address, as ``socket.getaddrinfo`` gives them.

    Raises:
        AddressRefusedError: the socket address is not public.
    """
    family, kind, protocol, _, where = address
    if not is_public(str(where[0])):
        raise AddressRefusedError(NOT_PUBLIC)
    return socket.socket(family, kind, protocol)


class DaemonResolver(AbstractResolver):
    """Looks host names up in daemon threads: a name server that never answers cannot hold up the end of a run."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Numeric addresses of ``host``.

        Raises:
            OSError: the name is not found, or no name server answers.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def settle(addresses: list[Any], error: Exception | None) -> None:
            if answer.done():  # nobody waits any more
                return
            if error is None:
                answer.set_result(addresses)
            else:
                answer.set_exception(error)

        def look_up() -> None:
            addresses: list[Any] = []
            problem: Exception | None = None
            try:
                addresses = list(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
            except Exception as error:
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, addresses, problem)

        threading.Thread(target=look_up, daemon=True, name=f"look up {host}").start()
        return [
            ResolveResult(
                hostname=host,
                host=str(where[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, where in await answer
        ]

    async def close(self) -> None:
        """Nothing to close: the threads end with their look-ups."""
