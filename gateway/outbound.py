"""HTTP to systems of others, of whom nothing is taken for granted: what they send is counted on the wire, read a little at a
time, and given up where it is too much.

An HTTP library counts what an answer holds, if anything; neither the interim answers before it (RFC 9110, section 15.2), nor the
chunks that it comes in (RFC 9112, section 7.1), which are far more work than bytes.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import httpcore
import httpx
from anyio import BrokenResourceError
from anyio.abc import ByteStream

PIECE_BYTES = 1_024
BESIDES_BYTES = 64 * 1024  # certificates, headers, and what chunks are packed in
CHUNKS_MAX = 2_000


class NotRead(Exception):
    """An answer is larger than it may be, comes in too many chunks, or compressed, which nobody asked for."""


@cache
def trusted() -> ssl.SSLContext:
    """The machine's certificates, read once for all: it takes 50 ms."""
    return httpx.create_ssl_context(trust_env=False)


def client_of(most: int, timeout: httpx.Timeout, connections: int, base_url: str = "") -> httpx.AsyncClient:
    """A client whose answers have `most` bytes, uncompressed, and lead nowhere else; none of the machine's settings are used."""
    return httpx.AsyncClient(
        base_url=base_url,
        transport=_Transport(most + BESIDES_BYTES, connections),
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        headers={"Accept-Encoding": "identity"},  # what is small on the wire could be large here
    )


async def read_whole(answer: httpx.Response, most: int) -> bytes:
    """The body of a streamed answer, `most` bytes at most. Raises NotRead, and httpx.HTTPError where it breaks off."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise NotRead("The answer is compressed, which nobody asked for.")
    body, chunks = bytearray(), 0
    async for chunk in answer.aiter_raw():
        body += chunk
        chunks += 1
        if len(body) > most or chunks > CHUNKS_MAX:
            raise NotRead(f"The answer has more than {most} bytes, or {CHUNKS_MAX} chunks.")
    return bytes(body)


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own, over a network that counts, which it has no way to be given. A connection serves once: what comes after
    an answer is nobody's answer."""

    def __init__(self, most: int, connections: int) -> None:
        super().__init__(verify=trusted(), trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            trusted(), max_connections=connections, max_keepalive_connections=0, network_backend=_Backend(most)
        )


class _Backend(httpcore.AnyIOBackend):
    """The network, with connections that count, also below TLS."""

    def __init__(self, most: int) -> None:
        self._most = most

    async def connect_tcp(self, *where: Any, **how: Any) -> httpcore.AsyncNetworkStream:
        connected: Any = await super().connect_tcp(*where, **how)
        connected._stream = _Counted(connected._stream, self._most)
        return connected  # type: ignore[no-any-return]


class _Counted(ByteStream):
    """A connection of which so many bytes are read in all, a piece at a time."""

    def __init__(self, stream: ByteStream, most: int) -> None:
        self._stream, self._left = stream, most

    async def receive(self, max_bytes: int = PIECE_BYTES) -> bytes:
        await asyncio.sleep(0)  # what the last piece held was work; others come first
        piece = await self._stream.receive(min(max_bytes, PIECE_BYTES))
        self._left -= len(piece)
        if self._left < 0:
            raise BrokenResourceError
        return piece

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes
