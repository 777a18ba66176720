"""Fetch a picture's bytes from a URL, fenced: the one thing here that reaches out to where a stranger points.

Only http and https; every address that a name resolves to must be public, and the connection goes to those addresses
without asking for the name again; each redirect is checked like the first URL. Nothing is told of what lies behind a
name that leads inside: it reads the same as a name that leads nowhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from .held import Busy, Held, Share

SWITCH = "NAGPAG_FETCH"  # this environment variable, set to "off", turns fetching off
MOST_BYTES = 32 * 2**20
MOST_REDIRECTS = 3
SECONDS = 20.0
MOST_AT_ONCE = 4  # fetches; others wait for their turn
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "nag-pag-flux"}


class Refused(Exception):
    """Why a picture is not taken, in words for the one who asked."""


class FetchingOff(Refused):
    """The server's owner turned fetching off."""


# --- addresses ---

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001:db8::/32", "3fff::/20", "2001:2::/48"))
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """True for an address of the public internet; one with an IPv4 address inside is as public as that."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # with a zone, such as fe80::1%eth0, or no address at all
        return False
    return all(_public(one) for one in (found, *_embedded(found)))


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped or address in _NAT64:
            return True  # the IPv4 address inside decides
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    return (address.is_global or _is_tunnel(address)) and not (address.is_multicast or address.is_reserved)


def _is_tunnel(address: Address) -> bool:
    """6to4 and Teredo, which Python's tables call private as a whole."""
    return isinstance(address, ipaddress.IPv6Address) and bool(address.sixtofour or address.teredo)


def _embedded(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address carries: mapped, 6to4, Teredo, NAT64, ISATAP."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inside = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        inside.append(low)
    return [one for one in inside if one is not None]


# --- the fence ---

_turns = asyncio.Semaphore(MOST_AT_ONCE)
Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve_name(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system resolves it; [] where there is none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Fence:
    """What may be fetched. The defaults are the service's; only tests have others."""

    resolve: Resolve = resolve_name
    allowed: Callable[[str], bool] = is_public
    seconds: float = SECONDS
    most_bytes: int = MOST_BYTES
    turns: asyncio.Semaphore = _turns


async def fetch(url: str, fence: Fence | None = None, share: Share | None = None) -> bytes:
    """The bytes at `url`, which are added to the share as they come.

    Raises Refused that says why not, FetchingOff where NAGPAG_FETCH is off, Busy where it never had its turn.
    """
    if os.environ.get(SWITCH, "").strip().lower() in ("off", "0", "false", "no"):
        raise FetchingOff("this server fetches no pictures; send a data: URI or upload the file")
    fence, share = fence or Fence(), share or Share(Held())
    target = _checked(url)
    try:
        await asyncio.wait_for(fence.turns.acquire(), fence.seconds)
    except TimeoutError:
        raise Busy(f"{MOST_AT_ONCE} pictures are fetched at once, and others were before this one") from None
    try:
        async with asyncio.timeout(fence.seconds):
            return await _follow(target, fence, share)
    except TimeoutError:
        raise Refused(f"it took longer than {fence.seconds:g} s") from None
    except (aiohttp.ClientError, OSError):
        raise Refused("it can't be reached, or the connection broke off") from None
    finally:
        fence.turns.release()


async def _follow(target: URL, fence: Fence, share: Share) -> bytes:
    for _ in range(MOST_REDIRECTS + 1):
        found = await _get(target, fence, share)
        if isinstance(found, bytes):
            return found
        target = found
    raise Refused(f"it redirects more than {MOST_REDIRECTS} times")


def _checked(url: str, base: URL | None = None) -> URL:
    """The URL in parts, if it is one that we fetch."""
    try:
        target = base.join(URL(url)) if base else URL(url)
        host, _ = target.host, target.port
    except ValueError:
        raise Refused("it is not a valid URL") from None
    if target.scheme not in ("http", "https") or not host:
        raise Refused("only http and https URLs are fetched")
    if target.user is not None or target.password is not None:
        raise Refused("URLs with a user name or password are not fetched")
    return target


async def _get(target: URL, fence: Fence, share: Share) -> bytes | URL:
    """One request: the bytes, or where it redirects to."""
    addresses = await fence.resolve(str(target.host), int(target.port or 0))
    if not addresses or not all(map(fence.allowed, addresses)):
        raise Refused("its host does not lead to a public address")
    # A literal address skips the resolver; it was among the checked ones, as it resolves to itself.
    connector = aiohttp.TCPConnector(resolver=_Pinned(addresses), use_dns_cache=False, force_close=True)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        ) as session,
        session.get(target, allow_redirects=False) as answer,
    ):
        if answer.status in _REDIRECTS:
            return _checked(answer.headers.get("Location", ""), target)
        if answer.status != 200:
            raise Refused(f"its server answered with status {answer.status}")
        return await _body(answer, fence.most_bytes, share)


async def _body(answer: aiohttp.ClientResponse, most: int, share: Share) -> bytes:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("its server sent it compressed")
    if (answer.content_length or 0) > most:
        raise Refused(f"it is larger than {_size(most)}")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(2**16):
        share.add(len(chunk))
        body += chunk
        if len(body) > most:
            raise Refused(f"it is larger than {_size(most)}")
    return bytes(body)


def _size(most: int) -> str:
    return f"{most // 2**20} MiB" if most >= 2**20 else f"{most} bytes"


class _Pinned(AbstractResolver):
    """Gives the addresses that were checked, whatever name is asked for."""

    def __init__(self, addresses: list[str]):
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass
