"""Sockets that are slow, silent, loud, too many or nonsense."""

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.http import messages, patience
from gateway.http import socket as sockets
from gateway.http.socket import Session
from tests.events.following import FOLLOW, closed_with, next_of, open_socket, subscribe
from tests.points import ann_logs_in
from tests.world import World, serving


async def ask_for_what_is_refused(socket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for n in itertools.count():
            await socket.send(json.dumps({"type": "subscribe", "id": f"{n}", "payload": {"query": "{ programmes { code } }"}}))
            await asyncio.sleep(0.05)


async def test_sockets_that_do_nothing_are_closed_and_those_that_follow_are_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "IDLE_SECONDS", 2)
    token = await ann_logs_in(world)
    async with open_socket(world, token) as following, open_socket(world, token) as idle:
        await subscribe(following)
        await next_of(following)
        assert await closed_with(idle) == 4408
        # Asking again and again for what is refused keeps nothing open.
        async with open_socket(world, token) as refused, asyncio.TaskGroup() as group:
            group.create_task(ask_for_what_is_refused(refused))
            assert await closed_with(refused) == 4408
        await world.record("5.00")
        assert (await next_of(following))["payload"]["data"]["walletChanged"]["activity"]["points"] == 5


async def test_pings_are_answered_and_floods_of_them_are_not(world: World) -> None:
    token = await ann_logs_in(world)
    async with open_socket(world, token) as socket:
        await subscribe(socket)
        await next_of(socket)
        for _ in range(5):
            await asyncio.wait_for(await socket.ping(), 5)

    async def flood(say: Callable[[], Awaitable[object]]) -> None:
        while True:
            await say()
            await asyncio.sleep(0)

    for which in ("ping", "pong"):
        async with open_socket(world, token) as socket, asyncio.timeout(10):
            with pytest.raises(ConnectionClosed):
                await flood(getattr(socket, which))


async def test_a_socket_whose_answers_nobody_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "UNREAD_SECONDS", 0.8)

    async def say_much(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text("x" * 100_000)

    async with serving(Starlette(routes=[WebSocketRoute("/", say_much)])) as (url, server, _):
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        key = base64.b64encode(b"0123456789abcdef").decode()
        head = f"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
        writer.write(f"{head}\r\n\r\n".encode())
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(10):
            while server.server_state.connections:
                await asyncio.sleep(0.05)
        writer.close()


async def test_a_message_has_left_when_its_sender_goes_on() -> None:
    left = asyncio.Event()

    async def say_one_thing(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("x" * (32 << 20))  # more than the kernel keeps for a socket
        left.set()
        await socket.close()

    async with serving(Starlette(routes=[WebSocketRoute("/", say_one_thing)])) as (url, *_):
        async with connect(url.replace("http", "ws"), max_queue=1, compression=None, max_size=None) as client:
            client.transport.pause_reading()
            await asyncio.sleep(0.5)
            assert not left.is_set()
            client.transport.resume_reading()
            assert len(await asyncio.wait_for(client.recv(), 10)) == 32 << 20
        await asyncio.wait_for(left.wait(), 5)


async def test_many_who_write_to_one_slow_socket_take_turns_and_pile_nothing_up() -> None:
    size, writers = 200_000, 100
    piled_up: list[int] = []

    async def all_at_once(socket: WebSocket) -> None:
        await socket.accept()
        await asyncio.gather(*(socket.send_text(f"{n:03}" * (size // 3)) for n in range(writers)))
        await socket.close()

    async with serving(Starlette(routes=[WebSocketRoute("/", all_at_once)])) as (url, server, _):
        async with connect(url.replace("http", "ws"), max_queue=1, compression=None) as client:
            got = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    piled_up += [each.transport.get_write_buffer_size() for each in server.server_state.connections]  # type: ignore[union-attr]
                    got.append(await client.recv())
                    await asyncio.sleep(0.005)
        assert [str(message) for message in got] == [f"{n:03}" * (size // 3) for n in range(writers)]
        assert 0 < max(piled_up) <= 2 * size


async def test_why_a_socket_closes_fits_into_its_last_frame(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with open_socket(world, None) as socket:
        await socket.send(json.dumps({"type": "é" * 500}))
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
        assert socket.close_code == 4400
    assert "Traceback" not in caplog.text


async def test_one_address_opens_so_many_sockets_and_gets_them_back(world: World) -> None:
    url = world.url.replace("http", "ws") + "/graphql"
    async with AsyncExitStack() as open_ones:

        async def one_more() -> None:
            await open_ones.enter_async_context(connect(url, subprotocols=["graphql-transport-ws"]))  # type: ignore[list-item]

        for _ in range(sockets.SOCKETS_OF_ONE):
            await one_more()
        with pytest.raises(InvalidStatus) as refused:
            await one_more()
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["retry-after"] == "5"
    async with asyncio.timeout(5), open_socket(world, await ann_logs_in(world)) as socket:
        await subscribe(socket)
        assert "data" in (await next_of(socket))["payload"]


async def test_a_process_opens_so_many_sockets_for_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SOCKETS_MAX", 2)
    async with open_socket(world, None), open_socket(world, None):
        with pytest.raises(InvalidStatus) as refused:
            async with open_socket(world, None):
                pass
    assert refused.value.response.status_code == 429


async def test_who_has_not_said_who_it_is_says_nothing_long(world: World) -> None:
    url = world.url.replace("http", "ws") + "/graphql"
    async with connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
        await socket.send(json.dumps({"type": "connection_init", "payload": {"Authorization": "Bearer x", "long": "x" * 17_000}}))
        assert await closed_with(socket) == 4400


async def test_sockets_that_say_nothing_too_much_or_nonsense_are_closed(world: World) -> None:
    url = world.url.replace("http", "ws") + "/graphql"
    async with open_socket(world, None) as socket:
        await subscribe(socket)
        assert await closed_with(socket) == 4401
    for nonsense in ("no json", "[]", "7", '{"type": 1}', '{"type": "subscribe", "id": "1", "payload": []}', '{"type":"subscribe"}'):
        async with open_socket(world, await world.token("grocer")) as socket:
            await socket.send(nonsense)
            assert await closed_with(socket) == 4400, nonsense
    async with connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
        await socket.send(json.dumps({"type": "connection_init", "payload": {"Authorization": "Bearer a.b.c"}}))
        assert await closed_with(socket) == 4403
    async with open_socket(world, await world.token("grocer")) as socket:
        for _ in range(sockets.MESSAGES_A_SECOND + 60):
            await socket.send('{"type": "ping"}')
        assert await closed_with(socket) == 4429
    async with open_socket(world, await world.token("grocer")) as socket:
        await socket.send("x" * (sockets.MESSAGE_MAX_BYTES + 1))
        assert await closed_with(socket) == 1009
    async with connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
        assert await closed_with(socket) == 4408
    for path, protocol, status in (("/graphql", "graphql-ws", 400), ("/other", "graphql-transport-ws", 404)):
        with pytest.raises(InvalidStatus) as refused:  # before it is accepted
            await connect(url.replace("/graphql", path), subprotocols=[protocol]).__aenter__()  # type: ignore[list-item]
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body or b"")["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert await world.transactions() == 0


async def test_a_socket_runs_so_many_operations_at_once_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sockets.OPERATIONS_MAX == 20
    monkeypatch.setattr(sockets, "OPERATIONS_MAX", 3)
    token = await ann_logs_in(world)
    id = (await world.named(token, FOLLOW))["documentId"]
    async with open_socket(world, token) as socket:
        for n in range(4):
            await socket.send(json.dumps({"type": "subscribe", "id": str(n), "payload": {"documentId": id}}))
        said: dict[str, Any] = {}
        while said.get("type") != "error":
            said = json.loads(await asyncio.wait_for(socket.recv(), 5))
    assert (said["id"], said["payload"][0]["message"]) == ("3", "Subscription limit reached")


async def test_what_can_never_be_read_ends_a_socket_for_good_and_what_cannot_be_paid_now_does_not(world: World) -> None:
    token = await ann_logs_in(world)
    closes = []
    for n, payload in enumerate(({"query": "{ me { id } }", "variables": {"z": [[]] * 20_000}}, {"query": "{ me { id } }", "variables": {"z": "x" * 200_000}})):
        if n == 1:
            await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds'")
        async with open_socket(world, token) as socket:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(20):
                    await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
                    await asyncio.wait_for(socket.recv(), 5)
            await socket.wait_closed()
            closes.append(socket.close_code)
    assert closes == [4400, 1013]


async def test_whoever_names_nobody_is_sent_away_and_a_stranger_says_little(world: World) -> None:
    for said, code in (({}, 4403), ({"x": [[]] * 60}, 4400)):
        async with open_socket(world, None) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": said}))
            assert await closed_with(socket) == code


async def test_nothing_is_kept_of_a_message_that_was_handled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[dict[str, Any]] = []
    sessions: list[Session] = []
    fits = messages.fits
    monkeypatch.setattr("gateway.http.socket.fits", lambda message: kept.append(message) or fits(message))
    handle = BaseGraphQLTransportWSHandler.handle_connection_init

    async def noted(self: Any, message: Any) -> None:
        await handle(self, message)
        sessions.append(self.context)

    monkeypatch.setattr(BaseGraphQLTransportWSHandler, "handle_connection_init", noted)
    async with open_socket(world, await world.token("grocer")) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": "{ partner { code } }"}}))
        assert (await next_of(socket))["payload"]["data"] == {"partner": {"code": "grocer"}}
    assert kept == [{}] * len(kept)
    assert len(kept) >= 2
    assert [each.connection_params for each in sessions] == [None]
