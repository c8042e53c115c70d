"""What systems of others send, that is more work than bytes: it is given up, and holds nobody up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from gateway.access.jwks import Fetcher, KeysAway
from gateway.coalition.connector import PartnerSilent
from gateway.lookups import Loop
from gateway.outbound import PIECE_BYTES
from partners.protocols.rest_json import RestJson

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 103 E\r\n\r\n"),
    "chunks of a byte": (CHUNKED, b"1\r\n \r\n"),
    "chunks with words beside them": (CHUNKED, b"1;a=" + b"x" * 200 + b"\r\n \r\n"),
    "headers": (OK, b"X: y\r\n"),
    "a body without an end": (OK + b"\r\n", b" " * 1_000),
}


@asynccontextmanager
async def sending(begin: bytes, again: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """A system that answers so, for as long as anybody reads; and how many bytes it got rid of each time."""
    sent: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        sent.append(0)
        try:
            while True:
                writer.write(again * (16_384 // len(again)))
                await writer.drain()
                sent[-1] += 16_384
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", sent


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_without_an_end_is_given_up_whatever_it_is_made_of(kind: str) -> None:
    why = r"more than \d+ bytes, or \d+ chunks" if kind == "chunks of a byte" else None
    async with sending(*ENDLESS[kind]) as (host, sent):
        fetcher, partner = Fetcher([host]), RestJson(f"http://{host}")
        async with asyncio.timeout(4):
            with pytest.raises(KeysAway, match=why):
                await fetcher.json(f"http://{host}/keys")
            with pytest.raises(PartnerSilent, match=why):
                await partner.balance("ann")
        await fetcher.close()
        await partner.close()
    assert len(sent) == 2


@pytest.mark.parametrize("kind", ["interim answers", "chunks of a byte"])
async def test_while_such_an_answer_is_read_others_have_their_turns(kind: str) -> None:
    """On the gateway's own loop: between two pieces everybody who is ready comes first."""
    rounds = 0

    async def work() -> None:
        async def count() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async with sending(*ENDLESS[kind]) as (host, _):
            partner = RestJson(f"http://{host}")
            with pytest.raises(PartnerSilent):
                await partner.balance("ann")
            await partner.close()
        counting.cancel()

    await asyncio.to_thread(uvloop.run, work(), loop_factory=Loop)
    read = 6 * 1_000 if kind == "chunks of a byte" else 64 * 1024
    assert rounds > read // PIECE_BYTES


async def test_a_whole_answer_of_the_size_that_is_allowed_is_read() -> None:
    keys = b'{"keys": [' + b" " * (200 * 1024) + b"]}"
    async with sending(OK + b"Content-Length: %d\r\n\r\n" % len(keys) + keys, b" ") as (host, _):
        fetcher = Fetcher([host])
        assert await fetcher.json(f"http://{host}/keys") == {"keys": []}
        await fetcher.close()
