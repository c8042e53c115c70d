"""Requests that ask for another protocol, and what sockets bring."""

import asyncio
import contextlib
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.http.slow_reader import slow_reader
from tests.http.test_patience import PARTNER, connection
from tests.world import World, serving

ASKING = b"GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
UPGRADE = ASKING + VERSION + b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"


async def test_nobody_changes_to_a_websocket_over_an_answer_that_is_not_read() -> None:
    """The new protocol would never hear that the connection is full, and have no brake and no clock."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse("x" * (4 << 20))

    async with serving(Starlette(routes=[Route("/fill", answer)])) as (url, server, _):
        _, writer = await asyncio.open_connection(sock=await slow_reader(url))
        writer.transport.pause_reading()
        writer.write(b"GET /fill HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            while not any(each.cycle and each.cycle.response_complete for each in server.server_state.connections):  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
            writer.write(UPGRADE)
            while server.server_state.connections:
                await asyncio.sleep(0.01)
        writer.close()


async def test_nobody_changes_to_a_websocket_while_answers_are_on_their_way(world: World) -> None:
    """uvicorn would go on writing them for a protocol that nobody slows down any more."""
    much = b"GET /limits HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    reader, writer = await connection(world)
    writer.write(much + UPGRADE)
    got = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(5):
            while piece := await reader.read(1 << 16):
                got += piece
    assert b"101 Switching" not in got
    assert got.count(b"HTTP/1.1 200") < 200
    writer.close()
    assert (await world.post("grocer", PARTNER)).status_code == 200


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket2"])
async def test_the_body_of_a_request_for_another_protocol_is_no_request_of_its_own(world: World, protocol: bytes) -> None:
    hidden = b"GET /limits HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await connection(world)
    writer.write(head % (protocol, len(hidden)))
    await asyncio.sleep(0.05)
    writer.write(hidden)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 501")
    assert answer.count(b"HTTP/1.1 ") == 1
    writer.close()
    reader, writer = await connection(world)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"alive"), 5)
    writer.close()


@pytest.mark.parametrize(
    "said",
    [
        ASKING + VERSION + b"Content-Length: 5\r\n\r\nabcde",
        ASKING + VERSION + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        ASKING + VERSION + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        ASKING + VERSION + b"Cookie: " + b"x" * 9_000 + b"\r\n\r\n",
        ASKING + b"\r\n",
    ],
    ids=["body", "chunked", "many headers", "long header", "no version"],
)
async def test_an_upgrade_that_cannot_be_read_is_answered_and_ends(world: World, said: bytes) -> None:
    reader, writer = await connection(world)
    writer.write(said)
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4\d\d ", head)
    assert b"X-Content-Type-Options: nosniff" in head
    assert json.loads(body)["error"]
    writer.close()


async def test_a_server_stops_in_whatever_state_its_sockets_are() -> None:
    stopped = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            stopped.set()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "x" * (16 << 20)})  # which nobody reads
            await receive()

    async with serving(app) as (url, server, _):  # type: ignore[arg-type]
        address = urlsplit(url)
        kept = []
        for leaves in (b"\x88\x80\0\0\0\0", b"\x81"):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            kept.append(writer)
            writer.write(ASKING + VERSION + b"\r\n")
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(leaves)
        await asyncio.sleep(0.1)
        assert len(server.server_state.connections) == len(kept) == 2
    assert stopped.is_set()


@pytest.mark.parametrize("frame", [b"\x00\x80\0\0\0\0", b"\x81\x80\0\0\0\0"], ids=["parts of one message", "messages"])
async def test_a_socket_that_brings_frames_without_end_is_let_go_and_holds_nobody_up(world: World, frame: bytes) -> None:
    reader, writer = await connection(world)
    writer.write(UPGRADE)
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    began = asyncio.get_running_loop().time()
    writer.write((b"\x01\x80\0\0\0\0" if frame[:1] == b"\0" else b"") + frame * 500_000)
    alive = asyncio.create_task(world.http.get("/livez"))
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 5)
    assert (await alive).status_code == 200
    assert asyncio.get_running_loop().time() - began < 1
    writer.close()
