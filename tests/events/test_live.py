"""walletChanged, followed by clients that others wrote: npm's graphql-ws and graphql-sse."""

import asyncio
import base64
import contextlib
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.http import patience
from gateway.http import socket as sockets
from gateway.http.documents import document_id
from tests.access.test_clients import CLIENTS, ROOT, clients
from tests.points import ann_logs_in
from tests.world import World, serving

__all__ = ["clients"]

FOLLOW = "subscription($after: String) { walletChanged(after: $after) { cursor kind activity { points } wallets { available } } }"


class Follower:
    """A Node process that follows, and prints a line for everything that it sees."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> dict[str, Any]:
        assert self._process.stdout
        line = await asyncio.wait_for(self._process.stdout.readline(), 20)
        assert line, (await self._process.stderr.read()).decode() if self._process.stderr else ""
        said: dict[str, Any] = json.loads(line)
        return said

    async def event(self) -> dict[str, Any]:
        """The next event; what the connection does in between is passed over."""
        while "data" not in (said := await self.line()):
            assert "error" not in said, said
        changed: dict[str, Any] = said["data"]["walletChanged"]
        return changed

    async def say(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdin.drain()


@asynccontextmanager
async def following(world: World, token: str, which: str, *after: str) -> AsyncIterator[Follower]:
    url, id = f"{world.url}/graphql", (await world.named(token, FOLLOW))["documentId"]
    command = [sys.executable, str(ROOT / "console/node.py"), "node", "live.mjs", url, token, id, which, *after]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=CLIENTS, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield Follower(process)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


@pytest.mark.parametrize("which", ["ws", "sse"])
async def test_npms_clients_follow_a_wallet_as_it_changes(world: World, clients: Path, which: str) -> None:
    token = await ann_logs_in(world)
    async with following(world, token, which) as follower:
        begin = await follower.event()
        assert (begin["kind"], begin["activity"]) == (None, None)
        await world.record("12.00")
        seen = await follower.event()
        assert (seen["kind"], seen["activity"]["points"], seen["wallets"][0]["available"]) == ("earning", 12, 12)
        await world.redeem(5)
        seen = await follower.event()
        assert (seen["kind"], seen["activity"]["points"], seen["wallets"][0]["available"]) == ("redemption", -5, 7)


@pytest.mark.parametrize("which", ["ws", "sse"])
async def test_npms_clients_come_back_by_themselves_and_miss_nothing(world: World, clients: Path, which: str) -> None:
    token = await ann_logs_in(world)
    async with following(world, token, which) as follower:
        await follower.event()
        await world.record("1.00")
        assert (await follower.event())["activity"]["points"] == 1
        for first in (2, 4):  # twice: what came after the first reconnect is not told again after the second
            await follower.say("drop")
            while "dropped" not in await follower.line():
                pass
            await world.record(f"{first}.00")
            await world.record(f"{first + 1}.00")
            await follower.say("back")
            assert [(await follower.event())["activity"]["points"] for _ in range(2)] == [first, first + 1]
        await world.record("9.00")
        last = await follower.event()
        assert last["activity"]["points"] == 9
    await world.record("7.00")
    async with following(world, token, which, last["cursor"]) as follower:  # an app that was closed and is opened again
        assert (await follower.event())["activity"]["points"] == 7


@asynccontextmanager
async def open_socket(world: World, token: str | None, **options: Any) -> AsyncIterator[ClientConnection]:
    url = world.url.replace("http", "ws") + "/graphql"
    await world.named(token or "", FOLLOW)
    async with connect(url, subprotocols=["graphql-transport-ws"], **options) as socket:  # type: ignore[list-item]
        if token is not None:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}))
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        yield socket


async def subscribe(socket: ClientConnection, **variables: Any) -> None:
    payload = {"documentId": document_id(FOLLOW), "variables": variables}
    await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))


async def next_of(socket: ClientConnection) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 5))
    return said


async def closed_with(socket: ClientConnection) -> int | None:
    try:
        while True:
            await asyncio.wait_for(socket.recv(), 15)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


async def test_nobody_sees_another_members_events_and_a_partner_none(world: World) -> None:
    await world.ask("grocer", "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { errors { code } } }", i={"externalId": "bob"})
    async with open_socket(world, await ann_logs_in(world)) as socket:
        await subscribe(socket)
        begin = (await next_of(socket))["payload"]
        assert begin["data"]["walletChanged"]["kind"] is None
        assert begin["extensions"]["cost"]["requestedQueryCost"] > 0
        await world.record("9.00", member={"externalId": "bob"})
        await world.record("5.00")
        seen = (await next_of(socket))["payload"]
        assert seen["data"]["walletChanged"]["activity"]["points"] == 5
        assert seen["extensions"]["cost"]["actualQueryCost"] == begin["extensions"]["cost"]["actualQueryCost"]
    async with open_socket(world, await world.token("grocer")) as socket:
        await subscribe(socket)
        assert (await next_of(socket))["type"] == "error"


async def test_a_subscription_ends_with_its_token(world: World) -> None:
    token = await ann_logs_in(world)
    async with open_socket(world, token) as socket:
        await subscribe(socket)
        await next_of(socket)
        world.clock.set(world.clock.now() + timedelta(minutes=6))
        assert await closed_with(socket) == 4403


async def test_an_event_stream_ends_with_its_token_and_says_so(world: World) -> None:
    token = await ann_logs_in(world)
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with world.http.stream("POST", "/graphql", json=await world.named(token, FOLLOW), headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        said = [await anext(lines) for _ in range(4)]
        assert said[2] == "event: next"
        world.clock.set(world.clock.now() + timedelta(minutes=6))
        async with asyncio.timeout(10):
            rest = [line async for line in lines]
    assert "UNAUTHENTICATED" in " ".join(rest)
    assert "event: complete" in rest


async def test_what_cannot_begin_is_refused_before_a_stream_opens(world: World) -> None:
    events = {"Accept": "text/event-stream"}
    answer = await world.http.post("/graphql", json={"query": FOLLOW}, headers=events)
    assert answer.status_code == 401
    partner = {**events, "Authorization": f"Bearer {await world.token('grocer')}"}
    assert (await world.http.post("/graphql", json={"query": FOLLOW}, headers=partner)).status_code == 403
    assert (await world.http.post("/graphql", json={"query": "subscription { nothing }"}, headers=partner)).status_code == 400
    plain = await world.post("grocer", "subscription { walletChanged { cursor } }")
    assert "text/event-stream" in plain.json()["errors"][0]["message"]


async def test_every_event_is_paid_for_and_who_has_spent_all_comes_back_for_the_rest(world: World) -> None:
    token = await ann_logs_in(world)
    async with open_socket(world, token) as socket:
        await subscribe(socket)
        cursor = (await next_of(socket))["payload"]["data"]["walletChanged"]["cursor"]
        await world.record("1.00")
        cursor = (await next_of(socket))["payload"]["data"]["walletChanged"]["cursor"]
        # Nothing is left, and nothing comes back.
        await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '1 day'")
        seen = [1]
        while True:
            await world.record(f"{len(seen) + 1}.00")
            said = await next_of(socket)
            if said["type"] == "error" or said["payload"]["data"] is None:
                break
            cursor = said["payload"]["data"]["walletChanged"]["cursor"]
            seen.append(said["payload"]["data"]["walletChanged"]["activity"]["points"])
            assert len(seen) < 1_000
        error = said["payload"][0] if said["type"] == "error" else said["payload"]["errors"][0]
        assert error["extensions"]["code"] == "THROTTLED"
    await world.sql("update budget set available = 50000")
    async with open_socket(world, token) as socket:
        await subscribe(socket, after=cursor)
        assert (await next_of(socket))["payload"]["data"]["walletChanged"]["activity"]["points"] == len(seen) + 1


async def test_a_cursor_that_is_none_is_told(world: World) -> None:
    token = await ann_logs_in(world)
    for bad in ("nonsense", "999999999999-00000000-0000-0000-0000-000000000000-0"):
        async with open_socket(world, token) as socket:
            await subscribe(socket, after=bad)
            said = await next_of(socket)
            assert said["type"] == "error"
            assert said["payload"][0]["extensions"]["code"] == "BAD_INPUT"


async def test_a_queue_that_is_not_read_is_cut_off_with_a_cursor_and_nothing_is_lost(world: World) -> None:
    """A batch of more events than are kept unread arrives at once; who is cut off comes back for the rest."""
    token = await ann_logs_in(world)
    many = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { errors { code } } }"
    points: list[int] = []
    async with open_socket(world, token) as socket:
        await subscribe(socket)
        cursor = (await next_of(socket))["payload"]["data"]["walletChanged"]["cursor"]
        await world.ask("grocer", many, i=[world.purchase(f"{n}.00") for n in range(1, 401)])
        while (said := await next_of(socket))["type"] == "next" and said["payload"]["data"]:
            changed = said["payload"]["data"]["walletChanged"]
            points.append(changed["activity"]["points"])
            cursor = changed["cursor"]
    assert cursor in json.dumps(said)
    assert len(points) == 256
    async with open_socket(world, token) as socket:
        await subscribe(socket, after=cursor)
        while len(points) < 400:
            points.append((await next_of(socket))["payload"]["data"]["walletChanged"]["activity"]["points"])
    assert points == list(range(1, 401))


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
            await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '1 day'")
        async with open_socket(world, token) as socket:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(20):
                    await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
                    await asyncio.wait_for(socket.recv(), 5)
            await socket.wait_closed()
            closes.append(socket.close_code)
    assert closes == [4400, 1013]
