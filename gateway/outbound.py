"""HTTP to systems of others, of whom nothing is taken for granted: what they send is counted on the wire, read a little at a
time, and given up where it is too much.

An HTTP library counts what an answer holds, if anything; neither the interim answers before it (RFC 9110, section 15.2), nor the
chunks that it comes in (RFC 9112, section 7.1), which are far more work than bytes.
"""

import asyncio
import ssl
from collections.abc import Iterable
from functools import cache
from typing import Any

import httpcore
import httpx

PIECE_BYTES = 1_024
BESIDES_BYTES = 32 * 1024  # headers, and what chunks are packed in
CHUNKS_MAX = 1_000
IDLE_SECONDS = 5.0


class TooMuch(Exception):
    """An answer is larger than it may be, or comes in too many chunks."""


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
    """The body of an answer that is streamed, `most` bytes. Raises TooMuch, and httpx.HTTPError where it breaks off."""
    body, chunks = bytearray(), 0
    async for chunk in answer.aiter_raw():
        body += chunk
        chunks += 1
        if len(body) > most or chunks > CHUNKS_MAX:
            raise TooMuch(f"The answer has more than {most} bytes, or {CHUNKS_MAX} chunks.")
    return bytes(body)


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own, over a network that counts, which it has no way to be given."""

    def __init__(self, most: int, connections: int) -> None:
        super().__init__(verify=trusted(), trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            trusted(), max_connections=connections, keepalive_expiry=IDLE_SECONDS, network_backend=_Backend(most)
        )


class _Backend(httpcore.AsyncNetworkBackend):
    """The network, with streams that count."""

    def __init__(self, most: int) -> None:
        self._most, self._network = most, httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        return _Counted(await self._network.connect_tcp(host, port, timeout, local_address, socket_options), self._most)


class _Counted(httpcore.AsyncNetworkStream):
    """A stream of which so many bytes are read after each write, that is, of each answer."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, most: int) -> None:
        self._stream, self._most, self._left = stream, most, most

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await asyncio.sleep(0)  # what the last piece held was work; others come first
        piece = await self._stream.read(min(max_bytes, PIECE_BYTES), timeout)
        self._left -= len(piece)
        if self._left < 0:
            raise httpcore.ReadError("More came than the answer may have.")
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left = self._most
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Counted(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._most)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
